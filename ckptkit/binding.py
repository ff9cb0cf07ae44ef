"""From an expression to the tensors that it takes, each derived from those that it names.

What is elementwise in an expression stays together as one kernel. Reductions, draws, and functions
that see more than one element become tensors of their own, which it takes as inputs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from ckptkit import _native
from ckptkit.draws import Indices, Place, Random
from ckptkit.errors import EditError
from ckptkit.expressions import (
    Apply,
    Call,
    Convert,
    Current,
    Draw,
    Expr,
    Index,
    Number,
    Other,
    Reduce,
    Size,
    inputs,
    leaves,
    rebuilt,
    walk,
)
from ckptkit.kernels import Constant, Expression, broadcast_shape
from ckptkit.lowering import natural_dtype, working_dtype
from ckptkit.model import DTYPES, Derived, Stored, Tensor, TensorSpec
from ckptkit.products import MatMul, Sparsify, Stochastic
from ckptkit.region import Box, Region
from ckptkit.statistics import Moments, OrderStatistic
from ckptkit.views import (
    Concat,
    Expand,
    Pad,
    Reshape,
    Slice,
    Take,
    Transpose,
    axis_of,
    shaped,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ckptkit.kernels import Kernel

_GROUP: Final = re.compile(r"\{([0-9]{1,2})\}")
_ORDERED: Final = frozenset({"median", "quantile"})
_WIDE: Final = 64
"""Bits from which a tensor gets random numbers of float64."""


def filled(template: str, groups: Sequence[str]) -> str:
    """Return a name in which ``{1}`` is what the first group of the target stands for.

    Raises:
        EditError: The target has no such group.
    """

    def text(found: re.Match[str]) -> str:
        number = int(found[1])
        if number >= len(groups):
            have = len(groups) - 1
            msg = f"{found[0]} in {template!r}: the target has {have} groups; write (*) for one"
            raise EditError(msg)
        return groups[number]

    return _GROUP.sub(text, template)


def is_template(name: str) -> bool:
    """Tell whether a name has places for groups of the target."""
    return _GROUP.search(name) is not None


def derived(kernel: Kernel, *parents: Tensor) -> Tensor:
    """Return what a kernel makes of some tensors.

    Raises:
        EditError: They do not go with it.
    """
    spec = kernel.output([parent.spec for parent in parents])
    return Tensor(spec, Derived(kernel, parents))


@dataclass(slots=True)
class Scope:
    """What an expression means for one target.

    Attributes:
        name: The name of the target.
        target: The tensor that it is now; None if there is none yet.
        find: Returns another tensor by name.
        region: What of it is computed.
        groups: What the groups of the glob stand for, the whole name first.
    """

    name: str
    target: Tensor | None
    find: Callable[[str], Tensor]
    region: Region | None = None
    groups: Sequence[str] = ()
    _known: dict[Expr, Tensor] = field(default_factory=dict)

    def parents(self, expr: Expr) -> tuple[Tensor, ...]:
        """Return the tensors that an expression takes besides ``x``, one for each of its inputs."""
        return tuple(map(self.tensor, inputs(expr)))

    def sized(self, expr: Expr) -> Expr:
        """Return an expression with numbers for what it asks of the shape of its target."""
        if not any(isinstance(part, Size) for part in walk(expr)):
            return expr
        shape = self._current().spec.shape
        return rebuilt(expr, lambda part: _size(part, shape) if isinstance(part, Size) else part)

    def tensor(self, expr: Expr) -> Tensor:
        """Return the tensor that holds the values of an expression by itself.

        Raises:
            EditError: Something in it does not fit.
        """
        found = self._known.get(expr)
        if found is None:
            found = self._known[expr] = self._make(expr)
        return found

    def _make(self, expr: Expr) -> Tensor:
        made: Mapping[type, Callable[[Any], Tensor]] = {
            Current: lambda _: self._region_of(self._current()),
            Other: lambda other: self.find(self._named(other.name)),
            Reduce: self._reduced,
            Index: self._index,
            Draw: lambda draw: self._drawn(draw, self._place(draw.shape)),
            Apply: self._applied,
        }
        make = made.get(type(expr))
        return self._elementwise(self.sized(expr)) if make is None else make(expr)

    def _named(self, name: str) -> str:
        return filled(name, self.groups) if is_template(name) else name

    def _index(self, index: Index) -> Tensor:
        place = self._place()
        return derived(Indices(axis_of(index.axis, len(place.shape)), place))

    def _current(self) -> Tensor:
        if self.target is None:
            msg = f"there is no tensor {self.name!r} yet that x could stand for"
            raise EditError(msg)
        return self.target

    def _region_of(self, tensor: Tensor) -> Tensor:
        return tensor if self.region is None else derived(Slice(self.region), tensor)

    def _place(self, shape: tuple[int, ...] | None = None) -> Place:
        if shape is not None:
            return Place(shape, Region().resolve(shape))
        shape = self._current().spec.shape
        return Place(shape, (self.region or Region()).resolve(shape))

    def _elementwise(self, expr: Expr) -> Tensor:
        parents = self.parents(expr)
        uses_x = any(isinstance(part, Current) for part in leaves(expr))
        first = self.tensor(Current()) if uses_x else parents[0] if parents else _nothing()
        specs = [first.spec, *(parent.spec for parent in parents)]
        shapes = [spec.shape for spec in (specs if uses_x else specs[1:])]
        shape = broadcast_shape(shapes)
        if shape is None:
            msg = f"{expr}: the shapes {', '.join(str(list(s)) for s in shapes)} do not go together"
            raise EditError(msg)
        dtype = natural_dtype(expr, tuple(spec.dtype for spec in specs))
        if not parents and not uses_x and dtype == "float64":
            dtype = "float32"
        return derived(Expression(expr, dtype, shape), first, *parents)

    def _reduced(self, expr: Reduce) -> Tensor:
        if expr.op not in _ORDERED:
            return derived(Moments(expr.op, expr.axes), self.tensor(expr.argument))
        if expr.axes is not None:
            msg = f"{expr.op}() takes the whole tensor, not an axis"
            raise EditError(msg)
        argument, parent = expr.argument, self.tensor(expr.argument)
        magnitude = False
        if isinstance(argument, Call) and argument.op == "abs":
            inner = self.tensor(argument.args[0])
            if DTYPES[working_dtype(inner.spec.dtype)].kind == "float":
                parent, magnitude = inner, True
        dtype = working_dtype(parent.spec.dtype)
        fraction = expr.fraction or 0.0
        return derived(OrderStatistic(dtype, expr.op, fraction, magnitude=magnitude), parent)

    def _drawn(self, draw: Draw, place: Place, kind: str | None = None) -> Tensor:
        bits = DTYPES[self.target.spec.dtype].bits if self.target is not None else 0
        dtype = "float64" if bits >= _WIDE and draw.shape is None else "float32"
        stream = f"{draw.number} {_drawn_before(self.target)} {self.name}"
        key = _native.fingerprint64(str(draw.seed).encode())
        made = Random(
            kind or draw.kind,
            "uint32" if kind == "bits" else dtype,
            key,
            _native.fingerprint64(stream.encode("utf-8", "surrogateescape")),
            place,
        )
        return derived(made)

    def _applied(self, expr: Apply) -> Tensor:
        return _FUNCTIONS[expr.function](self, expr, [self.tensor(part) for part in expr.args])

    def rounded(self, expr: Apply, tensor: Tensor) -> Tensor:
        """Return a tensor converted by chance."""
        draw = Draw("bits", expr.option("seed") or 0, expr.option("number") or 0)
        shape = tensor.spec.shape
        place = self._place() if self._covers(shape) else self._place(shape)
        bits = self._drawn(draw, place, "bits")
        return derived(Stochastic(expr.option("dtype")), tensor, bits)

    def _covers(self, shape: tuple[int, ...]) -> bool:
        return self.target is not None and self._place().region.shape == shape

    def resized(self, expr: Apply, tensor: Tensor) -> Tensor:
        """Return a tensor with an axis cut, or filled up."""
        axis, size = axis_of(_axis(expr), len(tensor.spec.shape)), expr.option("size")
        shape = tensor.spec.shape
        if size <= shape[axis]:
            items = [slice(None)] * axis + [slice(0, size)]
            return derived(Slice(Region(tuple(items))), tensor)
        more = (*shape[:axis], size - shape[axis], *shape[axis + 1 :])
        given = expr.option("fill")
        # Row 0 is a row.
        fill = "zeros" if given is None else given
        return derived(Concat(axis), tensor, self._filling(fill, expr, tensor, axis, more))

    def _filling(
        self, fill: str | int, expr: Apply, tensor: Tensor, axis: int, shape: tuple[int, ...]
    ) -> Tensor:
        """Return what a longer axis is filled up with."""
        dtype = tensor.spec.dtype
        if fill == "zeros":
            count = shape[axis]
            empty = derived(Slice(Region((*[slice(None)] * axis, slice(0, 0)))), tensor)
            return derived(Pad(0, count, axis, 0), empty)
        if isinstance(fill, int):
            row = axis_of(fill, tensor.spec.shape[axis])
            items = [slice(None)] * axis + [slice(row, row + 1)]
            return derived(Expand(shape), derived(Slice(Region(tuple(items))), tensor))
        mean = derived(Moments("mean", (axis,)), tensor)
        if fill == "mean":
            filling: Expr = Convert(Current(), dtype)
            return derived(Expand(shape), derived(Expression(filling, dtype), mean))
        if fill != "normal":
            msg = f"an axis is filled up with zeros, mean, normal or a row's number, not {fill!r}"
            raise EditError(msg)
        draw = Draw("normal", expr.option("seed") or 0, shape=shape)
        noise = self._drawn(draw, self._place(shape))
        spread = derived(Moments("std", (axis,)), tensor)
        normal = Call("add", (Other("mean"), Call("multiply", (Other("std"), Current()))))
        kernel = Expression(Convert(normal, dtype), dtype)
        return derived(kernel, noise, mean, spread)


def _size(size: Size, shape: tuple[int, ...]) -> Number:
    if size.axis is not None:
        return Number(shape[axis_of(size.axis, len(shape))])
    return Number(math.prod(shape))


def _axis(expr: Apply) -> int:
    return int(expr.option("axis") or 0)


def _nothing() -> Tensor:
    """Return an input that an expression of numbers alone does not look at."""
    spec = TensorSpec("float32", ())
    return Tensor(spec, Derived(Constant(spec, bytes(4))))


def _alike(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of the dtype of the first."""
    dtype = tensors[0].spec.dtype
    return [
        tensor
        if tensor.spec.dtype == dtype
        else derived(Expression(Convert(Current(), dtype), dtype), tensor)
        for tensor in tensors
    ]


