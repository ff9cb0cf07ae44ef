"""Which tensor of one checkpoint gives its values to which tensor of another one.

Keras stores weights under paths that count layers of a class, so that one layer more shifts all
that follow; loading by such paths puts values into the wrong layers. What layers are called does
not shift. Nothing here is guessed: what is not sure stays as it is, with the reason.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from ckptkit.errors import EditError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptkit.model import Kind, TensorSpec

By = Literal["name", "shape", "order"]

MAX_CELLS: Final = 1 << 26
"""Pairs of layers that are compared by shape at most."""

NAMED: Final = 4
"""Layers that a reason names at most."""

OPTIMIZER: Final = ("optimizer/", "optimizer_weights/")
"""What the names of an optimizer's tensors begin with."""

_REAL: Final[frozenset[Kind]] = frozenset({"float", "int", "uint", "bool"})
_CASTS: Final[Mapping[Kind, frozenset[Kind]]] = {
    "float": frozenset({"float", "complex"}),
    "int": _REAL | {"complex"},
    "uint": _REAL | {"complex"},
    "bool": _REAL | {"complex"},
    "complex": frozenset({"complex"}),
}
"""Kinds of values that become others without losing what they are about."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a tensor of either checkpoint.

    Attributes:
        name: The name of the tensor.
        label: The names of layer and weight, ``LAYER/WEIGHT``, where they are known.
        spec: Its dtype and shape.
    """

    name: str
    label: str | None
    spec: TensorSpec

    @property
    def shown(self) -> str:
        """What a person calls it."""
        return self.name if self.label is None else self.label

    @property
    def layer(self) -> str:
        """What it belongs to."""
        return self.shown.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors of which the new one gets the values of the old one.

    Attributes:
        new: Name of the tensor in the template.
        old: Name of the tensor that has the values.
        note: What is worth saying about it; empty where nothing is.
    """

    new: str
    old: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A tensor that has no partner, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Matching:
    """What became of all tensors.

    Attributes:
        pairs: In the order of the template.
        unmatched_new: Tensors of the template that stay as they are there.
        unmatched_old: Tensors whose values go nowhere.
    """

    pairs: tuple[Pair, ...]
    unmatched_new: tuple[Unmatched, ...] = ()
    unmatched_old: tuple[Unmatched, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield the lines of a report."""
        count = len(self.pairs) + len(self.unmatched_new)
        yield f"{len(self.pairs)} of {count} tensors of the template get values"
        same = sum(pair.new == pair.old and not pair.note for pair in self.pairs)
        if same:
            yield f"  {same} from the tensor of the same name"
        for pair in self.pairs:
            if pair.new != pair.old or pair.note:
                yield f"  {pair.new} <- {pair.old}" + (f" ({pair.note})" if pair.note else "")
        if self.unmatched_new:
            yield f"{len(self.unmatched_new)} stay as they are in the template"
            yield from _by_reason(self.unmatched_new)
        if self.unmatched_old:
            yield f"{len(self.unmatched_old)} of the old checkpoint are not used"
            yield from _by_reason(self.unmatched_old)


def _by_reason(found: Sequence[Unmatched]) -> Iterator[str]:
    """Yield a line for tensors that one reason is given for."""
    names: dict[str, list[str]] = {}
    for one in found:
        names.setdefault(one.reason, []).append(one.name)
    for reason, (first, *more) in names.items():
        yield f"  {first}" + (f" and {len(more)} more" if more else "") + f": {reason}"


def match(old: Sequence[Entry], new: Sequence[Entry], by: By) -> Matching:
    """Find partners: no two of one shape are paired because they might fit.

    The tensors of optimizers come last: they have no names of their own, just an order that
    follows that of the weights, so that all are paired or none.

    Args:
        old: The tensors that have the values, in the order of their checkpoint.
        new: The tensors of the template, in the order of theirs.
        by: ``name`` joins layers and weights of the same names, and tensors of the same names
            where they have no labels. ``shape`` pairs layers whose weights have the same shapes,
            in order, where there is just one way. ``order`` pairs the i-th with the i-th, as
            Keras does. Shapes have to agree in any case; dtypes need not.

    Raises:
        EditError: There is no such way, or there are too many layers for it.
    """
    if by not in _WAYS:
        msg = f"tensors are matched by name, shape or order, not by {by!r}"
        raise EditError(msg)
    weights = _Sides([*filter(_is_weight, old)], [*filter(_is_weight, new)])
    _WAYS[by](weights)
    slots = _Sides(
        [entry for entry in old if not _is_weight(entry)],
        [entry for entry in new if not _is_weight(entry)],
    )
    _match_slots(slots, weights)
    pairs = weights.pairs | slots.pairs
    used = {pair.old for pair in pairs.values()}
    reasons = weights.new_reasons | slots.new_reasons
    old_reasons = weights.old_reasons | slots.old_reasons
    return Matching(
        tuple(pairs[entry.name] for entry in new if entry.name in pairs),
        tuple(
            Unmatched(entry.name, reasons[entry.name]) for entry in new if entry.name not in pairs
        ),
        tuple(
            Unmatched(entry.name, old_reasons[entry.name])
            for entry in old
            if entry.name not in used
        ),
    )


