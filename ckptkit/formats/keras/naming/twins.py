"""Tensors that Keras stores twice, which have to change together."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from ckptkit.draws import Random
from ckptkit.errors import EditError
from ckptkit.model import Derived, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.kernels import Kernel
    from ckptkit.model import TensorSpec

Pair = tuple[str, str]
"""Names of two tensors that are equal. Keras reads both, the second one last, so that it counts."""

SCALER_VARIABLES: Final = 4
"""A ``LossScaleOptimizer`` has the iteration, a learning rate, the step counter, and the scale
itself; copies of the variables of the optimizer in it follow."""

MULTI_VARIABLES: Final = 2
"""A ``MultiOptimizer`` has the iteration and a learning rate itself; copies of the variables of one
optimizer after the other follow."""

MAX_TRIED: Final = 200
"""Steps that are tried to find an order of optimizers."""

MAX_PARTS: Final = 100
"""Optimizers within one that are looked at."""

SHOWN: Final = 3
"""How many pairs have a note each."""

_NUMBERED: Final = re.compile(r"(.*/)?vars/(0|[1-9][0-9]{0,8})", re.DOTALL)
_LOOKUP: Final = "_lookup_layer/vars/idf_weights"
_INNER: Final = "inner_optimizer/"
_SPECTRAL: Final = re.compile(
    r"((?:.*/)?spectral_normalization(?:_[1-9][0-9]*)?/)vars/0", re.DOTALL
)
_PART: Final = re.compile(r"(.*/|)optimizers/(([^/]+?)(?:_([1-9][0-9]*))?)/", re.DOTALL)


# --- finding them ------------------------------------------------------------------------------


def twins(
    names_specs: Mapping[str, TensorSpec] | Iterable[tuple[str, TensorSpec]],
) -> tuple[Pair, ...]:
    """Return the tensors that a file of Keras holds twice, as pairs with equal specs.

    These are the variables of optimizers within a ``LossScaleOptimizer`` or a ``MultiOptimizer``,
    the weights of terms of a ``TextVectorization``, and the kernel that a ``SpectralNormalization``
    shares with the layer in it. A tensor may be in more than one pair.
    The file does not tell the order of the optimizers within a ``MultiOptimizer``: where more than
    one goes with the specs, only those pairs are given that all of them have.

    Args:
        names_specs: All tensors of a file, by their paths in it.
    """
    specs = dict(names_specs)
    found: list[Pair] = []
    for name in specs:
        if name.endswith(_LOOKUP):
            layer = name.removesuffix(_LOOKUP)
            if not layer or layer.endswith("/"):
                found.append((f"{layer}{_LOOKUP.partition('/')[2]}", name))
        elif (wrapper := _SPECTRAL.fullmatch(name)) is not None:
            found.append((name, f"{wrapper[1]}layer/vars/0"))
    groups = _numbered(specs)
    for path, names in groups.items():
        if path == _INNER or path.endswith(f"/{_INNER}"):
            copies = groups.get(path.removesuffix(_INNER), ())[SCALER_VARIABLES:]
            if len(copies) == len(names):
                found += zip(copies, names, strict=True)
    for path, parts in _multiple(groups).items():
        copies = groups.get(path, ())[MULTI_VARIABLES:]
        found += _in_order(copies, parts, specs)
    return tuple((a, b) for a, b in found if a in specs and specs[a] == specs.get(b))


def _numbered(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the variables of every object by its path with a slash, where none is missing."""
    numbers: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match is not None:
            numbers[match[1] or ""][int(match[2])] = name
    return {
        path: tuple(named[number] for number in range(len(named)))
        for path, named in numbers.items()
        if max(named) == len(named) - 1
    }


def _multiple(groups: Mapping[str, Sequence[str]]) -> dict[str, list[list[Sequence[str]]]]:
    """Return the variables of optimizers within others: of each class a list, in its order."""
    found: defaultdict[str, defaultdict[str, dict[int, Sequence[str]]]]
    found = defaultdict(lambda: defaultdict(dict))
    for path, names in groups.items():
        match = _PART.fullmatch(path)
        if match is not None:
            found[match[1]][match[3]][int(match[4] or 0)] = names
    return {
        path: [[by_number[number] for number in sorted(by_number)] for by_number in kinds.values()]
        for path, kinds in found.items()
    }


def _in_order(
    copies: Sequence[str], kinds: Sequence[Sequence[Sequence[str]]], specs: Mapping[str, TensorSpec]
) -> list[Pair]:
    """Pair variables of optimizers with their copies in all orders that go; keep what agrees."""
    if sum(map(len, kinds)) > MAX_PARTS:
        return []
    wanted = [specs[name] for name in copies]
    tried = 0

    def orders(at: int, used: tuple[int, ...]) -> Iterator[list[Pair]]:
        nonlocal tried
        tried += 1
        if tried > MAX_TRIED:
            return
        if at == len(copies) and all(n == len(kind) for n, kind in zip(used, kinds, strict=True)):
            yield []
        for number, kind in enumerate(kinds):
            if used[number] == len(kind):
                continue
            names = kind[used[number]]
            end = at + len(names)
            if [specs[name] for name in names] == wanted[at:end]:
                here = [*zip(copies[at:end], names, strict=True)]
                taken = (*used[:number], used[number] + 1, *used[number + 1 :])
                yield from (here + others for others in orders(end, taken))

    found = [*orders(0, (0,) * len(kinds))]
    if not found or tried > MAX_TRIED:
        return []
    agreed = set.intersection(*map(set, found))
    return [pair for pair in found[0] if pair in agreed]


