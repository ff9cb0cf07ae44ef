"""The built-in edits: pure functions from a catalog to the catalog that is wanted.

No edit reads a value. What changes is what the catalog says; tensors that an edit leaves alone
stay rows of the columns, so that a million names are renamed or dropped without an object each.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, get_args

from ckptkit.binding import Scope, filled, is_template, reshaped
from ckptkit.deriving import Change, derive, derive_each, tensor_of
from ckptkit.errors import EditError
from ckptkit.expressions import Apply, Convert, Current, Other, inputs
from ckptkit.globs import is_glob, quoted
from ckptkit.kernels import (
    Constant,
    Expression,
    Granularity,
    MapFunction,
    broadcast_shape,
    makes_shape,
)
from ckptkit.lowering import KindError, is_number
from ckptkit.model import DTYPES, Derived, Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.expressions import Expr
    from ckptkit.kernels import Kernel
    from ckptkit.region import Region


class Edit(Protocol):
    """A pure function from catalog to catalog; ``str`` gives the statement."""

    def apply(self, catalog: Catalog) -> Change:
        """Return what the edit makes of a catalog.

        Raises:
            EditError: It matches nothing, does not fit, or is refused.
        """


def apply_all(catalog: Catalog, edits: Iterable[Edit]) -> Change:
    """Apply edits one after the other; each sees what those before it made.

    Raises:
        EditError: One of them is refused; the message ends with its statement.
    """
    touched: dict[str, None] | tuple[str, ...] = ()
    notes: list[str] = []
    for edit in _joined(edits):
        try:
            change = edit.apply(catalog)
        except EditError as error:
            msg = f"{error.message}\n  in: {edit}"
            raise EditError(msg, tensor=error.tensor) from error
        catalog = change.catalog
        touched = dict.fromkeys((*touched, *change.touched)) if touched else change.touched
        notes += [f"{edit}: {note}" for note in change.notes]
    return Change(catalog, tuple(touched), tuple(notes))


def _joined(edits: Iterable[Edit]) -> Iterator[Edit]:
    # A new checkpoint is one Put for every tensor; one by one, each would copy all names.
    for kind, group in groupby(edits, type):
        if kind is Put:
            yield _Puts(tuple(edit for edit in group if isinstance(edit, Put)))
        else:
            yield from group


@dataclass(frozen=True)
class Assign:
    """``TARGET[REGION] = EXPR``: give tensors, or a region of each, new values.

    Attributes:
        target: A glob or a name.
        expr: The new values, which broadcast to the tensor or the region.
        region: What is assigned; everything if None.
        text: The statement as it was written.
    """

    target: str
    expr: Expr
    region: Region | None = None
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Return the statement."""
        return self.text or f"{quoted(self.target)}{self.region or ''} = {self.expr}"

    def apply(self, catalog: Catalog) -> Change:
        """Derive the tensors from their values, and from others as they are at this moment."""
        leaves = inputs(self.expr)
        if any(not isinstance(leaf, Other) or is_template(leaf.name) for leaf in leaves):
            return derive_each(catalog, self.target, self._derived)
        named = [leaf.name for leaf in leaves if isinstance(leaf, Other)]
        parents = tuple(tensor_of(catalog, name) for name in named)
        kernels: dict[str, Kernel] = {}

        def kernel_for(spec: TensorSpec) -> Kernel:
            return kernels.setdefault(spec.dtype, Expression(self.expr, spec.dtype))

        try:
            return derive(catalog, self.target, kernel_for, parents, self.region)
        except KindError:
            raise
        except EditError as error:
            if self.region is not None or not isinstance(self.expr, Other):
                raise
            hint = f"to take its shape as well, drop the target, then: new NAME = {self.expr}"
            msg = f"{error.message}; {hint}"
            raise EditError(msg, tensor=error.tensor) from error

    def _derived(self, catalog: Catalog, name: str, groups: Sequence[str]) -> Tensor:
        """Derive one tensor, where what it takes depends on which one it is."""
        tensor = catalog[name]
        scope = Scope(name, tensor, partial(tensor_of, catalog), self.region, groups)
        expr = scope.sized(self.expr)
        if self.region is None and _is_reshape(expr):
            return reshaped(tensor, expr.option("shape"))
        parents = scope.parents(expr)
        held = tensor.spec.shape
        if self.region is not None:
            held = self.region.resolve(held).shape
        kernel = Expression(expr, tensor.spec.dtype)
        if self.region is None and makes_shape(expr):
            shapes = [held] if kernel.uses_current else []
            shapes += [parent.spec.shape for parent in parents]
            shape = broadcast_shape(shapes)
            if shape is None:
                msg = f"the shapes {', '.join(str(list(one)) for one in shapes)} do not go together"
                raise EditError(msg)
            kernel = replace(kernel, shape=shape)
        spec = kernel.output([TensorSpec(tensor.spec.dtype, held), *(p.spec for p in parents)])
        whole = spec if self.region is None else tensor.spec
        return tensor.derive(kernel, (tensor, *parents), spec=whole, region=self.region)


