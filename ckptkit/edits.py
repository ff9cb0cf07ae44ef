"""The built-in edits: pure functions from a catalog to the catalog that is wanted.

No edit reads a value. What changes is what the catalog says; tensors that an edit leaves alone
stay rows of the columns, so that a million names are renamed or dropped without an object each.
"""

from __future__ import annotations

import gc
import re
import warnings
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from itertools import compress, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from ckptkit.errors import EditError
from ckptkit.expressions import Convert, Current, others
from ckptkit.globs import is_glob, no_match, quoted, select
from ckptkit.kernels import Constant, Expression, KindError, MapFunction, is_number
from ckptkit.model import DTYPES, Derived, Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.expressions import Expr
    from ckptkit.kernels import Kernel
    from ckptkit.region import Region

SHOWN_NAMES: Final = 3
"""How many names a message lists before it counts the rest."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit makes of a catalog.

    Attributes:
        catalog: The catalog afterwards.
        touched: Names of what was changed, made or renamed (afterwards) or removed (before).
        notes: What the user should know, a sentence each.
    """

    catalog: Catalog
    touched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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


def _tensor(catalog: Catalog, name: str) -> Tensor:
    if name not in catalog:
        raise no_match(catalog, name)
    return catalog[name]


def _listed(items: Sequence[str]) -> str:
    more = len(items) - SHOWN_NAMES
    shown = ", ".join(items[:SHOWN_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _passed_over(specs: dict[str, TensorSpec]) -> str:
    kinds = {spec.kind if is_number(spec.dtype) else "none" for spec in specs.values()}
    if kinds == {"none"}:
        why = "not numbers"
    elif kinds <= {"none", "bool", "int", "uint"}:
        why = "not floating point"
    else:
        why = "not of a kind that it takes"
    listed = _listed([f"{name} ({spec.dtype})" for name, spec in specs.items()])
    noun = "1 tensor that is" if len(specs) == 1 else f"{len(specs)} tensors that are"
    return f"passed over {noun} {why}: {listed}"


def _derive(
    catalog: Catalog,
    target: str,
    kernel_for: Callable[[TensorSpec], Kernel | None],
    parents: tuple[Tensor, ...] = (),
    region: Region | None = None,
) -> Change:
    """Derive every selected tensor; a wildcard passes over those of a kind that does not fit.

    ``kernel_for`` is asked once for every spec that occurs; None leaves such tensors alone.
    """
    names = select(catalog, target)
    with _no_collection():
        return _derive_named(catalog, names, kernel_for, parents, region)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector away while hundreds of thousands of tensors are made.

    None of them is garbage, and it would walk all of them again and again: half of the time.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _derive_named(
    catalog: Catalog,
    names: Sequence[str],
    kernel_for: Callable[[TensorSpec], Kernel | None],
    parents: tuple[Tensor, ...],
    region: Region | None,
) -> Change:
    known: dict[TensorSpec, tuple[Kernel, TensorSpec] | KindError | None] = {}
    changed, touched = dict(catalog.changed), []
    skipped: dict[str, TensorSpec] = {}
    for name in names:
        tensor = catalog[name]
        spec = tensor.spec
        if spec not in known:
            known[spec] = _plan(kernel_for, spec, [p.spec for p in parents], region, name)
        plan = known[spec]
        if isinstance(plan, KindError):
            if len(skipped) + 1 == len(names):
                raise plan
            skipped[name] = spec
        elif plan is not None:
            kernel, new = plan
            changed[name] = tensor.derive(kernel, (tensor, *parents), spec=new, region=region)
            touched.append(name)
    notes = (_passed_over(skipped),) if skipped else ()
    return Change(catalog.replace(changed=changed), tuple(touched), notes)


def _plan(
    kernel_for: Callable[[TensorSpec], Kernel | None],
    spec: TensorSpec,
    parents: Sequence[TensorSpec],
    region: Region | None,
    name: str,
) -> tuple[Kernel, TensorSpec] | KindError | None:
    try:
        kernel = kernel_for(spec)
        if kernel is None:
            return None
        shape = spec.shape if region is None else region.resolve(spec.shape).shape
        result = kernel.output([TensorSpec(spec.dtype, shape), *parents])
    except EditError as error:
        failure = type(error)(f"{name!r} ({spec}): {error.message}", tensor=name)
        if isinstance(failure, KindError):
            return failure
        raise failure from error
    return kernel, TensorSpec(result.dtype, spec.shape)


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
        parents = tuple(_tensor(catalog, name) for name in others(self.expr))
        kernels: dict[str, Kernel] = {}

        def kernel_for(spec: TensorSpec) -> Kernel:
            return kernels.setdefault(spec.dtype, Expression(self.expr, spec.dtype))

        return _derive(catalog, self.target, kernel_for, parents, self.region)


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

        return _derive(catalog, self.glob, kernel_for)


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
        fn: From a block to a block of the same shape, element by element (see ``MapFunction``).
        dtype: The dtype that ``fn`` returns, where it is not that of the tensor.
    """

    glob: str
    fn: Callable[[Any], Any]
    dtype: str | None = None

    def __str__(self) -> str:
        """Return the call that makes it."""
        name = getattr(self.fn, "__name__", repr(self.fn))
        dtype = f", {self.dtype!r}" if self.dtype else ""
        return f"Map({self.glob!r}, {name}{dtype})"

    def apply(self, catalog: Catalog) -> Change:
        """Derive the tensors by the function."""
        if self.dtype is not None:
            _family(self.dtype)
        return _derive(catalog, self.glob, lambda _: MapFunction(self.fn, self.dtype))


def _compiled(pattern: str, template: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = re.compile(pattern)
            compiled.sub(template, "")
    except (re.error, IndexError, OverflowError, RecursionError) as error:
        msg = f"not a regular expression with its template: {error}"
        raise EditError(msg) from None
    return compiled


def _filler(compiled: re.Pattern[str], template: str) -> str | Callable[[re.Match[str]], str]:
    """Compile a template: before Python 3.12, ``re`` itself expands it anew for every name."""
    parts = re.split(r"\\(?:([1-9])(?![0-9])|g<(\w+)>)", template)
    literals = parts[::3]
    references = [one or other for one, other in zip(parts[1::3], parts[2::3], strict=True)]
    places = [compiled.groupindex.get(name) or int(name) for name in references]
    if not places or 0 in places or any("\\" in literal for literal in literals):
        return template
    chosen = itemgetter(*(place - 1 for place in places))
    form = "%s".join(literal.replace("%", "%%") for literal in literals)
    return lambda match: form % chosen(match.groups(""))


@dataclass(frozen=True)
class Rename:
    r"""``rename REGEX -> TEMPLATE``: what the expression finds in a name becomes the template.

    Attributes:
        pattern: A regular expression of Python, found anywhere in a name.
        template: What goes there; ``\1`` and ``\g<name>`` are groups.
    """

    pattern: str
    template: str

    def __post_init__(self) -> None:
        """Refuse what does not compile."""
        _compiled(self.pattern, self.template)

    def __str__(self) -> str:
        """Return the statement."""
        return f"rename {_side(self.pattern)} -> {_side(self.template)}"

    def apply(self, catalog: Catalog) -> Change:
        """Give the names; rows and tensors stay as they are."""
        compiled = _compiled(self.pattern, self.template)
        old, sub, fill = catalog.names, compiled.sub, _filler(compiled, self.template)
        names = [sub(fill, name) for name in old]
        pairs = [(a, b) for a, b in zip(old, names, strict=True) if a != b]
        if not pairs:
            found = any(map(compiled.search, old))
            why = "matches, but every name stays as it is" if found else "matches no name"
            msg = f"{self.pattern!r} {why}"
            raise EditError(msg)
        _check_names(old, names)
        changed = dict(catalog.changed)
        if changed:
            moved = [(b, changed.pop(a)) for a, b in pairs if a in changed]
            changed.update(moved)
        result = catalog.replace(names=names, changed=changed)
        return Change(result, tuple(b for _, b in pairs))


def _check_names(old: Sequence[str], new: Sequence[str]) -> None:
    if "" in (unique := set(new)):
        name = old[new.index("")]
        msg = f"{name!r} would have no name left"
        raise EditError(msg, tensor=name)
    if len(unique) == len(new):
        return
    owner: dict[str, str] = {}
    for before, after in zip(old, new, strict=True):
        first = owner.setdefault(after, before)
        if first != before:
            msg = f"{first!r} and {before!r} would both become {after!r}"
            raise EditError(msg, tensor=before)


def _side(text: str) -> str:
    bare = text and text == text.strip() and not text.startswith('"') and "->" not in text
    return text if bare else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _restrict(catalog: Catalog, glob: str, *, keep: bool) -> Change:
    chosen = set(select(catalog, glob))
    mask = [(name in chosen) is keep for name in catalog.names]
    names = list(compress(catalog.names, mask))
    gone = tuple(name for name, kept in zip(catalog.names, mask, strict=True) if not kept)
    lost = set(gone)
    changed = {name: held for name, held in catalog.changed.items() if name not in lost}
    rows = list(compress(catalog.rows, mask))
    return Change(catalog.replace(names=names, rows=rows, changed=changed), gone)


@dataclass(frozen=True)
class Drop:
    """``drop GLOB``: leave tensors out."""

    glob: str

    def __str__(self) -> str:
        """Return the statement."""
        return f"drop {quoted(self.glob)}"

    def apply(self, catalog: Catalog) -> Change:
        """Leave out what matches."""
        return _restrict(catalog, self.glob, keep=False)


@dataclass(frozen=True)
class Keep:
    """``keep GLOB``: leave out all tensors but these."""

    glob: str

    def __str__(self) -> str:
        """Return the statement."""
        return f"keep {quoted(self.glob)}"

    def apply(self, catalog: Catalog) -> Change:
        """Leave out what does not match."""
        return _restrict(catalog, self.glob, keep=True)


@dataclass(frozen=True)
class Copy:
    """``copy NAME -> NAME``: the same tensor under one more name."""

    source: str
    target: str

    def __str__(self) -> str:
        """Return the statement."""
        return f"copy {quoted(self.source)} -> {quoted(self.target)}"

    def apply(self, catalog: Catalog) -> Change:
        """Add a name for the stored bytes, or for the tensor that an edit made."""
        if self.source not in catalog:
            raise no_match(catalog, self.source)
        if self.target in catalog or not self.target:
            msg = f"there is a tensor {self.target!r} already" if self.target else "no name given"
            raise EditError(msg, tensor=self.target)
        changed = dict(catalog.changed)
        if self.source in changed:
            changed[self.target] = changed[self.source]
        names = [*catalog.names, self.target]
        rows = [*catalog.rows, catalog.row(self.source)]
        return Change(catalog.replace(names=names, rows=rows, changed=changed), (self.target,))


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
        changed, added = dict(catalog.changed), []
        for put in self.puts:
            kernel = put.constant
            if put.name in changed or put.name in catalog:
                old = changed.get(put.name) or catalog[put.name]
                changed[put.name] = old.derive(kernel, (), spec=kernel.spec)
            else:
                changed[put.name] = Tensor(kernel.spec, Derived(kernel))
                added.append(put.name)
        touched = tuple(dict.fromkeys(put.name for put in self.puts))
        if not added:
            return Change(catalog.replace(changed=changed), touched)
        names, rows = [*catalog.names, *added], [*catalog.rows, *[-1] * len(added)]
        return Change(catalog.replace(names=names, rows=rows, changed=changed), touched)


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
