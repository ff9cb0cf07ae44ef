"""Random expressions that mean something: trees with the dtypes and shapes to go with them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from ckptkit.edits import Assign
from ckptkit.expressions import (
    Apply,
    Call,
    Convert,
    Current,
    Expr,
    Index,
    Number,
    Other,
    Reduce,
    Size,
    rebuilt,
    walk,
)
from ckptkit.region import Region
from ckptkit.surgery import New
from tests.golden.handmade import numpy_dtype, random_array
from tests.oracle.expressions import SUMMED, RefusedError, Twin, kind_of
from tests.property.edited import regions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Shape = tuple[int, ...]

DTYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool")
NUMBERS = DTYPES[:-1]
TARGET = "w"

SIZES = st.sampled_from([0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 12])
SHAPES = st.one_of(
    st.lists(SIZES.filter(bool), min_size=1, max_size=3).map(tuple),
    st.lists(SIZES, max_size=3).map(tuple),
)

UNARY = ("negative", "abs", "sign", "square", "relu", "round", "floor", "ceil", "sqrt", "square")
BINARY = ("add", "subtract", "multiply", "divide", "minimum", "maximum")
TESTS = ("isnan", "isinf", "isfinite")
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
REDUCED = ("sum", "mean", "var", "std", "norm", "min", "max", "median", "quantile")


def random_values(dtype: str, shape: Shape, seed: int, mode: str) -> Array:
    """Return values: ``tame`` ones, whose sums are exact, ``odd`` ones, or any ``bits``."""
    rng = np.random.default_rng(seed)
    kind = numpy_dtype(dtype)
    if dtype == "bool" or mode == "bits":
        return random_array(dtype, shape, seed)
    if kind_of(kind) == "i":
        low = 0 if kind.kind == "u" else -20
        return np.asarray(rng.integers(low, 21, shape)).astype(kind)
    tame = rng.integers(-40, 41, shape) / 8
    if mode == "tame":
        return np.asarray(tame).astype(kind)
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-4, 3e4, 0.1, -7.3, 2.0**-14])
    mixed = np.where(rng.random(shape) < 0.5, rng.standard_normal(shape), rng.choice(odd, shape))
    return np.asarray(mixed).astype(kind)


@dataclass
class Setting:
    """A target and the other tensors that an expression about it has come to name.

    Attributes:
        draw: Draws from strategies.
        dtype, shape: Of the target.
        region: What of it is assigned.
        mode: What values are like.
    """

    draw: Any
    dtype: str
    shape: Shape
    region: Region | None
    mode: str
    tensors: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Give the target its values."""
        self.tensors[TARGET] = self.values(self.dtype, self.shape)
        self.held = self.twin().leaf(Current()).array.shape

    def values(self, dtype: str, shape: Shape, mode: str | None = None) -> Array:
        """Draw an array."""
        seed = self.draw(st.integers(0, 2**32 - 1))
        return random_values(dtype, shape, seed, mode or self.mode)

    def twin(self, measured: dict[Expr, Array] | None = None) -> Twin:
        """Return what knows the values of all expressions about the target."""
        return Twin(self.tensors, self.tensors[TARGET], self.region, measured or {})

    def pick(self, items: Any) -> Any:
        """Draw one of some things."""
        return self.draw(st.sampled_from(items))

    def chance(self, percent: int) -> bool:
        """Draw whether."""
        return self.draw(st.integers(0, 99)) < percent

    def number(self, low: int, high: int) -> int:
        """Draw an integer."""
        return self.draw(st.integers(low, high))

    # --- leaves ---------------------------------------------------------------------------------

    def other(self, shape: Shape, dtypes: tuple[str, ...], mode: str | None = None) -> Expr:
        """Name another tensor of a shape."""
        name = f"t/{len(self.tensors)}"
        self.tensors[name] = self.values(self.pick(dtypes), shape, mode)
        return Other(name)

    def below(self, shape: Shape) -> Shape:
        """Return a shape that broadcasts to one."""
        kept = shape[self.number(0, len(shape)) :]
        return tuple(1 if self.chance(30) else size for size in kept)

    def literal(self) -> Expr:
        """Draw a number."""
        value = self.pick([0, 1, 2, 3, 5, 0.5, 0.1, 2.5, 1e-3, 7, 0.0, math.inf, math.nan, 300])
        return Call("negative", (Number(value),)) if self.chance(15) else Number(value)

    def leaf(self, shape: Shape, *, exact: bool) -> Expr:
        """Draw a number-valued leaf that has a shape, or broadcasts to it."""
        if shape == self.held and self.dtype != "bool" and self.chance(60):
            return Current()
        if exact or self.chance(50):
            near = self.dtype if self.dtype != "bool" and self.chance(60) else self.pick(NUMBERS)
            return self.other(shape if exact else self.below(shape), (near,))
        if shape == self.held and self.shape and self.chance(30):
            return Index(self.axis(len(self.shape)))
        if self.chance(15):
            return Size(self.pick([None, *range(-len(self.shape), len(self.shape))]))
        return self.literal()

    def axis(self, rank: int) -> int:
        """Draw an axis, counted from either end."""
        return self.number(-rank, rank - 1)

    # --- trees ----------------------------------------------------------------------------------

    def numeric(self, shape: Shape, depth: int, *, exact: bool = False) -> Expr:  # noqa: PLR0911 - one for each kind
        """Draw a number-valued tree that has a shape, or broadcasts to it."""
        if not depth or self.chance(12):
            return self.leaf(shape, exact=exact)
        choice = self.number(0, 99)
        if choice < 16:
            return Call(self.pick(UNARY), (self.numeric(shape, depth - 1, exact=exact),))
        if choice < 40:
            pair = (self.numeric(shape, depth - 1, exact=exact), self.numeric(shape, depth - 1))
            return Call(self.pick(BINARY), pair if exact or self.chance(50) else pair[::-1])
        if choice < 46:
            chosen = self.numeric(shape, depth - 1, exact=exact)
            return Call(
                "where",
                (self.boolean(shape, depth - 1), chosen, self.numeric(shape, depth - 1)),
            )
        if choice < 49:
            return Call(
                "clip", (self.numeric(shape, depth - 1, exact=exact), self.leaf(shape, exact=False),
                         self.leaf(shape, exact=False)),
            )  # fmt: skip
        if choice < 53:
            return Call("power", (self.numeric(shape, depth - 1, exact=exact), Number(2)))
        if choice < 57:
            return Convert(self.numeric(shape, depth - 1, exact=exact), self.pick(NUMBERS))
        if choice < 82 and not (exact and shape):
            return self.reduction(shape, depth, REDUCED, self.numeric)
        return self.view(shape, depth, self.numeric, bits=False)

    def boolean(self, shape: Shape, depth: int, *, exact: bool = False) -> Expr:  # noqa: PLR0911 - one for each kind
        """Draw a tree of truth values that has a shape, or broadcasts to it."""
        choice = self.number(0, 99)
        if not depth or choice < 15:
            if self.dtype == "bool" and shape == self.held and self.chance(60):
                return Current()
            return self.other(shape if exact else self.below(shape), ("bool",))
        if choice < 55:
            pair = (self.numeric(shape, depth - 1, exact=exact), self.numeric(shape, depth - 1))
            return Call(self.pick(COMPARISONS), pair)
        if choice < 65:
            return Call(self.pick(TESTS), (self.numeric(shape, depth - 1, exact=exact),))
        if choice < 80:
            pair = (self.boolean(shape, depth - 1, exact=exact), self.boolean(shape, depth - 1))
            return Call(self.pick(("logical_and", "logical_or")), pair)
        if choice < 85:
            return Call("logical_not", (self.boolean(shape, depth - 1, exact=exact),))
        if choice < 93 and not (exact and shape):
            return self.reduction(shape, depth, ("any", "all", "min", "max"), self.boolean)
        return self.view(shape, depth, self.boolean, bits=True)

    def reduction(
        self, shape: Shape, depth: int, ops: tuple[str, ...], tree: Callable[..., Expr]
    ) -> Expr:
        """Draw a reduction whose result broadcasts to a shape."""
        op = self.pick(ops)
        by_axis = shape and op not in {"median", "quantile"} and self.chance(60)
        if not by_axis:
            inner = self.held if self.chance(50) else self.draw(SHAPES)
            fraction = self.pick([0.0, 0.25, 0.5, 0.9, 1.0]) if op == "quantile" else None
            return Reduce(op, tree(inner, depth - 1, exact=self.chance(70)), None, fraction)
        count = self.number(1, len(shape))
        axes = tuple(self.draw(st.permutations(range(len(shape))))[:count])
        wide = tuple(
            self.draw(SIZES) if axis in axes and self.chance(40) else size
            for axis, size in enumerate(shape)
        )
        signed = tuple(axis - len(shape) if self.chance(30) else axis for axis in axes)
        return Reduce(op, tree(wide, depth - 1, exact=True), signed)

    # --- functions that see more than one element -----------------------------------------------

    def view(self, shape: Shape, depth: int, tree: Callable[..., Expr], *, bits: bool) -> Expr:
        """Draw a function that gives just a shape."""
        names = ["reshape", "expand"]
        if shape:
            names += ["transpose", "concat", "take", "pad", "slice", "resize", "transpose", "slice"]
            axis = self.number(0, len(shape) - 1)
            names += ["stack"] * (1 <= shape[axis] <= 3)
            names += ["sparsify"] * (not bits and math.prod(shape) > 0)
            names += ["matmul"] * (not bits and len(shape) == 2)
            return getattr(self, f"_{self.pick(names)}")(shape, axis, depth - 1, tree)
        return getattr(self, f"_{self.pick(names)}")(shape, 0, depth - 1, tree)

    def _with(self, shape: Shape, axis: int, size: int) -> Shape:
        return (*shape[:axis], size, *shape[axis + 1 :])

    def _named(self, axis: int, shape: Shape) -> tuple[tuple[str, int], ...]:
        return (("axis", axis - len(shape) if self.chance(30) else axis),)

    def _transpose(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        axes = tuple(self.draw(st.permutations(range(len(shape)))))
        inner = tuple(shape[axes.index(at)] for at in range(len(shape)))
        plain = axes == tuple(reversed(range(len(shape)))) and self.chance(50)
        return Apply(
            "transpose", (tree(inner, depth, exact=True),), () if plain else (("axes", axes),)
        )

    def _reshape(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        count = math.prod(shape)
        inner = self.pick([(count,), (1, *shape), tuple(reversed(shape)), (count, 1)])
        wanted = shape
        if shape and count and self.chance(40):
            wanted = self._with(shape, axis, -1)
        return Apply("reshape", (tree(inner, depth, exact=True),), (("shape", wanted),))

    def _expand(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        return Apply("expand", (tree(self.below(shape), depth, exact=True),), (("shape", shape),))

    def _concat(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        cuts = sorted(self.number(0, shape[axis]) for _ in range(self.number(0, 2)))
        edges = [0, *cuts, shape[axis]]
        parts = tuple(
            tree(self._with(shape, axis, high - low), depth, exact=True)
            for low, high in itertools.pairwise(edges)
        )
        return Apply("concat", parts, self._named(axis, shape))

    def _stack(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        inner = (*shape[:axis], *shape[axis + 1 :])
        parts = tuple(tree(inner, depth, exact=True) for _ in range(shape[axis]))
        return Apply("stack", parts, self._named(axis, shape))

    def _take(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        size = self.number(1, 5)
        indices = tuple(self.number(-size, size - 1) for _ in range(shape[axis]))
        inner = tree(self._with(shape, axis, size), depth, exact=True)
        return Apply("take", (inner,), (("indices", indices), *self._named(axis, shape)))

    def _pad(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        before, after = self.draw(st.tuples(*[st.integers(0, shape[axis])] * 2))
        after = min(after, shape[axis] - before)
        inner = tree(self._with(shape, axis, shape[axis] - before - after), depth, exact=True)
        value = (("value", self.pick([1, 2.5, 0])),) if self.chance(50) else ()
        widths = ("widths", (before, after))
        return Apply("pad", (inner,), (widths, *self._named(axis, shape), *value))

    def _slice(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        inner: list[int] = []
        items: list[int | slice] = []
        for size in shape:
            if self.chance(20):
                inner.append(3)
                items.append(self.number(-3, 2))
            first, step, more = self.number(0, 2), self.number(1, 2), self.number(0, 2)
            wide = first + max(size - 1, 0) * step + bool(size) + more * (not size)
            inner.append(wide)
            last = first + max(size - 1, 0) * step + 1 if size else first
            items.append(slice(first, last, step if step > 1 or self.chance(30) else None))
        return Apply("slice", (tree(tuple(inner), depth, exact=True),), region=Region(tuple(items)))

    def _resize(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        size = shape[axis]
        fill: tuple[tuple[str, Any], ...] = ()
        before = self.number(0, size + 2)
        if before < size and self.chance(60):
            fill = (("fill", self.number(-before, before - 1) if before else "zeros"),)
        inner = tree(self._with(shape, axis, before), depth, exact=True)
        return Apply("resize", (inner,), (("size", size), *self._named(axis, shape), *fill))

    def _sparsify(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        group = self.pick([n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0])
        keep = self.number(0, group)
        inner = tree(shape, depth, exact=True)
        options = (("keep", keep), ("group", group), *self._named(axis, shape))
        return Apply("sparsify", (inner,), options)

    def _matmul(self, shape: Shape, axis: int, depth: int, tree: Any) -> Expr:
        inner = self.number(0, 4)
        dtypes = (self.dtype if self.dtype != "bool" else "float32", self.pick(NUMBERS))
        one = self.other((shape[0], inner), dtypes, "tame")
        return Apply("matmul", (one, self.other((inner, shape[1]), dtypes, "tame")))


@dataclass(frozen=True, repr=False)
class Case:
    """An assignment, and the values of all tensors before it."""

    setting: Setting
    expr: Expr

    def __repr__(self) -> str:
        """Return the statement, and what it is about."""
        tensors = ", ".join(f"{k}={v!r}" for k, v in self.setting.tensors.items())
        return f"{self.statement} with {tensors}"

    @property
    def statement(self) -> str:
        """The assignment as text."""
        return str(Assign(TARGET, self.expr, self.setting.region))

    def probes(self) -> dict[str, Expr]:
        """Return the sums in the expression, inner ones first, by names that are free."""
        sums = [part for part in walk(self.expr) if isinstance(part, Reduce) and part.op in SUMMED]
        return {f"probe/{n}": one for n, one in enumerate(dict.fromkeys(reversed(sums)))}

    def probe_statements(self) -> list[str]:
        """Return statements that store the sums in the expression as tensors of their own."""
        return [str(New(name, rebuilt(one, self._alone))) for name, one in self.probes().items()]

    def _alone(self, part: Expr) -> Expr:
        """Return what stands for a part where there is no target."""
        region = self.setting.region
        if isinstance(part, Current):
            whole = Other(TARGET)
            return whole if region is None else Apply("slice", (whole,), region=region)
        if isinstance(part, Index):
            return Other(f"index/{part.axis}")
        if isinstance(part, Size):
            return Number(self.setting.twin().leaf(part).array.item())
        return part

    def stored(self) -> dict[str, Array]:
        """Return the tensors of the checkpoint: those that are named, and the indices."""
        axes = {part.axis for part in walk(self.expr) if isinstance(part, Index)}
        indices = {f"index/{axis}": self.setting.twin().indices(axis) for axis in axes}
        return self.setting.tensors | indices


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw an assignment to a tensor, or to a region of it."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(SHAPES)
    region = None
    if draw(st.integers(0, 99)) < 45:
        region = Region(draw(regions(shape)) or (...,))
    mode = draw(st.sampled_from(["tame", "tame", "odd", "odd", "bits"]))
    setting = Setting(draw, dtype, shape, region, mode)
    tree = setting.boolean if dtype == "bool" else setting.numeric
    expr = tree(setting.held, draw(st.integers(1, 4)))
    try:
        kind = kind_of(setting.twin().value(expr).array.dtype)
    except RefusedError:
        kind = "b"
    too_wide = "bif".index(kind) > "bif".index(kind_of(numpy_dtype(dtype)))
    if too_wide and setting.chance(90):
        expr = Convert(expr, dtype)
    return Case(setting, expr)
