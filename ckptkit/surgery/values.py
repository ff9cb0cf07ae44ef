"""Edits of values, where they are: clipped, repaired, moved, pruned, rounded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ckptkit.binding import Scope, derived
from ckptkit.deriving import Change, derive_each, tensor_of
from ckptkit.errors import EditError
from ckptkit.expressions import (
    Apply,
    Call,
    Draw,
    Expr,
    Number,
    Other,
    repaired,
)
from ckptkit.globs import quoted, select
from ckptkit.kernels import Expression
from ckptkit.lowering import KindError
from ckptkit.model import DTYPES, Derived, Tensor
from ckptkit.statistics import OrderStatistic
from ckptkit.surgery.formula import Formula, X, is_float, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptkit.catalog import Catalog


@dataclass(frozen=True)
class Clip(Formula):
    """``clip GLOB -> LOW, HIGH``: keep values between two numbers."""

    glob: str
    low: float
    high: float

    def __str__(self) -> str:
        """Return the statement."""
        return f"clip {quoted(self.glob)} -> {self.low}, {self.high}"

    def formula(self) -> Expr:
        """Return ``clip(x, low, high)``."""
        return Call("clip", (X, Number(self.low), Number(self.high)))


@dataclass(frozen=True)
class Repair(Formula):
    """``repair GLOB -> VALUE``: put a number in the place of NaN and infinities."""

    glob: str
    value: float = 0

    def __str__(self) -> str:
        """Return the statement."""
        return f"repair {quoted(self.glob)} -> {self.value}"

    def formula(self) -> Expr:
        """Return ``where(isfinite(x), x, value)``."""
        return repaired(X, self.value)


@dataclass(frozen=True)
class Noise(Formula):
    """``noise GLOB -> STD``: add normally distributed random numbers."""

    glob: str
    std: float
    seed: int = 0

    def __str__(self) -> str:
        """Return the statement."""
        return f"noise {quoted(self.glob)} -> {self.std}{words(seed=self.seed or None)}"

    def formula(self) -> Expr:
        """Return ``x + std * normal()``."""
        scaled = Call("multiply", (Number(float(self.std)), Draw("normal", self.seed)))
        return Call("add", (X, scaled))


@dataclass(frozen=True)
class LowRank(Formula):
    """``lora NAME -> A, B scale=S``: add a scaled product of two matrices, ``x + S * (A @ B)``.

    ``{1}`` in the names of the matrices is what a group of the glob stands for.
    """

    glob: str
    first: str
    second: str
    scale: float = 1.0

    def __str__(self) -> str:
        """Return the statement."""
        names = f"{quoted(self.first)}, {quoted(self.second)}"
        scale = self.scale if self.scale != 1 else None
        return f"lora {quoted(self.glob)} -> {names}{words(scale=scale)}"

    def formula(self) -> Expr:
        """Return the sum."""
        product: Expr = Apply("matmul", (Other(self.first), Other(self.second)))
        if self.scale != 1:
            product = Call("multiply", (Number(float(self.scale)), product))
        return Call("add", (X, product))


@dataclass(frozen=True)
class Prune:
    """``prune GLOB -> 50%``: set the smallest magnitudes to 0, exactly that part of them.

    Of values as large as the smallest one that stays, none is set to 0. NaN counts as the largest.

    Attributes:
        fraction: Which part of the elements.
        scope: ``global`` for all tensors together, ``tensor`` for each by itself.
    """

    glob: str
    fraction: float
    scope: str = "global"

    def __post_init__(self) -> None:
        """Refuse what is no part.

        Raises:
            EditError: The fraction is not between 0 and 1, or there is no such scope.
        """
        if not 0 <= self.fraction <= 1:
            msg = f"a part between 0 and 1 (0% and 100%) can be pruned, not {self.fraction}"
            raise EditError(msg)
        if self.scope not in {"global", "tensor"}:
            msg = f"the scope is global or tensor, not {self.scope!r}"
            raise EditError(msg)

    def __str__(self) -> str:
        """Return the statement."""
        scope = None if self.scope == "global" else self.scope
        part = f"{100 * self.fraction:g}"
        part = f"{part}%" if float(part) / 100 == self.fraction else repr(self.fraction)
        return f"prune {quoted(self.glob)} -> {part}{words(scope=scope)}"

    def apply(self, catalog: Catalog) -> Change:
        """Derive the tensors from themselves and the magnitude that a fraction is below."""
        chosen = {name: catalog[name] for name in select(catalog, self.glob)}
        floats = {name: tensor for name, tensor in chosen.items() if is_float(tensor.spec.dtype)}
        together = self._threshold([*floats.values()]) if self.scope == "global" else None

        def make(catalog: Catalog, name: str, groups: Sequence[str]) -> Tensor:
            del groups
            tensor = catalog[name]
            if name not in floats:
                msg = f"{tensor.spec.dtype} has no magnitudes to prune by"
                raise KindError(msg)
            threshold = together if self.scope == "global" else self._threshold([tensor])
            if threshold is None:
                # Nothing stays, or there is nothing.
                return tensor.derive(Expression(Number(0), tensor.spec.dtype), (tensor,))
            large = Call("greater_equal", (Call("abs", (X,)), Other("threshold")))
            stays = Call("logical_or", (large, Call("isnan", (X,))))
            kernel = Expression(Call("where", (stays, X, Number(0))), tensor.spec.dtype)
            return tensor.derive(kernel, (tensor, threshold))

        return derive_each(catalog, self.glob, make)

    def _threshold(self, tensors: Sequence[Tensor]) -> Tensor | None:
        """Return the least magnitude that stays; None if none does."""
        total = sum(tensor.spec.count for tensor in tensors)
        rank = round(self.fraction * total)
        if rank >= total:
            return None
        dtypes = {tensor.spec.dtype for tensor in tensors}
        dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
        if DTYPES[dtype].bits < 16 or "float64" in dtypes:
            dtype = "float64" if "float64" in dtypes else "float32"
        return derived(OrderStatistic(dtype, "rank", rank=rank, magnitude=True), *tensors)


@dataclass(frozen=True)
class Sparsify(Formula):
    """``prune GLOB -> 2:4 axis=N``: of every 4 elements along an axis keep the 2 largest."""

    glob: str
    keep: int
    group: int
    axis: int = -1

    def __str__(self) -> str:
        """Return the statement."""
        axis = None if self.axis == -1 else self.axis
        return f"prune {quoted(self.glob)} -> {self.keep}:{self.group}{words(axis=axis)}"

    def formula(self) -> Expr:
        """Return ``sparsify(x, keep, group, axis)``."""
        options = (("keep", self.keep), ("group", self.group), ("axis", self.axis))
        return Apply("sparsify", (X,), options)


@dataclass(frozen=True)
class StochasticCast:
    """``cast GLOB -> DTYPE rounding=stochastic``: round up or down by chance, in proportion."""

    glob: str
    dtype: str
    seed: int = 0

    def __str__(self) -> str:
        """Return the statement."""
        told = words(rounding="stochastic", seed=self.seed or None)
        return f"cast {quoted(self.glob)} -> {self.dtype}{told}"

    def apply(self, catalog: Catalog) -> Change:
        """Derive the tensors that are floats of another dtype."""

        def make(catalog: Catalog, name: str, groups: Sequence[str]) -> Tensor:
            tensor = catalog[name]
            if not is_float(tensor.spec.dtype):
                msg = f"{tensor.spec.dtype} is not rounded by chance"
                raise KindError(msg)
            scope = Scope(name, tensor, partial(tensor_of, catalog), groups=groups)
            call = Apply("stochastic", (X,), (("dtype", self.dtype), ("seed", self.seed)))
            made = scope.tensor(call)
            if not isinstance(made.source, Derived):
                return tensor
            return tensor.derive(made.source.kernel, made.source.parents, spec=made.spec)

        return derive_each(catalog, self.glob, make)