def _is_weight(entry: Entry) -> bool:
    return not entry.name.startswith(OPTIMIZER)


class _Sides:
    """Tensors of both checkpoints, and what was found out about them so far."""

    def __init__(self, old: Sequence[Entry], new: Sequence[Entry]) -> None:
        self.old = old
        self.new = new
        self.pairs: dict[str, Pair] = {}
        self.new_reasons: dict[str, str] = {}
        self.old_reasons: dict[str, str] = {}

    def join(self, old: Entry, new: Entry) -> None:
        """Pair two tensors, or note why they are none."""
        reason = _mismatch(old, new)
        if reason is not None:
            self.new_reasons[new.name] = self.old_reasons[old.name] = reason
            return
        cast = old.spec.dtype != new.spec.dtype
        note = f"values are cast from {old.spec.dtype} to {new.spec.dtype}" if cast else ""
        self.pairs[new.name] = Pair(new.name, old.name, note)

    def leave(self, old: Sequence[Entry], new: Sequence[Entry], reason: str) -> None:
        """Note why some tensors have no partner."""
        self.old_reasons.update((entry.name, reason) for entry in old)
        self.new_reasons.update((entry.name, reason) for entry in new)


def _mismatch(old: Entry, new: Entry) -> str | None:
    """Return why the values of one tensor cannot become those of another one, or None."""
    both = f"{new.shown}: old {old.spec}, template {new.spec}"
    if old.spec.shape != new.spec.shape:
        return both
    kind, wanted = old.spec.kind, new.spec.kind
    if old.spec.dtype != new.spec.dtype and wanted not in _CASTS.get(kind, ()):
        return f"{both}; a cast would change what the values say"
    return None


def _by_name(sides: _Sides) -> None:
    keys: list[dict[tuple[bool, str], list[Entry]]] = []
    for entries in (sides.old, sides.new):
        held: dict[tuple[bool, str], list[Entry]] = defaultdict(list)
        for entry in entries:
            held[entry.label is not None, entry.shown].append(entry)
        keys.append(held)
    old, new = keys
    hint = ""
    if sides.old and all(entry.label is None for entry in sides.old):
        hint = "; it names no layers, so that only shapes or the order could tell"
    for key, entries in new.items():
        others = old.get(key, [])
        if len(entries) == len(others) == 1:
            sides.join(others[0], entries[0])
        elif others:
            text = f"{key[1]!r} is {len(others)} old tensors and {len(entries)} of the template"
            sides.leave(others, entries, text)
        else:
            labelled = hint if key[0] else ""
            sides.leave([], entries, f"old has no {key[1]!r}{labelled}")
    for key, entries in old.items():
        if key not in new:
            sides.leave(entries, [], f"template has no {key[1]!r}")


def _by_order(sides: _Sides) -> None:
    for old, new in zip(sides.old, sides.new, strict=False):
        sides.join(old, new)
    both = f"old has {len(sides.old)} weights, template {len(sides.new)}"
    least = min(len(sides.old), len(sides.new))
    sides.leave(sides.old[least:], sides.new[least:], both)


def _match_slots(slots: _Sides, weights: _Sides) -> None:
    """Pair the tensors of optimizers, where their order says what they belong to."""
    reason = _slots_reason(slots, weights)
    if reason is None:
        for old, new in zip(slots.old, slots.new, strict=True):
            slots.join(old, new)
            if slots.new_reasons:
                reason = slots.new_reasons[new.name]
                break
    if reason is not None:
        slots.pairs.clear()
        slots.leave(slots.old, slots.new, f"the optimizer stays as in the template: {reason}")


