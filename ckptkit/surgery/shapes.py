"""Edits of shapes: axes turned, chosen, made longer; tensors cut up and joined."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from ckptkit import views
from ckptkit.binding import Scope, derived, reshaped, unsqueezed
from ckptkit.deriving import Change, derive_each, tensor_of
from ckptkit.errors import EditError
from ckptkit.expressions import (
    Apply,
    Expr,
)
from ckptkit.globs import is_glob, is_indirect, named, quoted, select
from ckptkit.region import Region
from ckptkit.surgery.formula import Formula, X, extended, words
from ckptkit.views import axis_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptkit.catalog import Catalog


@dataclass(frozen=True)
class Transpose(Formula):
    """``transpose GLOB -> AXES``: put axes in another order; reverse them if none is given."""

    glob: str
    axes: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """Return the statement."""
        axes = "" if self.axes is None else f" -> {', '.join(map(str, self.axes))}"
        return f"transpose {quoted(self.glob)}{axes}"

    def formula(self) -> Expr:
        """Return ``transpose(x, axes)``."""
        options = () if self.axes is None else (("axes", tuple(self.axes)),)
        return Apply("transpose", (X,), options)


@dataclass(frozen=True)
class Take(Formula):
    """``take GLOB -> ROWS axis=N``: choose rows of an axis, in the order given."""

    glob: str
    indices: tuple[int, ...]
    axis: int = 0

    def __str__(self) -> str:
        """Return the statement."""
        rows = ", ".join(map(str, self.indices))
        return f"take {quoted(self.glob)} -> {rows}{words(axis=self.axis or None)}"

    def formula(self) -> Expr:
        """Return ``take(x, indices, axis)``."""
        options = (("indices", tuple(self.indices)), ("axis", self.axis))
        return Apply("take", (X,), options)


@dataclass(frozen=True)
class Pad(Formula):
    """``pad GLOB -> BEFORE, AFTER axis=N value=V``: add elements before and after an axis."""

    glob: str
    before: int
    after: int
    axis: int = 0
    value: float = 0

    def __str__(self) -> str:
        """Return the statement."""
        told = words(axis=self.axis or None, value=self.value or None)
        return f"pad {quoted(self.glob)} -> {self.before}, {self.after}{told}"

    def formula(self) -> Expr:
        """Return ``pad(x, [before, after], axis, value)``."""
        widths = (self.before, self.after)
        options = (("widths", widths), ("axis", self.axis), ("value", self.value))
        return Apply("pad", (X,), options)


@dataclass(frozen=True)
class Resize(Formula):
    """``resize GLOB -> SIZE axis=N fill=F``: cut an axis, or fill it up.

    Attributes:
        size: Its new length.
        axis: The axis; the first one of an embedding is its vocabulary.
        fill: ``zeros``, ``mean`` of the axis, ``normal`` with its mean and standard deviation, or
            the number of a row to repeat.
        seed: Of the random numbers.
    """

    glob: str
    size: int
    axis: int = 0
    fill: str | int = "zeros"
    seed: int = 0

    def __str__(self) -> str:
        """Return the statement."""
        fill = None if self.fill == "zeros" else self.fill
        told = words(axis=self.axis or None, fill=fill, seed=self.seed or None)
        return f"resize {quoted(self.glob)} -> {self.size}{told}"

    def formula(self) -> Expr:
        """Return ``resize(x, size, axis, fill)``."""
        options = (
            ("size", self.size),
            ("axis", self.axis),
            ("fill", self.fill),
            ("seed", self.seed),
        )
        return Apply("resize", (X,), options)


@dataclass(frozen=True)
class Reshape:
    """``reshape GLOB -> SHAPE``: give another shape to the same elements; one may be -1."""

    glob: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Return the statement."""
        return f"reshape {quoted(self.glob)} -> {', '.join(map(str, self.shape))}"

    def apply(self, catalog: Catalog) -> Change:
        """Derive the tensors."""
        return derive_each(
            catalog, self.glob, lambda found, name, _: reshaped(found[name], self.shape)
        )