def _is_reshape(expr: Expr) -> TypeGuard[Apply]:
    return isinstance(expr, Apply) and expr.function == "reshape" and expr.args == (Current(),)


@dataclass(frozen=True)
class Cast:
    """``cast GLOB -> DTYPE``: change the dtype of tensors.

    A wildcard changes only tensors of the same family, so that ``cast ** -> bfloat16`` leaves
    step counters alone; tensors that have the dtype already stay as they are.
    """

    glob: str
    dtype: str

    def __str__(self) -> str:
        """Return the statement."""
        return f"cast {quoted(self.glob)} -> {self.dtype}"

    def apply(self, catalog: Catalog) -> Change:
        """Derive the tensors that have another dtype."""
        wildcard, to = is_glob(self.glob), _family(self.dtype)
        kernel = Expression(Convert(Current(), self.dtype), self.dtype)

        def kernel_for(spec: TensorSpec) -> Kernel | None:
            if spec.dtype == self.dtype:
                return None
            if wildcard and is_number(spec.dtype) and _family(spec.dtype) != to:
                msg = f"a wildcard does not turn {spec.dtype} into {self.dtype}; name the tensor"
                raise KindError(msg)
            return kernel

        return derive(catalog, self.glob, kernel_for)


def _family(dtype: str) -> bool:
    if not is_number(dtype):
        known = dtype in DTYPES
        msg = f"nothing can be cast to {dtype}" if known else f"there is no dtype {dtype!r}"
        raise EditError(msg)
    return DTYPES[dtype].kind in {"float", "complex"}


