"""Layers folded into the ones before them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptkit.binding import Scope
from ckptkit.deriving import Change, tensor_of
from ckptkit.errors import EditError
from ckptkit.expressions import (
    Apply,
    Call,
    Expr,
    Number,
    Other,
)
from ckptkit.globs import quoted
from ckptkit.kernels import Expression
from ckptkit.surgery.formula import X, extended, words
from ckptkit.views import axis_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptkit.catalog import Catalog
    from ckptkit.model import Tensor


BATCH_NORM: Final = ("gamma", "beta", "moving_mean", "moving_variance")
"""The variables of a batch normalisation, as Keras names them."""

_SUFFIX: Final = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True)
class FoldBatchNorm:
    """``foldbn KERNEL -> PREFIX bias=NAME``: fold a batch normalisation into what comes before.

    The kernel is scaled by ``gamma / sqrt(variance + epsilon)`` and the bias moved to match, so
    that the layers together do what they did. The normalisation stays, and does nothing: gamma 1,
    beta 0, mean 0, variance 1 - epsilon. Without a bias its beta takes what a bias would.

    Attributes:
        kernel: The kernel of a convolution or dense layer.
        prefix: What the names of the normalisation's variables begin with.
        bias: The bias beside the kernel.
        epsilon: Of the normalisation; Keras has 0.001.
        axis: Of the output channels; a transposed convolution has -2.
        depthwise: The last two axes of the kernel together are the output channels.
        drop: Leave the normalisation out instead; this takes a bias.
    """

    kernel: str
    prefix: str
    bias: str | None = None
    epsilon: float = 1e-3
    axis: int = -1
    depthwise: bool = False
    drop: bool = False

    def __str__(self) -> str:
        """Return the statement."""
        told = words(
            bias=None if self.bias is None else quoted(self.bias),
            epsilon=None if self.epsilon == 1e-3 else self.epsilon,
            axis=None if self.axis == -1 else self.axis,
            depthwise="true" if self.depthwise else None,
            drop="true" if self.drop else None,
        )
        return f"foldbn {quoted(self.kernel)} -> {quoted(self.prefix)}{told}"

    def apply(self, catalog: Catalog) -> Change:
        """Derive kernel and bias, and make the normalisation do nothing."""
        if self.drop and self.bias is None:
            msg = "without a bias there is nothing to take what the normalisation adds"
            raise EditError(msg)
        names = self._variables(catalog)
        held = {role: tensor_of(catalog, name) for role, name in names.items()}
        kernel = tensor_of(catalog, self.kernel)
        changed = {self.kernel: self._kernel(kernel, held)}
        if self.bias is not None:
            changed[self.bias] = self._shift(tensor_of(catalog, self.bias), X, held)
        if self.drop:
            return extended(catalog, {}, tuple(names.values()), changed)
        rest = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1 - self.epsilon}
        for role, name in names.items():
            tensor = held[role]
            value = Expression(Number(rest[role]), tensor.spec.dtype)
            changed[name] = tensor.derive(value, (tensor,))
        if self.bias is None and "beta" not in names:
            msg = f"neither a bias nor {self.prefix}/beta can take what the normalisation adds"
            raise EditError(msg)
        if self.bias is None:
            changed[names["beta"]] = self._shift(held["beta"], Number(0.0), held)
        return extended(catalog, {}, (), changed)

    def _variables(self, catalog: Catalog) -> dict[str, str]:
        """Return the names of the variables of the normalisation; scale and shift may be absent."""
        found: dict[str, str] = {}
        for role in BATCH_NORM:
            plain = f"{self.prefix.rstrip('/')}/{role}"
            for name in (plain, plain + _SUFFIX):
                if name in catalog:
                    found[role] = name
        for role in BATCH_NORM[2:]:
            if role not in found:
                msg = f"no tensor {self.prefix.rstrip('/')}/{role}"
                raise EditError(msg)
        return found

    def _factor(self, held: Mapping[str, Tensor]) -> Expr:
        added = Call("add", (Other("moving_variance"), Number(float(self.epsilon))))
        scale: Expr = Other("gamma") if "gamma" in held else Number(1.0)
        return Call("divide", (scale, Call("sqrt", (added,))))

    def _kernel(self, kernel: Tensor, held: Mapping[str, Tensor]) -> Tensor:
        rank = len(kernel.spec.shape)
        axes = (rank - 2, rank - 1) if self.depthwise else (axis_of(self.axis, rank),)
        shape = tuple(kernel.spec.shape[axis] for axis in axes)
        channels = held["moving_variance"].spec
        count = math.prod(shape)
        if channels.shape != (count,):
            msg = f"{kernel.spec} has {count} output channels, the normalisation {channels}"
            raise EditError(msg)
        around = (*shape, *(1 for _ in range(rank - 1 - axes[-1])))
        scope = Scope(self.kernel, kernel, held.__getitem__)
        factor: Expr = self._factor(held)
        if around != (count,):
            factor = Apply("reshape", (factor,), (("shape", around),))
        expr = Call("multiply", (X, factor))
        made = Expression(expr, kernel.spec.dtype)
        parents = scope.parents(expr)
        made.output([kernel.spec, *(parent.spec for parent in parents)])
        return kernel.derive(made, (kernel, *parents))

    def _shift(self, tensor: Tensor, start: Expr, held: Mapping[str, Tensor]) -> Tensor:
        """Return ``(start - mean) * factor + beta`` in the place of a tensor."""
        moved = Call("subtract", (start, Other("moving_mean")))
        expr: Expr = Call("multiply", (moved, self._factor(held)))
        if "beta" in held:
            expr = Call("add", (expr, Other("beta")))
        kernel = Expression(expr, tensor.spec.dtype)
        parents = Scope("", tensor, held.__getitem__).parents(expr)
        kernel.output([tensor.spec, *(parent.spec for parent in parents)])
        return tensor.derive(kernel, (tensor, *parents))
