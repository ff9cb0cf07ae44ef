"""What a plan computes, for its reader: edits of one tensor as the one chain that they run as."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptkit.engine.program import derivations, is_measured
from ckptkit.model import Derived, Stored, Tensor
from ckptkit.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.engine.program import Node
    from ckptkit.engine.work import Work
    from ckptkit.kernels import Granularity

_COARSER: Final = ("element", "row", "tensor")
_ARROW: Final = " -> "


@dataclass(frozen=True, slots=True)
class Stage:
    """Something that is done to values in one go: one read, one write, or a pass that only reads.

    Attributes:
        chain: The edits, in the order in which values go through them.
        tensors: How many tensors it is done to.
        granularity: What it has to see at a time.
        passes: How often it goes through the values.
        measures: It writes nothing, and gives numbers that later stages use.
    """

    chain: str
    tensors: int
    granularity: Granularity = "element"
    passes: int = 1
    measures: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the stage, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the stage for people."""
        verb = "measure" if self.measures else "compute"
        words = [counted(self.tensors, "tensor")]
        if self.passes > 1:
            words.append(f"{self.passes} passes")
        if self.granularity != "element":
            words.append("whole rows" if self.granularity == "row" else "whole tensors in memory")
        return f"{verb} {self.chain} ({', '.join(words)})"


def stages_of(work: Work) -> tuple[Stage, ...]:
    """Return what some work does to values, in the order in which it does it."""
    found = [
        Stage(_measured(tensor), len(_parents(tensor)), passes=_passes(tensor), measures=True)
        for step in work.statistics
        for group in step
        for tensor in group.statistics
    ]
    computed: Counter[tuple[str, Granularity]] = Counter()
    for flat in work.flats:
        computed[_ARROW.join(_node_labels(flat.chain.root)), "element"] += len(flat.ends)
    for boxed in work.boxes:
        computed[_ARROW.join(_labels(boxed.tensor)), _granularity(boxed.tensor)] += 1
    for region in work.regions:
        labels = _ARROW.join(layer.kernel.label for layer in region.layers)
        computed[labels, "element"] += 1
    found += [Stage(chain, count, kind) for (chain, kind), count in computed.items()]
    return _together(found)


def _together(stages: list[Stage]) -> tuple[Stage, ...]:
    """Return stages with those that do the same to other tensors counted as one."""
    alike: Counter[tuple[str, Granularity, int, bool]] = Counter()
    for stage in stages:
        alike[stage.chain, stage.granularity, stage.passes, stage.measures] += stage.tensors
    return tuple(
        Stage(chain, count, kind, passes, measures)
        for (chain, kind, passes, measures), count in alike.items()
    )


def _measured(tensor: Tensor) -> str:
    """Return what a statistic is, and of what."""
    parents = _parents(tensor)
    inner = _labels(parents[0]) if isinstance(parents[0].source, Derived) else []
    own = tensor.source.kernel.label if isinstance(tensor.source, Derived) else ""
    return _ARROW.join([*inner, own])


def _parents(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.source.parents if isinstance(tensor.source, Derived) else ()


def _passes(tensor: Tensor) -> int:
    kernel = tensor.source.kernel if isinstance(tensor.source, Derived) else None
    return int(getattr(kernel, "passes", 1))


def _labels(tensor: Tensor) -> list[str]:
    labels: list[str] = []
    current = tensor
    while isinstance(current.source, Derived):
        source = current.source
        where = f" at {source.region}" if source.region is not None else ""
        labels.append(f"{source.kernel.label}{where}")
        if not source.parents or is_measured(current):
            break
        current = source.parents[0]
    return labels[::-1] or ["copy"]


def _node_labels(node: Node | None) -> Iterator[str]:
    if isinstance(node, tuple):
        kernel, nodes = node
        if nodes:
            yield from _node_labels(nodes[0])
        yield kernel.label


def _granularity(tensor: Tensor) -> Granularity:
    kinds = {
        one.source.kernel.granularity
        for one in derivations(tensor)
        if not isinstance(one.source, Stored)
    }
    return max(kinds, key=_COARSER.index, default="element")