# --- keeping them in step ----------------------------------------------------------------------


def kept_in_step(
    before: Catalog, after: Catalog, pairs: Iterable[Pair]
) -> tuple[Catalog, tuple[str, ...]]:
    """Return a catalog in which what is stored twice has changed twice, and notes that say so.

    Where edits changed one of a pair, the other one gets the same values. Both may have been
    changed alike, as by one statement with a glob; of random numbers, the second one then gets
    those of the first.

    Args:
        before: The tensors as they are stored.
        after: What edits made of them.
        pairs: Names in ``before``; see :func:`twins`.

    Raises:
        EditError: Both were changed in different ways, or one alone was dropped, renamed, or given
            another dtype or shape.
    """
    changed: dict[str, Tensor] = {}
    told: list[str] = []
    for names in _joined(pairs):
        step = _Step(before, after, names)
        if not step.changed:
            continue
        made = step.followers()
        changed |= made
        if made:
            others, first = " and ".join(map(repr, made)), step.changed[0]
            does, goes = ("holds", "changes") if len(made) == 1 else ("hold", "change")
            told.append(f"{others} {does} what {first!r} does, and {goes} with it")
    if not changed:
        return after, ()
    notes = [*islice(told, SHOWN)]
    if len(told) > SHOWN:
        notes.append(f"so do the copies of {len(told) - SHOWN} more tensors that are stored twice")
    return after.with_tensors(changed), tuple(notes)


def _joined(pairs: Iterable[Pair]) -> list[tuple[str, ...]]:
    """Return the names that are in one another's pairs together, each in the order of the pairs."""
    group: dict[str, list[str]] = {}
    for pair in pairs:
        first, second = (group.setdefault(name, [name]) for name in pair)
        if first is not second:
            first += second
            group.update(dict.fromkeys(second, first))
    return [tuple(names) for names in {id(names): names for names in group.values()}.values()]


@dataclass
class _Step:
    """What edits made of tensors that are equal, and what is to be made of the others of them."""

    before: Catalog
    after: Catalog
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        here = [name for name in self.names if name in self.after]
        if here and len(here) < len(self.names):
            gone = next(name for name in self.names if name not in self.after)
            msg = (
                f"{here[0]!r} and {gone!r} are the same tensor, which Keras stores twice: "
                f"drop or rename {here[0]!r} as well"
            )
            raise EditError(msg, tensor=gone)
        self.old = {name: self.before[name] for name in here}
        self.new = {name: self.after[name] for name in here}
        self.changed = [name for name in here if self.new[name] != self.old[name]]

    def followers(self) -> dict[str, Tensor]:
        """Return what becomes of the tensors that edits left as they were, or drew others for."""
        first, *more = self.changed
        spec = self.new[first].spec
        made = {}
        for name in self.names:
            if name == first:
                continue
            if name not in more:
                if spec != self.old[first].spec:
                    self._refuse_alone(first, name)
                made[name] = self._same(first, name)
            elif self._form(first) != self._form(name):
                if self._form(first, drawn=True) != self._form(name, drawn=True):
                    msg = (
                        f"{first!r} and {name!r} are the same tensor, which Keras stores twice, "
                        "and were changed in different ways; change one, and the other follows"
                    )
                    raise EditError(msg, tensor=name)
                made[name] = self._same(first, name)
        return made

    def _refuse_alone(self, first: str, name: str) -> None:
        msg = (
            f"{first!r} would be {self.new[first].spec}, and {name!r} stays "
            f"{self.old[name].spec}; they are the same tensor, which Keras stores twice: "
            f"change {name!r} as well"
        )
        raise EditError(msg, tensor=first)

    def _same(self, first: str, name: str) -> Tensor:
        """Return the tensor that derives from one what edits derive from another."""
        return _swapped(self.new[first], [self.old[first]], self.old[name], {})

    def _form(self, name: str, *, drawn: bool = False) -> Tensor:
        """Return a tensor as it would be if it derived from the first one, and drew as it does."""
        first = self.old[self.names[0]]
        form = _swapped(self.new[name], [*self.old.values()], first, {})
        return _undrawn(form, {}) if drawn else form


def _swapped(tensor: Tensor, old: Sequence[Tensor], new: Tensor, made: dict[int, Tensor]) -> Tensor:
    """Return a tensor that derives from another one where it derives from some."""
    found = made.get(id(tensor))
    if found is not None:
        return found
    source = tensor.source
    if not isinstance(source, Derived):
        result = new if tensor in old else tensor
    elif any(tensor is one for one in old):
        result = new
    else:
        parents = tuple(_swapped(parent, old, new, made) for parent in source.parents)
        entry = new.entry if any(tensor.entry == one.entry for one in old) else tensor.entry
        result = Tensor(
            tensor.spec, Derived(source.kernel, parents, source.region), tensor.parts, entry
        )
    made[id(tensor)] = result
    return result


def _undrawn(tensor: Tensor, made: dict[int, Tensor]) -> Tensor:
    """Return a tensor that draws its random numbers under no name."""
    found = made.get(id(tensor))
    if found is not None:
        return found
    result, source = tensor, tensor.source
    if isinstance(source, Derived):
        kernel: Kernel = source.kernel
        kernel = replace(kernel, stream=0) if isinstance(kernel, Random) else kernel
        parents = tuple(_undrawn(parent, made) for parent in source.parents)
        derived = Derived(kernel, parents, source.region)
        result = Tensor(tensor.spec, derived, tensor.parts, tensor.entry)
    made[id(tensor)] = result
    return result