def unsqueezed(tensor: Tensor, axis: int) -> Tensor:
    """Return a tensor with one more axis, of size 1."""
    shape = tensor.spec.shape
    return reshaped(tensor, (*shape[:axis], 1, *shape[axis:]))


def _drawn_before(tensor: Tensor | None) -> int:
    """Return how many edits of a tensor drew random numbers, so that the next draws others."""
    count, current = 0, tensor
    while current is not None and isinstance(current.source, Derived):
        parents = current.source.parents
        count += any(_draws(parent) for parent in parents[1:])
        current = parents[0] if parents else None
    return count


def _draws(tensor: Tensor) -> bool:
    source = tensor.source
    if not isinstance(source, Derived):
        return False
    return isinstance(source.kernel, Random) or any(map(_draws, source.parents))


def reshaped(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor with another shape; if its bytes lie in one piece, they stay as they are.

    Raises:
        EditError: It has another number of elements.
    """
    kernel = Reshape(shaped(shape, tensor.spec.count))
    spec = kernel.output([tensor.spec])
    source = tensor.source
    if isinstance(source, Stored) and len(source.pieces) == 1:
        piece = replace(source.pieces[0], box=Box.whole(spec.shape))
        return replace(tensor, spec=spec, source=replace(source, pieces=(piece,)))
    return tensor.derive(kernel, (tensor,), spec=spec)


def _transposed(expr: Apply, tensor: Tensor) -> Tensor:
    rank = len(tensor.spec.shape)
    axes = expr.option("axes")
    order = tuple(reversed(range(rank))) if axes is None else axes
    return derived(Transpose(tuple(axis_of(axis, rank) for axis in order)), tensor)


def _stacked(expr: Apply, tensors: Sequence[Tensor]) -> Tensor:
    axis = axis_of(_axis(expr), len(tensors[0].spec.shape) + 1)
    return derived(Concat(axis), *(unsqueezed(tensor, axis) for tensor in _alike(tensors)))


def _padded(expr: Apply, tensor: Tensor) -> Tensor:
    before, after = expr.option("widths")
    return derived(Pad(before, after, _axis(expr), expr.option("value") or 0), tensor)


def _sparse(expr: Apply, tensor: Tensor) -> Tensor:
    axis = -1 if expr.option("axis") is None else expr.option("axis")
    return derived(Sparsify(expr.option("keep"), expr.option("group"), axis), tensor)


_FUNCTIONS: Final[Mapping[str, Callable[[Scope, Apply, list[Tensor]], Tensor]]] = {
    "matmul": lambda _, __, given: derived(MatMul(), *given),
    "slice": lambda _, expr, given: derived(Slice(expr.region or Region()), given[0]),
    "transpose": lambda _, expr, given: _transposed(expr, given[0]),
    "reshape": lambda _, expr, given: reshaped(given[0], expr.option("shape")),
    "expand": lambda _, expr, given: derived(Expand(expr.option("shape")), given[0]),
    "concat": lambda _, expr, given: derived(Concat(_axis(expr)), *_alike(given)),
    "stack": lambda _, expr, given: _stacked(expr, given),
    "take": lambda _, expr, given: derived(Take(expr.option("indices"), _axis(expr)), given[0]),
    "pad": lambda _, expr, given: _padded(expr, given[0]),
    "resize": lambda scope, expr, given: scope.resized(expr, given[0]),
    "sparsify": lambda _, expr, given: _sparse(expr, given[0]),
    "stochastic": lambda scope, expr, given: scope.rounded(expr, given[0]),
}
"""What the functions of ``expressions.FUNCTIONS`` make of tensors."""
