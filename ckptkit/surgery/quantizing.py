"""Numbers as int8 with scales beside them, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptkit import views
from ckptkit.binding import Scope, derived, filled
from ckptkit.deriving import Change, derive_each, tensor_of
from ckptkit.errors import EditError
from ckptkit.expressions import (
    LEVELS,
    Call,
    Expr,
    Number,
    Other,
    Reduce,
    dequantized,
    quantized,
)
from ckptkit.globs import quoted
from ckptkit.kernels import Expression
from ckptkit.lowering import KindError
from ckptkit.surgery.formula import X, extended, is_float, words
from ckptkit.views import axis_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.model import Tensor


@dataclass(frozen=True)
class Quantize:
    """``quantize GLOB -> int8 axis=N``: int8 and scales beside it, ``x = scale * q`` nearly.

    The largest magnitude becomes 127. The scale is a number; with an axis one for each of its
    indices, in the shape that broadcasts to the tensor.

    Attributes:
        axis: Of the channels that have a scale each.
        scale: The name of the scale; ``{0}`` is that of the tensor.
    """

    glob: str
    axis: int | None = None
    scale: str = "{0}_scale"

    def __str__(self) -> str:
        """Return the statement."""
        scale = None if self.scale == "{0}_scale" else quoted(self.scale)
        return f"quantize {quoted(self.glob)} -> int8{words(axis=self.axis, scale=scale)}"

    def apply(self, catalog: Catalog) -> Change:
        """Derive the integers, and add the scales."""
        scales: dict[str, Tensor] = {}

        def make(catalog: Catalog, name: str, groups: Sequence[str]) -> Tensor:
            tensor = catalog[name]
            if not is_float(tensor.spec.dtype):
                msg = f"{tensor.spec.dtype} is not quantized"
                raise KindError(msg)
            scale = self._scale(tensor)
            kernel = Expression(quantized(X, Other("scale")), "int8")
            spec = kernel.output([tensor.spec, scale.spec])
            beside = filled(self.scale, groups)
            if beside in scales:
                msg = f"two scales would be named {beside!r}; {{0}} is the name of the tensor"
                raise EditError(msg)
            scales[beside] = scale
            return tensor.derive(kernel, (tensor, scale), spec=spec)

        change = derive_each(catalog, self.glob, make)
        added = extended(change.catalog, scales)
        return Change(added.catalog, (*change.touched, *scales), change.notes)

    def _scale(self, tensor: Tensor) -> Tensor:
        rank = len(tensor.spec.shape)
        axes = None
        if self.axis is not None:
            kept = axis_of(self.axis, rank)
            axes = tuple(axis for axis in range(rank) if axis != kept)
        scope = Scope("", tensor, _never)
        largest = Reduce("max", Call("abs", (X,)), axes)
        level = Call("divide", (largest, Number(float(LEVELS))))
        scale: Expr = Call("where", (Call("equal", (largest, Number(0))), Number(1.0), level))
        made = scope.tensor(scale)
        if axes and kept == rank - 1:
            made = derived(views.Reshape((tensor.spec.shape[-1],)), made)
        return made


def _never(name: str) -> Tensor:
    msg = f"nothing is named {name!r} here"
    raise EditError(msg)


@dataclass(frozen=True)
class Dequantize:
    """``dequantize GLOB -> DTYPE``: numbers from int8 and the scales beside it, which go."""

    glob: str
    dtype: str = "float32"
    scale: str = "{0}_scale"

    def __str__(self) -> str:
        """Return the statement."""
        scale = None if self.scale == "{0}_scale" else quoted(self.scale)
        return f"dequantize {quoted(self.glob)} -> {self.dtype}{words(scale=scale)}"

    def apply(self, catalog: Catalog) -> Change:
        """Derive the numbers, and leave the scales out."""
        gone: list[str] = []

        def make(catalog: Catalog, name: str, groups: Sequence[str]) -> Tensor:
            tensor, scale = catalog[name], filled(self.scale, groups)
            if tensor.spec.dtype != "int8" or scale not in catalog:
                msg = f"{tensor.spec.dtype} with no scale {scale!r} beside it"
                raise KindError(msg)
            held = tensor_of(catalog, scale)
            kernel = Expression(dequantized(X, Other("scale"), self.dtype), self.dtype)
            spec = kernel.output([tensor.spec, held.spec])
            gone.append(scale)
            return tensor.derive(kernel, (tensor, held), spec=spec)

        change = derive_each(catalog, self.glob, make)
        dropped = extended(change.catalog, {}, tuple(dict.fromkeys(gone)))
        return Change(dropped.catalog, (*change.touched, *gone), change.notes)