@dataclass(frozen=True)
class New:
    """``new NAME = EXPR``: add a tensor that is computed from others, with their dtype and shape.

    What is narrower than 32 bits is computed as float32: ``cast(..., bfloat16)`` keeps it narrow.
    """

    name: str
    expr: Expr
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Return the statement."""
        return self.text or f"new {quoted(self.name)} = {self.expr}"

    def apply(self, catalog: Catalog) -> Change:
        """Add the tensor at the end."""
        name = named(catalog, self.name)
        scope = Scope(name, None, partial(tensor_of, catalog))
        return extended(catalog, {name: scope.tensor(self.expr)})


@dataclass(frozen=True)
class Split:
    """``split NAME -> A, B, C axis=N sizes=1,2,3``: cut a tensor in parts, which take its place.

    Attributes:
        sizes: Length of every part along the axis; equal parts if not given.
    """

    name: str
    parts: tuple[str, ...]
    axis: int = 0
    sizes: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """Return the statement."""
        sizes = None if self.sizes is None else ",".join(map(str, self.sizes))
        told = words(axis=self.axis or None, sizes=sizes)
        return f"split {quoted(self.name)} -> {', '.join(map(quoted, self.parts))}{told}"

    def apply(self, catalog: Catalog) -> Change:
        """Add the parts, and leave the whole out."""
        tensor = tensor_of(catalog, self.name)
        axis = axis_of(self.axis, len(tensor.spec.shape))
        length, count = tensor.spec.shape[axis], len(self.parts)
        if len(set(self.parts)) < count:
            msg = "two parts have the same name"
            raise EditError(msg)
        sizes = self.sizes
        if sizes is None:
            if not count or length % count:
                msg = f"axis {axis} of {tensor.spec} is not cut in {count} equal parts: give sizes"
                raise EditError(msg)
            sizes = (length // count,) * count
        if len(sizes) != count or sum(sizes) != length or min(sizes, default=0) < 0:
            msg = (
                f"sizes {list(sizes)} of {count} parts do not make up axis {axis} of {tensor.spec}"
            )
            raise EditError(msg)
        edges = [sum(sizes[:at]) for at in range(count + 1)]
        added = {
            part: derived(views.Slice(Region((*[slice(None)] * axis, slice(low, high)))), tensor)
            for part, (low, high) in zip(self.parts, pairwise(edges), strict=True)
        }
        return extended(catalog, added, (self.name,))


@dataclass(frozen=True)
class Join:
    """``concat A, B -> NAME axis=N``: join tensors along an axis; the result takes their place."""

    parts: tuple[str, ...]
    name: str
    axis: int = 0

    def __str__(self) -> str:
        """Return the statement."""
        parts = ", ".join(map(quoted, self.parts))
        return f"concat {parts} -> {quoted(self.name)}{words(axis=self.axis or None)}"

    def apply(self, catalog: Catalog) -> Change:
        """Add the whole, and leave the parts out."""
        names = _chosen(catalog, self.parts)
        tensors = [tensor_of(catalog, name) for name in names]
        made = derived(views.Concat(self.axis), *tensors)
        return extended(catalog, {self.name: made}, [n for n in names if n in catalog])


@dataclass(frozen=True)
class Stack:
    """``stack GLOB -> NAME axis=N``: join tensors along a new axis; the result takes their place.

    They are joined in the order of the numbers in their names.
    """

    parts: tuple[str, ...]
    name: str
    axis: int = 0

    def __str__(self) -> str:
        """Return the statement."""
        parts = ", ".join(map(quoted, self.parts))
        return f"stack {parts} -> {quoted(self.name)}{words(axis=self.axis or None)}"

    def apply(self, catalog: Catalog) -> Change:
        """Add the whole, and leave the parts out."""
        names = _chosen(catalog, self.parts)
        tensors = [tensor_of(catalog, name) for name in names]
        axis = axis_of(self.axis, len(tensors[0].spec.shape) + 1)
        raised = [unsqueezed(tensor, axis) for tensor in tensors]
        made = derived(views.Concat(axis), *raised)
        return extended(catalog, {self.name: made}, [n for n in names if n in catalog])


@dataclass(frozen=True)
class Unstack:
    """``unstack NAME -> TEMPLATE axis=N``: a tensor for each index, ``{}`` its number."""

    name: str
    template: str
    axis: int = 0

    def __str__(self) -> str:
        """Return the statement."""
        told = words(axis=self.axis or None)
        return f"unstack {quoted(self.name)} -> {quoted(self.template)}{told}"

    def apply(self, catalog: Catalog) -> Change:
        """Add the parts, and leave the whole out."""
        if "{}" not in self.template:
            msg = f"{self.template!r} has no {{}} for the number of a part"
            raise EditError(msg)
        tensor = tensor_of(catalog, self.name)
        axis = axis_of(self.axis, len(tensor.spec.shape))
        added = {
            self.template.replace("{}", str(at)): derived(
                views.Slice(Region((*[slice(None)] * axis, at))), tensor
            )
            for at in range(tensor.spec.shape[axis])
        }
        return extended(catalog, added, (self.name,))


def _chosen(catalog: Catalog, parts: Sequence[str]) -> list[str]:
    """Return the tensors that names and globs stand for; those of a glob by number, then name."""
    names: list[str] = []
    for part in parts:
        sought = is_glob(part) or is_indirect(catalog, part)
        found = select(catalog, part) if sought else [part]
        names += sorted(found, key=_by_number) if is_glob(part) else found
    if len(set(names)) < len(names):
        msg = "a tensor is named twice"
        raise EditError(msg)
    return names


def _by_number(name: str) -> list[tuple[int, int, str]]:
    pieces = re.split(r"([0-9]{1,18})", name)
    return [(0, int(p), "") if p.isdecimal() and p.isascii() else (1, 0, p) for p in pieces]
