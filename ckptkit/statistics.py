"""Kernels that make few numbers of many: reductions, in streamed passes with a state that merges.

A tensor of any size is reduced block by block. Each block gives a *partial*, partials are taken
into the state in the order of the blocks, and the blocks are the same whatever memory and workers
there are: so is the result, to the last bit. Sums are kept in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptkit import _native
from ckptkit.errors import EditError
from ckptkit.expressions import REDUCTIONS
from ckptkit.kernels import Need, OnHost
from ckptkit.lowering import KindError, numpy_dtype, working_dtype
from ckptkit.model import DTYPES, TensorSpec
from ckptkit.region import Box
from ckptkit.views import axis_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from ckptkit.kernels import Get, Run

    Array = np.ndarray[Any, Any]

DIGIT: Final = 16
"""Bits of an element's key that a pass of an order statistic settles."""

_SUMMED: Final = frozenset({"float16", "bfloat16", "float32", "float64"})
_ARRAYS: Final = {"var": 2, "std": 2}


class Statistic(OnHost):
    """What all reductions share."""

    @property
    def passes(self) -> int:
        """How often the inputs are read."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What it is, in a few characters."""
        raise NotImplementedError

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the result."""
        raise NotImplementedError

    def start(self, given: Sequence[TensorSpec]) -> Any:
        """Return the state before anything was read."""
        raise NotImplementedError

    def query(self, state: Any) -> Any:
        """Return what a worker has to know for the pass that is due."""
        raise NotImplementedError

    def partial(self, values: Array, query: Any) -> Any:
        """Return what a block contributes."""
        raise NotImplementedError

    def absorb(self, state: Any, box: Box, partial: Any) -> None:
        """Take a partial into the state, in the order of the blocks."""
        raise NotImplementedError

    def finish(self, state: Any) -> Array | None:
        """End a pass: return the result, or None if another pass is due."""
        raise NotImplementedError

    def state_bytes(self, given: Sequence[TensorSpec]) -> int:
        """Return the bytes that the state takes."""
        raise NotImplementedError

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Yield all of every input."""
        del box
        for number, spec in enumerate(given):
            yield Need(number, Box.whole(spec.shape))

    def compute(self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run) -> Array:
        """Refuse: a pass of its own gives the result before it is needed."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Moments(Statistic):
    """A reduction of ``REDUCTIONS`` of one tensor, of all of it or along axes.

    Attributes:
        op: Its name.
        axes: The axes that are reduced, and stay with size 1; if None all are, and none stays.
    """

    op: str
    axes: tuple[int, ...] | None = None

    @property
    def passes(self) -> int:
        """Once."""
        return 1

    @property
    def label(self) -> str:
        """Return ``mean axis 0``."""
        return self.op if self.axes is None else f"{self.op} axis {', '.join(map(str, self.axes))}"

    def reduced(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the axes that are reduced, from the front.

        Raises:
            EditError: There is no such axis, or one is named twice.
        """
        if self.axes is None:
            return tuple(range(len(shape)))
        axes = tuple(sorted(axis_of(axis, len(shape)) for axis in self.axes))
        if len(set(axes)) < len(axes):
            msg = f"an axis is named twice in {list(self.axes)}"
            raise EditError(msg)
        return axes

    def row(self, spec: TensorSpec) -> int | None:
        """Return the bytes that give one result, if they lie side by side; else None."""
        axes = self.reduced(spec.shape)
        rank = len(spec.shape)
        if self.axes is None or axes != tuple(range(rank - len(axes), rank)):
            return None
        return math.prod(spec.shape[axis] for axis in axes) * spec.itemsize

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of the result.

        Raises:
            KindError: Such values are not reduced so.
            EditError: There is nothing to choose from, or no such axis.
        """
        (spec,) = given
        dtype = _result(self.op, spec.dtype)
        axes = self.reduced(spec.shape)
        if self.op in {"min", "max"} and not math.prod(spec.shape[axis] for axis in axes):
            msg = f"{self.op}() of no elements: {spec}"
            raise EditError(msg)
        return TensorSpec(dtype, self._held(spec.shape))

    def _held(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.axes is None:
            return ()
        axes = self.reduced(shape)
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))

    def state_bytes(self, given: Sequence[TensorSpec]) -> int:
        """Return the bytes that the state takes."""
        return self.output(given).count * 8 * (1 + _ARRAYS.get(self.op, 1))

    def start(self, given: Sequence[TensorSpec]) -> _State:
        """Return sums of nothing."""
        import numpy as np

        (spec,) = given
        out, count = self.output(given), _ARRAYS.get(self.op, 1)
        dtype = numpy_dtype(_wide(self.op, working_dtype(spec.dtype)))
        first = np.ones if self.op == "all" else np.zeros
        held = [first(out.shape, dtype) for _ in range(count)]
        return _State(out.dtype, np.zeros(out.shape, np.int64), held)

    def query(self, state: _State) -> None:
        """Workers need to know nothing."""
        del state

    def partial(self, values: Array, query: None = None) -> tuple[Array, ...]:
        """Return the sums of a block."""
        import numpy as np

        del query
        axes = self.reduced(values.shape)
        whole = len(axes) == values.ndim
        with np.errstate(all="ignore"):
            if whole and values.dtype.name in _SUMMED and self.op not in {"min", "max"}:
                return _sums(self.op, values)
            return _along(self.op, values, axes)

    def absorb(self, state: _State, box: Box, partial: tuple[Array, ...]) -> None:
        """Merge the sums of a block."""
        import numpy as np

        axes = self.reduced(box.shape)
        count = math.prod(box.shape[axis] for axis in axes)
        at: tuple[Any, ...] = ()
        if self.axes is not None:
            at = tuple(
                slice(0, 1) if axis in axes else slice(low, low + size)
                for axis, (low, size) in enumerate(zip(box.start, box.shape, strict=True))
            )
        shape = state.count[(*at, ...)].shape
        with np.errstate(all="ignore"):
            state.merge(self.op, (*at, ...), count, [part.reshape(shape) for part in partial])

    def finish(self, state: _State) -> Array:
        """Return the result, rounded once."""
        import numpy as np

        with np.errstate(all="ignore"):
            found = _finished(self.op, state)
            return np.asarray(found).astype(numpy_dtype(state.dtype))

    def needs(self, box: Box, given: Sequence[TensorSpec]) -> Iterator[Need]:
        """Yield the rows that a box of results is made of."""
        yield Need(0, self._rows(box, given[0].shape))

    def _rows(self, box: Box, shape: tuple[int, ...]) -> Box:
        axes = self.reduced(shape)
        if self.axes is None:
            return Box.whole(shape)
        return Box(
            tuple(0 if axis in axes else low for axis, low in enumerate(box.start)),
            tuple(shape[axis] if axis in axes else size for axis, size in enumerate(box.shape)),
        )

    def compute(self, box: Box, given: Sequence[TensorSpec], get: Get, run: Run) -> Array:
        """Reduce the rows of a block, which the engine keeps short."""
        del run
        rows = self._rows(box, given[0].shape)
        state = self.start([TensorSpec(given[0].dtype, rows.shape)])
        if not rows.count:
            return self.finish(state)
        self.absorb(state, Box.whole(rows.shape), self.partial(get(0, rows)))
        return self.finish(state)


@dataclass(slots=True)
class _State:
    """Sums so far.

    Attributes:
        dtype: Of the result.
        count: int64, how many elements went into each.
        held: The sums; of a variance the mean, and the squares of what is off it.
    """

    dtype: str
    count: Array
    held: list[Array]

    def merge(self, op: str, at: tuple[Any, ...], count: int, parts: list[Array]) -> None:
        import numpy as np

        before = self.count[at]
        first = self.held[0][at]
        if op in {"min", "max"}:
            chosen = getattr(np, f"{op}imum")(first, parts[0])
            self.held[0][at] = np.where(before == 0, parts[0], chosen)
        elif op in {"any", "all"}:
            both = first | parts[0] if op == "any" else first & parts[0]
            self.held[0][at] = np.where(before == 0, parts[0], both)
        elif op in {"var", "std"}:
            after = np.maximum(before + count, 1)
            apart = parts[0] - first
            mean = first + apart * (count / after)
            squares = self.held[1][at] + parts[1] + apart * apart * (before * (count / after))
            self.held[0][at] = np.where(before == 0, parts[0], mean)
            self.held[1][at] = np.where(before == 0, parts[1], squares)
        else:
            self.held[0][at] = first + parts[0]
        self.count[at] = before + count


def _wide(op: str, working: str) -> str:
    """Return the dtype of the sums."""
    kind = DTYPES[working].kind
    if op in {"min", "max", "any", "all"}:
        return working
    if kind == "complex":
        return "complex128" if op in {"sum", "mean"} else "float64"
    if op == "sum" and kind in {"int", "uint", "bool"}:
        return "uint64" if kind == "uint" else "int64"
    return "float64"


def _result(op: str, dtype: str) -> str:
    rule, working = REDUCTIONS[op], working_dtype(dtype)
    kind = DTYPES[working].kind
    if kind.replace("uint", "int")[0] not in rule.takes:
        hint = "; compare first, as in x != 0" if rule.takes == "b" else ""
        msg = f"{op}() is not defined for {dtype}{hint}"
        raise KindError(msg)
    if rule.gives == "bool":
        return "bool"
    if rule.gives == "same":
        return working
    if kind in {"bool", "int", "uint"}:
        return _wide(op, working) if rule.gives == "sum" else "float64"
    if kind == "complex" and rule.gives == "real":
        return f"float{DTYPES[working].bits // 2}"
    return working


def _sums(op: str, values: Array) -> tuple[Array, ...]:
    """Return the sums of all elements of a block."""
    import numpy as np

    raw, dtype = np.ascontiguousarray(values).reshape(-1).view(np.uint8), values.dtype.name
    if op == "norm":
        return (np.asarray(_native.power_sum(raw, dtype, 2, 0.0)),)
    total = _native.power_sum(raw, dtype, 1, 0.0)
    if op in {"sum", "mean"}:
        return (np.asarray(total),)
    mean = total / values.size
    return np.asarray(mean), np.asarray(_native.power_sum(raw, dtype, 2, mean))


def _along(op: str, values: Array, axes: tuple[int, ...]) -> tuple[Array, ...]:
    """Return the sums of a block along axes, which stay with size 1."""
    import numpy as np

    working = working_dtype(values.dtype.name)
    if op in {"min", "max"}:
        found = getattr(np, op)(
            values.astype(numpy_dtype(working), copy=False), axes, keepdims=True
        )
        # The least of -0.0 and 0.0 is either, by the width of a register.
        return (found + found.dtype.type(0),)
    if op in {"any", "all"}:
        return (getattr(np, op)(values, axes, keepdims=True),)
    if op == "norm" and values.dtype.kind == "c":
        values = values.astype(np.complex128, copy=False)
        values = values.real**2 + values.imag**2
        return (values.sum(axes, keepdims=True),)
    wide = values.astype(numpy_dtype(_wide(op, working)), copy=False)
    if op in {"sum", "mean"}:
        return (wide.sum(axes, keepdims=True, dtype=wide.dtype),)
    if op == "norm":
        return ((wide * wide).sum(axes, keepdims=True),)
    mean = wide.mean(axes, keepdims=True)
    off = wide - mean
    return mean, (off * off).sum(axes, keepdims=True)


def _finished(op: str, state: _State) -> Array:
    import numpy as np

    total = state.held[0]
    if op == "mean":
        return np.asarray(total / state.count)
    if op == "norm":
        return np.sqrt(total)
    if op in {"var", "std"}:
        var = np.asarray(state.held[1] / state.count)
        return np.sqrt(var) if op == "std" else var
    return total


@dataclass(frozen=True, slots=True)
class OrderStatistic(Statistic):
    """The element at a place in the order of all elements of one tensor or many, exactly.

    A histogram of the leading bits of all elements says which bits the one that is sought begins
    with; another pass over those that begin so settles the next ones. Two passes for 32 bits.

    Attributes:
        dtype: The dtype in which elements are compared.
        op: ``quantile``, ``median``, or ``rank``.
        fraction: Of a quantile: the element with that part of the others below it.
        rank: How many elements come before the one that is sought; infinity if there are no more.
        magnitude: Elements are compared, and given, without their sign.
    """

    dtype: str
    op: str = "quantile"
    fraction: float = 0.0
    rank: int = 0
    magnitude: bool = False

    @property
    def label(self) -> str:
        """Return ``quantile 0.5 of magnitudes``."""
        what = {"quantile": f"quantile {self.fraction:g}", "rank": f"element {self.rank}"}
        return what.get(self.op, self.op) + (" of magnitudes" if self.magnitude else "")

    @property
    def passes(self) -> int:
        """A pass for every 16 bits."""
        return max(DTYPES[self.dtype].bits // DIGIT, 1)

    def output(self, given: Sequence[TensorSpec]) -> TensorSpec:
        """Return the spec of a single element.

        Raises:
            KindError: Such values have no order.
            EditError: There are none.
        """
        for spec in given:
            if DTYPES[working_dtype(spec.dtype)].kind not in {"float", "int", "uint"}:
                msg = f"{self.op}() is not defined for {spec.dtype}"
                raise KindError(msg)
        if not sum(spec.count for spec in given):
            msg = f"{self.op}() of no elements"
            raise EditError(msg)
        integers = DTYPES[self.dtype].kind != "float"
        return TensorSpec("float64" if self.op == "median" and integers else self.dtype, ())

    def state_bytes(self, given: Sequence[TensorSpec]) -> int:
        """Return the bytes that the state takes."""
        del given
        return 2 * 8 << DIGIT

    def start(self, given: Sequence[TensorSpec]) -> _Search:
        """Return what is sought, of which no bit is known."""
        count = sum(spec.count for spec in given)
        ranks = {
            "median": ((count - 1) // 2, count // 2),
            "quantile": (int(self.fraction * (count - 1)),),
            "rank": (self.rank,),
        }[self.op]
        shift = max(8 * numpy_dtype(self.dtype).itemsize - DIGIT, 0)
        return _Search(
            shift, [(0, rank) for rank in ranks], self.op == "rank" and ranks[0] >= count
        )

    def query(self, state: _Search) -> tuple[int, tuple[int, ...]]:
        """Return the bits that are due, and what those before them are known to be."""
        return state.shift, tuple(dict.fromkeys(prefix for prefix, _ in state.sought))

    def partial(self, values: Array, query: tuple[int, tuple[int, ...]]) -> dict[int, Array]:
        """Return histograms of the elements that begin as is known."""
        import numpy as np

        shift, prefixes = query
        held = np.ascontiguousarray(values.astype(numpy_dtype(self.dtype), copy=False)).reshape(-1)
        raw = held.view(np.uint8)
        width, kind = held.dtype.itemsize, self._kind()
        found = {}
        for prefix in prefixes:
            counts = np.zeros(1 << DIGIT, np.uint64)
            _native.radix_count(raw, kind, width, shift, prefix, counts)
            found[prefix] = counts
        return found

    def _kind(self) -> str:
        kind = DTYPES[self.dtype].kind
        if kind == "float" and self.magnitude:
            return "magnitude"
        return "bfloat" if self.dtype == "bfloat16" else kind

    def absorb(self, state: _Search, box: Box, partial: dict[int, Array]) -> None:
        """Add the histograms of a block."""
        del box
        for prefix, counts in partial.items():
            if prefix in state.counts:
                state.counts[prefix] += counts
            else:
                state.counts[prefix] = counts

    def finish(self, state: _Search) -> Array | None:
        """Settle the bits that are due; return the element when none is left."""
        import numpy as np

        dtype = numpy_dtype(self.dtype)
        if state.beyond:
            return np.asarray(np.inf).astype(dtype)
        state.settle()
        if state.shift:
            state.shift -= DIGIT
            return None
        kind, width = self._kind(), dtype.itemsize
        keys = [_native.radix_value(key, kind, width) for key, _ in state.sought]
        found = np.frombuffer(b"".join(keys), dtype)
        if self.op != "median":
            return np.asarray(found[0])
        low, high = found.astype(np.float64)
        with np.errstate(all="ignore"):
            mean = low if low == high else low / 2 + high / 2
        return np.asarray(mean).astype(dtype if dtype.kind == "f" else np.float64)


@dataclass(slots=True)
class _Search:
    """What is known of the elements that are sought.

    Attributes:
        shift: Bits below those that are due.
        sought: Of each its leading bits, and how many elements that begin so come before it.
        beyond: There are fewer elements than that.
    """

    shift: int
    sought: list[tuple[int, int]]
    beyond: bool
    counts: dict[int, Array] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.counts = {}

    def settle(self) -> None:
        import numpy as np

        for at, (prefix, rank) in enumerate(self.sought):
            below = np.cumsum(self.counts[prefix])
            digit = int(np.searchsorted(below, rank, "right"))
            before = int(below[digit - 1]) if digit else 0
            self.sought[at] = (prefix << DIGIT | digit, rank - before)
        self.counts.clear()
