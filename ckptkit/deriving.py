"""Putting kernels over the tensors that an edit selects: alike ones together, others one by one."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from ckptkit.bulk import Bulk, as_int64s
from ckptkit.errors import EditError
from ckptkit.globs import PREFIXES, is_glob, no_match, places, select_groups
from ckptkit.lowering import KindError, is_number
from ckptkit.model import DTYPES, TensorSpec
from ckptkit.sizes import counted, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from ckptkit.bulk import Int64s
    from ckptkit.catalog import Catalog
    from ckptkit.kernels import Kernel
    from ckptkit.model import Tensor
    from ckptkit.region import Region

    KernelFor = Callable[[TensorSpec], Kernel | None]

MANY: Final = 2
"""From so many tensors on, those that are alike are derived together."""

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


def derive(
    catalog: Catalog,
    target: str,
    kernel_for: KernelFor,
    parents: tuple[Tensor, ...] = (),
    region: Region | None = None,
) -> Change:
    """Derive every selected tensor; a wildcard passes over those of a kind that does not fit.

    Args:
        catalog: The tensors.
        target: A glob or a name.
        kernel_for: Is asked once for every spec that occurs, and of those that get an elementwise
            kernel without parents once for every dtype; None leaves such tensors alone.
        parents: Further inputs of the kernel.
        region: Which elements it computes.

    Raises:
        EditError: Nothing is selected, or the kernel does not fit.
    """
    chosen = as_int64s(places(catalog, target))
    with _no_collection():
        return _Deriving(catalog, kernel_for, parents, region).apply(chosen)


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


class _Deriving:
    """An edit of values on its way over a catalog."""

    def __init__(
        self,
        catalog: Catalog,
        kernel_for: KernelFor,
        parents: tuple[Tensor, ...],
        region: Region | None,
    ) -> None:
        self._catalog = catalog
        self._kernel_for = kernel_for
        self._parents = parents
        self._region = region
        self._derived: list[Int64s] = []
        self._skipped: list[Int64s] = []
        self._dtypes: set[str] = set()
        self._refusals: list[tuple[int, KindError]] = []

    def apply(self, chosen: Int64s) -> Change:
        """Derive the tensors at some positions, which rise."""
        import numpy as np

        catalog, alone, failure = self._catalog, chosen, None
        if len(chosen) >= MANY and not self._parents and self._region is None:
            plain = catalog.plain()[chosen]
            catalog, others, failure = self._alike(chosen[plain])
            alone = np.sort(np.concatenate([chosen[~plain], others]))
        if failure is not None:
            # One of the others may come before, and fail first.
            self._one_by_one(alone[alone < failure[0]])
            raise failure[1]
        tensors = self._one_by_one(alone)
        if tensors:
            catalog = catalog.with_tensors(tensors)
        skipped = _joined(self._skipped)
        if len(skipped) == len(chosen):
            raise min(self._refusals, key=lambda refusal: refusal[0])[1]
        notes = (self._passed_over(skipped),) if len(skipped) else ()
        return Change(catalog, tuple(_names(catalog, _joined(self._derived))), notes)

    def _alike(self, at: Int64s) -> tuple[Catalog, Int64s, tuple[int, EditError] | None]:
        """Derive plain tensors, those together that have the same recipe.

        Returns:
            The catalog afterwards, where those are whose kernel is for one by one, and the first
            failure with the position that it is about.
        """
        import numpy as np

        catalog = self._catalog
        recipes, which = catalog.recipes(at)
        first = np.full(len(recipes), -1, np.int64)
        first[which[::-1]] = at[::-1]
        number = np.full(len(recipes), -1, np.int32)
        made = [*(catalog.bulk.recipes if catalog.bulk is not None else ())]
        alone, skipped = np.zeros((2, len(recipes)), bool)
        for group in np.argsort(first, kind="stable").tolist():
            position = int(first[group])
            if position < 0:
                continue
            try:
                found = self._plan(catalog.spec_at(position), catalog.names[position])
            except EditError as error:
                return catalog, at[alone[which]], (position, error)
            if isinstance(found, KindError):
                skipped[group] = True
                self._skip(recipes[group].gives, position, found)
            elif found is not None and not found[0].elementwise:
                alone[group] = True
            elif found is not None:
                number[group] = len(made)
                made.append(recipes[group].then(found[0], found[1].dtype))
        self._skipped.append(at[skipped[which]])
        derived = number[which] >= 0
        if derived.any():
            numbers = (catalog.bulk or Bulk.none(len(catalog))).number.copy()
            numbers[at[derived]] = number[which[derived]]
            catalog = catalog.replace(bulk=Bulk(tuple(made), numbers))
            self._derived.append(at[derived])
        return catalog, at[alone[which]], None

    def _one_by_one(self, at: Int64s) -> dict[str, Tensor]:
        """Return what becomes of tensors, by name."""
        import numpy as np

        catalog, parents, region = self._catalog, self._parents, self._region
        known: dict[TensorSpec, tuple[Kernel, TensorSpec] | KindError | None] = {}
        made: dict[str, Tensor] = {}
        derived, skipped = [], []
        for position in at.tolist():
            name, tensor = catalog.names[position], catalog.tensor_at(position)
            spec = tensor.spec
            if spec not in known:
                known[spec] = self._plan(spec, name)
            found = known[spec]
            if isinstance(found, KindError):
                skipped.append(position)
                self._skip(spec.dtype, position, found)
            elif found is not None:
                kernel, new = found
                made[name] = tensor.derive(kernel, (tensor, *parents), spec=new, region=region)
                derived.append(position)
        self._derived.append(np.array(derived, np.int64))
        self._skipped.append(np.array(skipped, np.int64))
        return made

    def _plan(self, spec: TensorSpec, name: str) -> tuple[Kernel, TensorSpec] | KindError | None:
        """Return the kernel for a spec and what it gives, or why there is none."""
        try:
            kernel = self._kernel_for(spec)
            if kernel is None:
                return None
            region = self._region
            shape = spec.shape if region is None else region.resolve(spec.shape).shape
            inputs = [TensorSpec(spec.dtype, shape), *(parent.spec for parent in self._parents)]
            result = kernel.output(inputs)
        except EditError as error:
            failure = type(error)(f"{name!r} ({spec}): {error.message}", tensor=name)
            if isinstance(failure, KindError):
                return failure
            raise failure from error
        return kernel, TensorSpec(result.dtype, spec.shape)

    def _skip(self, dtype: str, position: int, why: KindError) -> None:
        self._dtypes.add(dtype)
        self._refusals.append((position, why))

    def _passed_over(self, skipped: Int64s) -> str:
        catalog = self._catalog
        shown = {
            catalog.names[at]: catalog.spec_at(at).dtype for at in skipped[:SHOWN_NAMES].tolist()
        }
        return _passed_over(shown, len(skipped), self._dtypes)


def _passed_over(shown: Mapping[str, str], count: int, dtypes: Collection[str]) -> str:
    """Say which tensors a wildcard passed over: some names with their dtypes, and how many."""
    kinds = {DTYPES[dtype].kind if is_number(dtype) else "none" for dtype in dtypes}
    if kinds == {"none"}:
        why = "not numbers"
    elif kinds <= {"none", "bool", "int", "uint"}:
        why = "not floating point"
    else:
        why = "not of a kind that it takes"
    names = listed((f"{name} ({dtype})" for name, dtype in shown.items()), count)
    are = "is" if count == 1 else "are"
    return f"passed over {counted(count, 'tensor')} that {are} {why}: {names}"


def derive_each(
    catalog: Catalog, target: str, make: Callable[[Catalog, str, Sequence[str]], Tensor]
) -> Change:
    """Derive every selected tensor by itself; a wildcard passes over those that do not fit.

    Args:
        catalog: The tensors.
        target: A glob or a name.
        make: Gets the catalog, a name, and what the groups of the target stand for in it.

    Raises:
        EditError: Nothing is selected, or a tensor is refused.
    """
    made: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    failure: KindError | None = None
    for name, groups in select_groups(catalog, target):
        spec = catalog.spec(name)
        try:
            made[name] = make(catalog, name, groups)
        except EditError as error:
            failed = type(error)(f"{name!r} ({spec}): {error.message}", tensor=name)
            if not isinstance(failed, KindError):
                raise failed from error
            failure, skipped[name] = failure or failed, spec.dtype
    if failure is not None and not made:
        raise failure
    notes: tuple[str, ...] = ()
    if skipped:
        shown = dict(islice(skipped.items(), SHOWN_NAMES))
        notes = (_passed_over(shown, len(skipped), set(skipped.values())),)
    return Change(catalog.with_tensors(made), tuple(made), notes)


def bound(catalog: Catalog, name: str) -> tuple[Catalog | None, str]:
    """Return the checkpoint that ``NAME:tensor`` is about, and the name in it; None for this one.

    Raises:
        EditError: Neither is there a tensor with that colon in its name, nor such a checkpoint.
    """
    prefix, colon, inner = name.partition(":")
    if not colon or name in catalog or name.startswith(PREFIXES):
        return None, name
    if prefix in catalog.others:
        return catalog.others[prefix], inner
    if is_glob(name):
        return None, name
    error = no_match(catalog, name)
    msg = f"{error.message}; nor is a checkpoint bound to {prefix!r}: --with {prefix}=PATH"
    raise EditError(msg, tensor=name)


def tensor_of(catalog: Catalog, name: str) -> Tensor:
    """Return a tensor of a catalog, or as ``NAME:tensor`` of one that is bound to a name.

    Raises:
        EditError: There is none.
    """
    other, inner = bound(catalog, name)
    origin = catalog if other is None else other
    if inner in origin:
        return origin[inner]
    if inner.startswith(PREFIXES) and not is_glob(inner):
        return origin.tensor_at(places(origin, inner)[0])
    raise no_match(origin, inner)


def _joined(places: Sequence[Int64s]) -> Int64s:
    import numpy as np

    return np.sort(np.concatenate([np.empty(0, np.int64), *places]))


def _names(catalog: Catalog, at: Int64s) -> Iterable[str]:
    names = catalog.names
    return names if len(at) == len(names) else [names[place] for place in at.tolist()]