def _slots_reason(slots: _Sides, weights: _Sides) -> str | None:
    counts = len(slots.old), len(slots.new)
    if not all(counts):
        return f"only the {'old checkpoint' if counts[0] else 'template'} has one"
    left = len(weights.new) - len(weights.pairs), len(weights.old) - len(weights.pairs)
    if any(left):
        return f"{left[0]} weights of the template and {left[1]} old ones have no partner"
    if counts[0] != counts[1]:
        return f"old has {counts[0]} tensors of it, template {counts[1]}"
    if [weights.pairs[entry.name].old for entry in weights.new] != [
        entry.name for entry in weights.old
    ]:
        return "weights come in another order, and its tensors follow an order that is not stored"
    return None


def _by_shape(sides: _Sides) -> None:
    old, new = _layers(sides.old), _layers(sides.new)
    common = _Common(
        [tuple(entry.spec.shape for entry in layer) for layer in old],
        [tuple(entry.spec.shape for entry in layer) for layer in new],
    )
    for i, j in common.sure:
        for one, other in zip(old[i], new[j], strict=True):
            sides.join(one, other)
    sure_old, sure_new = {i for i, _ in common.sure}, {j for _, j in common.sure}
    for j, layer in enumerate(new):
        if j not in sure_new:
            found = [old[i] for i in common.for_new[j]]
            sides.leave([], layer, _untold(layer, found, int(common.count_new[j]), "old"))
    for i, layer in enumerate(old):
        if i not in sure_old:
            found = [new[j] for j in common.for_old[i]]
            sides.leave(layer, [], _untold(layer, found, int(common.count_old[i]), "new"))


def _layers(entries: Sequence[Entry]) -> list[list[Entry]]:
    held: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        held[entry.layer].append(entry)
    return [*held.values()]


def _untold(layer: Sequence[Entry], found: Sequence[Sequence[Entry]], count: int, side: str) -> str:
    """Return why shapes do not say which layer another one is."""
    shapes = ", ".join(str(entry.spec) for entry in layer[:NAMED])
    shapes += ", ..." if len(layer) > NAMED else ""
    if not found:
        return f"no {side} layer has these shapes at this place: {shapes}"
    names = ", ".join(repr(other[0].layer) for other in found)
    names += f" or {count - len(found)} others" if count > len(found) else ""
    return f"shapes do not tell whether {layer[0].layer!r} is the {side} {names}: {shapes}"


class _Common:
    """What all longest common subsequences of two sequences have in common.

    Attributes:
        sure: Pairs of positions that are in every one of them.
        for_old, for_new: For each position a few positions of the other sequence that are
            its partner in one of them.
        count_old, count_new: How many such partners there are.
    """

    def __init__(self, old: Sequence[object], new: Sequence[object]) -> None:
        """Compare everything with everything.

        Raises:
            EditError: The sequences are too long.
        """
        if len(old) * len(new) > MAX_CELLS:
            msg = f"{len(old)} and {len(new)} layers are too many to match by shape; do it by name"
            raise EditError(msg)
        self.for_old: list[list[int]] = [[] for _ in old]
        self.for_new: list[list[int]] = [[] for _ in new]
        self.count_old = np.zeros(len(old), np.int64)
        self.count_new = np.zeros(len(new), np.int64)
        codes: dict[object, int] = {}
        rows, columns = (
            np.array([codes.setdefault(one, len(codes)) for one in side], np.int64)
            for side in (old, new)
        )
        # before[i, j]: how long one can be of what is before i and before j.
        before = np.zeros((len(old) + 1, len(new) + 1), np.uint16)
        for i, code in enumerate(rows):
            longer = np.maximum(before[i, 1:], before[i, :-1] + (columns == code))
            before[i + 1, 1:] = np.maximum.accumulate(longer)
        longest = int(before[-1, -1])
        # Of the pairs that can be the n-th of such a subsequence, how many there are, and one.
        choices = np.zeros(longest, np.int64)
        pairs = np.zeros((longest, 2), np.int64)
        after = np.zeros(len(new) + 1, np.uint16)
        for i in reversed(range(len(old))):
            same = columns == rows[i]
            found = np.flatnonzero(same & (before[i, :-1] + after[1:] + 1 == longest))
            place = before[i, found]
            np.add.at(choices, place, 1)
            pairs[place, 0], pairs[place, 1] = i, found
            self.count_old[i] = len(found)
            self.count_new[found] += 1
            self.for_old[i] = found[:NAMED].tolist()
            for j in found[self.count_new[found] <= NAMED].tolist():
                self.for_new[j].insert(0, i)
            longer = np.maximum(after[:-1], after[1:] + same)
            after[:-1] = np.maximum.accumulate(longer[::-1])[::-1]
        self.sure: list[tuple[int, int]] = [(i, j) for i, j in pairs[choices == 1].tolist()]


_WAYS: Final = {"name": _by_name, "shape": _by_shape, "order": _by_order}