@dataclass(frozen=True)
class Map:
    """Put a function over tensors: ``Map("conv*/kernel", fn)``.

    Attributes:
        glob: The tensors.
        fn: From a block to a block of the same shape; see ``granularity``.
        dtype: The dtype that ``fn`` returns, where it is not that of the tensor.
        granularity: What ``fn`` has to see at a time: ``element`` (blocks of any cut), ``row``
            (whole rows along axis 0) or ``tensor`` (everything, which takes memory for it).
        out: Dtype, or dtype and shape, of the result: ``"float32"`` or ``("float32", (3, 4))``. A
            shape takes the granularity ``tensor``.
        inputs: The name of a further tensor, or names of some, which ``fn`` gets after the block:
            what of them lies where the block is, or all. ``{1}`` is what a group of the glob stands
            for.
    """

    glob: str
    fn: Callable[..., Any]
    dtype: str | None = None
    granularity: Granularity = "element"
    out: str | tuple[str, tuple[int, ...]] | None = None
    inputs: str | tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse contradictions.

        Raises:
            EditError: There is no such granularity, or a block cannot have the shape.
        """
        if self.granularity not in get_args(Granularity):
            msg = f"the granularity is element, row or tensor, not {self.granularity!r}"
            raise EditError(msg)
        if isinstance(self.out, tuple) and self.granularity != "tensor":
            msg = 'only a function that sees all gives another shape: granularity="tensor"'
            raise EditError(msg)

    def __str__(self) -> str:
        """Return the call that makes it."""
        name = getattr(self.fn, "__name__", repr(self.fn))
        words = [repr(self.glob), name]
        words += [repr(self.dtype)] if self.dtype else []
        words += [f"granularity={self.granularity!r}"] if self.granularity != "element" else []
        words += [f"out={self.out!r}"] if self.out is not None else []
        words += [f"inputs={self.inputs!r}"] if self.inputs else []
        return f"Map({', '.join(words)})"

    def apply(self, catalog: Catalog) -> Change:
        """Derive the tensors by the function."""
        out = self.out if isinstance(self.out, tuple) else (self.out, None)
        dtype, shape = self.dtype or out[0], out[1]
        if dtype is not None:
            _family(dtype)
        kernel = MapFunction(self.fn, dtype, self.granularity, shape and tuple(shape))
        if not self.inputs and shape is None:
            return derive(catalog, self.glob, lambda _: kernel)

        def make(catalog: Catalog, name: str, groups: Sequence[str]) -> Tensor:
            tensor = catalog[name]
            named = (self.inputs,) if isinstance(self.inputs, str) else self.inputs
            parents = [tensor_of(catalog, filled(one, groups)) for one in named]
            spec = kernel.output([tensor.spec, *(parent.spec for parent in parents)])
            return tensor.derive(kernel, (tensor, *parents), spec=spec)

        return derive_each(catalog, self.glob, make)


@dataclass(frozen=True)
class Put:
    """Give a tensor values from memory, or add one: ``Put("head/bias", array)``.

    Args:
        name: The name of the tensor.
        values: A NumPy array, or what ``numpy.asarray`` takes; text and bytes become strings.
            The tensor gets dtype and shape of the array.
    """

    name: str
    values: InitVar[object]
    constant: Constant = field(init=False)

    def __post_init__(self, values: object) -> None:
        """Encode the values now, so that the edit does not follow the array.

        Raises:
            EditError: No checkpoint holds values of that dtype, or the name is empty.
        """
        if not self.name:
            msg = "a tensor needs a name"
            raise EditError(msg)
        object.__setattr__(self, "constant", encode(values))

    def __str__(self) -> str:
        """Return the call that makes it, with the spec for the values."""
        return f"Put({self.name!r}, {self.constant.spec})"

    def apply(self, catalog: Catalog) -> Change:
        """Replace the tensor, or add it at the end."""
        return _Puts((self,)).apply(catalog)


@dataclass(frozen=True)
class _Puts:
    puts: tuple[Put, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.puts))

    def apply(self, catalog: Catalog) -> Change:
        changed: dict[str, Tensor] = {}
        added: dict[str, Tensor] = {}
        for put in self.puts:
            kernel = put.constant
            if put.name in catalog:
                old = changed.get(put.name) or catalog[put.name]
                changed[put.name] = old.derive(kernel, (), spec=kernel.spec)
            elif put.name in added:
                added[put.name] = added[put.name].derive(kernel, (), spec=kernel.spec)
            else:
                added[put.name] = Tensor(kernel.spec, Derived(kernel))
        touched = tuple(dict.fromkeys(put.name for put in self.puts))
        catalog = catalog.with_tensors(changed) if changed else catalog
        if not added:
            return Change(catalog, touched)
        return Change(catalog.with_more(added), touched)


def encode(values: object, *, copy: bool = True) -> Constant:
    """Encode values as a checkpoint stores them.

    Args:
        values: A NumPy array, or what ``numpy.asarray`` takes.
        copy: Whether the result is free of the array, also where its memory would do.

    Raises:
        EditError: No checkpoint holds values of that dtype.
    """
    import numpy as np

    array: np.ndarray[Any, Any] = np.asarray(values)
    if array.dtype.kind in "SUO":
        # NumPy pads text to one width with zeros, and drops those that belong to it.
        array = array if isinstance(values, np.ndarray) else np.asarray(values, object)
        return _encode_text(array.shape, array.ravel().tolist())
    spec = TensorSpec(array.dtype.name, array.shape)
    if not is_number(spec.dtype) or array.dtype.itemsize != spec.itemsize:
        msg = f"no checkpoint holds values of dtype {array.dtype}"
        raise EditError(msg)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    bits = DTYPES[spec.dtype].bits
    if spec.kind in {"int", "uint"} and bits < 8:
        array = array.view(np.uint8) & np.uint8(2**bits - 1)
    if copy:
        return Constant(spec, array.tobytes())
    return Constant(spec, memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))


def _encode_text(shape: tuple[int, ...], items: Sequence[object]) -> Constant:
    elements = [item.encode() if isinstance(item, str) else item for item in items]
    held = tuple(element for element in elements if isinstance(element, bytes))
    if len(held) < len(elements):
        msg = "an array of objects must hold text or bytes alone"
        raise EditError(msg)
    return Constant(TensorSpec("string", shape), elements=held)
