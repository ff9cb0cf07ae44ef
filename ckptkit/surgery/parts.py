"""Tensors cut in other slices, or joined: the values stay, and where they are stored changes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ckptkit.deriving import SHOWN_NAMES, Change
from ckptkit.errors import EditError
from ckptkit.globs import is_glob, places, quoted
from ckptkit.model import DTYPES
from ckptkit.partition import JOINED, MAX_SLICES, equal_parts
from ckptkit.region import Box
from ckptkit.sizes import counted, listed
from ckptkit.surgery.formula import words
from ckptkit.views import regrouped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.model import Tensor, TensorSpec


@dataclass(frozen=True)
class Repartition:
    """``repartition GLOB -> PARTS axis=N``, or ``-> whole``: store tensors in other slices.

    A wildcard passes over what cannot be cut, and does not cut what TensorFlow could not join.

    Attributes:
        glob: The tensors.
        parts: How many slices; None for a tensor in one piece.
        axis: Which axis is cut.
    """

    glob: str
    parts: int | None = None
    axis: int = 0

    def __post_init__(self) -> None:
        """Refuse a number of parts that no tensor has.

        Raises:
            EditError: It is one.
        """
        if self.parts is not None and not 1 <= self.parts <= MAX_SLICES:
            msg = f"a tensor is in 1 to {MAX_SLICES} parts, not in {self.parts}"
            raise EditError(msg)

    def __str__(self) -> str:
        """Return the statement."""
        if self.parts is None:
            return f"repartition {quoted(self.glob)} -> whole"
        return f"repartition {quoted(self.glob)} -> {self.parts}{words(axis=self.axis or None)}"

    def apply(self, catalog: Catalog) -> Change:
        """Give the tensors their slices.

        Raises:
            EditError: Nothing is selected, or a tensor cannot be cut.
        """
        return _Cutting(self, catalog).apply()

    def boxes(self, spec: TensorSpec) -> tuple[Box, ...]:
        """Return the slices that a tensor shall be in.

        Raises:
            EditError: It cannot be.
        """
        if spec.kind in {"variant", "opaque"}:
            msg = "only numbers and strings are stored in other slices"
            raise EditError(msg)
        if self.parts is None:
            return (Box.whole(spec.shape),)
        boxes = equal_parts(spec, self.parts, self.axis)
        if len(boxes) > 1 and spec.dtype not in JOINED and is_glob(self.glob):
            msg = f"TensorFlow does not join slices of {spec.dtype}; name the tensor"
            raise EditError(msg)
        return boxes


class _Cutting:
    """Tensors on their way to other slices."""

    def __init__(self, edit: Repartition, catalog: Catalog) -> None:
        self._edit = edit
        self._catalog = catalog
        self._made: dict[str, Tensor] = {}
        self._rows: dict[int, int] = {}
        self._passed: dict[str, str] = {}
        self._same: list[str] = []
        self._refusal: EditError | None = None

    def apply(self) -> Change:
        """Give every tensor that is selected its slices; one that is named has to take them."""
        wildcard, catalog = is_glob(self._edit.glob), self._catalog
        for at in places(catalog, self._edit.glob):
            try:
                self._cut(at)
            except EditError as error:
                name = catalog.names[at]
                text = f"{name!r} ({catalog.spec_at(at)}): {error.message}"
                refusal = EditError(text, tensor=name)
                if not wildcard:
                    raise refusal from error
                self._refusal = self._refusal or refusal
                self._passed[name] = error.message
        touched = dict.fromkeys([*self._made, *(catalog.names[at] for at in self._rows)])
        if self._refusal is not None and not touched and not self._same:
            raise self._refusal
        if self._rows:
            rows = [self._rows.get(at, row) for at, row in enumerate(catalog.rows)]
            catalog = catalog.replace(rows=rows)
        if self._made:
            catalog = catalog.with_tensors(self._made)
        return Change(catalog, tuple(touched), tuple(self._notes()))

    def _cut(self, at: int) -> None:
        catalog = self._catalog
        name, slices = catalog.names[at], catalog.columns.parts.get(catalog.rows[at], ())
        changed = name in catalog.single
        if self._edit.parts is None and not slices and not changed:
            self._same.append(name)
            return
        boxes = self._edit.boxes(catalog.spec_at(at))
        if len(boxes) == 1 == len(slices):
            # The record of its only slice says all that is to be said.
            self._rows[at] = slices[0][1]
        tensor = catalog.tensor_at(at)
        if {*tensor.boxes} != {*boxes}:
            self._made[name] = regrouped(tensor, boxes)
        elif at not in self._rows:
            self._same.append(name)

    def _notes(self) -> Iterator[str]:
        if self._passed:
            shown = [f"{n} ({why})" for n, why in islice(self._passed.items(), SHOWN_NAMES)]
            yield f"passed over {_tensors(shown, len(self._passed))}"
        if self._same:
            same = _tensors(self._same[:SHOWN_NAMES], len(self._same))
            yield f"stored like that already: {same}"
        slow = [
            name
            for name, tensor in self._made.items()
            if len(tensor.boxes) > 1 and tensor.spec.dtype not in JOINED
        ]
        if slow:
            names = _tensors(slow[:SHOWN_NAMES], len(slow))
            yield f"TensorFlow restores this slice by slice alone: {names}"


@dataclass(frozen=True)
class Tidy:
    """Store tensors so that all readers take them for the same values, which stay.

    Attributes:
        bits: Tensors of narrow dtypes, whose bits that no value has are cleared.
        slices: Tensors in slices that TensorFlow does not join, which get into one piece.
    """

    bits: tuple[str, ...]
    slices: tuple[str, ...]

    @classmethod
    def of(cls, catalog: Catalog, names: Iterable[str]) -> Tidy:
        """Return what there is to be done to some tensors."""
        specs = {name: catalog.spec(name) for name in dict.fromkeys(names) if name in catalog}
        narrow = {name for name, dtype in DTYPES.items() if 0 < dtype.bits < 8}
        return cls(
            tuple(name for name, spec in specs.items() if spec.dtype in narrow),
            tuple(
                name
                for name, spec in specs.items()
                if spec.dtype not in JOINED and len(catalog[name].boxes) > 1
            ),
        )

    def __str__(self) -> str:
        """Return what is done; no statement says it."""
        what = {"without odd bits": self.bits, "in one piece": self.slices}
        told = [f"{how}: {_tensors(n[:SHOWN_NAMES], len(n))}" for how, n in what.items() if n]
        return f"made clean ({'; '.join(told)})"

    def apply(self, catalog: Catalog) -> Change:
        """Have the tensors read and written anew.

        Raises:
            EditError: One of them is of a dtype whose slices nobody joins.
        """
        made = {name: regrouped(catalog[name], catalog[name].boxes) for name in self.bits}
        for name in self.slices:
            tensor = made.get(name) or catalog[name]
            made[name] = regrouped(tensor, Repartition(name).boxes(tensor.spec))
        return Change(catalog.with_tensors(made), tuple(made))


def _tensors(shown: Sequence[str], count: int) -> str:
    return f"{counted(count, 'tensor')}: {listed(shown, count)}"
