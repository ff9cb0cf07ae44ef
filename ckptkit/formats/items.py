"""The stored runs of a catalog, as columns, with the place where each of them stood before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from ckptkit.bulk import as_int64s
from ckptkit.errors import UnsupportedError
from ckptkit.kernels import Constant
from ckptkit.model import Derived, Stored, Tensor, TensorSpec
from ckptkit.placement import Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.placement import Int64s
    from ckptkit.region import Box

NEW: Final = np.iinfo(np.int64).max
"""Where a tensor that was not there before is sorted: after all others."""


@dataclass(frozen=True, slots=True)
class Holds:
    """What a format can hold.

    Attributes:
        what: How a message calls a checkpoint of it.
        dtypes: The dtypes.
        encode: Returns the stored bytes of strings or variants, for a byte order.
    """

    what: str
    dtypes: Container[str]
    encode: Callable[[Sequence[bytes], TensorSpec, str], bytes] | None = None


class _Item(NamedTuple):
    """One stored run of the new checkpoint that is more than a row of the old one."""

    tensor: int
    part: int
    row: int
    size: int
    derived: bool
    payload: bytes | memoryview | None = None


class Items:
    """All stored runs of a catalog, as columns, with the place where each stood before."""

    def __init__(self, catalog: Catalog, holds: Holds) -> None:
        """Collect rows, and what recipes make of rows, at array speed, and others one by one.

        Raises:
            UnsupportedError: A tensor is of a dtype that the format cannot hold.
        """
        columns = catalog.columns
        rows = as_int64s(catalog.rows)
        plain = catalog.plain()
        several = [
            item for at in np.flatnonzero(~plain).tolist() for item in _items_of(catalog, at, holds)
        ]
        number, sizes = _from_recipes(catalog, plain, rows, holds)
        # What is new goes behind what is carried over, in the order of the names.
        carried, made = np.flatnonzero(plain & (number < 0)), np.flatnonzero(plain & (number >= 0))
        base, places = len(carried), np.array([item.tensor for item in several], np.int64)
        order = np.argsort(np.concatenate([made, places]), kind="stable") if several else None

        def column(of_rows: Int64s, of_several: list[int]) -> Int64s:
            later = np.concatenate([of_rows[made], np.array(of_several, np.int64)])
            return np.concatenate([of_rows[carried], later if order is None else later[order]])

        place = np.empty(len(made) + len(several), np.int64)
        place[slice(None) if order is None else order] = np.arange(base, base + len(place))
        self.payloads: dict[int, bytes | memoryview] = {
            at: item.payload
            for at, item in zip(place[len(made) :].tolist(), several, strict=True)
            if item.payload is not None
        }
        none = np.zeros(len(rows), np.int64)
        self.tensor = column(np.arange(len(rows)), [item.tensor for item in several])
        self.part = column(none, [item.part for item in several])
        self.row = column(rows, [item.row for item in several])
        derived = column(number + 1, [item.derived for item in several]) > 0
        known = self.row >= 0
        at_row = np.where(known, self.row, 0)
        self.size = column(sizes, [item.size for item in several])
        self.old_shard = _take(columns.shard, at_row, known, NEW)
        self.old_offset = _take(columns.offset, at_row, known, NEW)
        self.checksum = _take(columns.checksum, at_row, known, 0).astype(np.uint32)
        self.files = tuple(columns.files.values())
        numbers = np.fromiter(columns.files, np.int64, len(columns.files))
        file = np.searchsorted(numbers, self.old_shard)
        self.source = np.where(derived, -1, file)

    def placed(
        self,
        order: Int64s,
        shard: Int64s,
        offset: Int64s,
        stays: NDArray[np.bool_] | None = None,
        *,
        source_files: tuple[str, ...] | None = None,
        **files: Any,
    ) -> Placement:
        """Return a placement of items.

        Args:
            order: The items, in the order of their bytes.
            shard: Which file each of them goes to.
            offset: Where in it, in bytes.
            stays: Which of them are there already; none by default.
            source_files: Where unchanged bytes come from: the old files, and further ones.
            files: What a placement says besides of files.
        """
        place = {int(at): new for new, at in enumerate(order)} if self.payloads else {}
        source = self.source[order]
        return Placement(
            tensor=self.tensor[order],
            part=self.part[order],
            row=self.row[order],
            shard=shard,
            offset=offset,
            size=self.size[order],
            source_files=self.files if source_files is None else source_files,
            source_file=source,
            source_offset=np.where(source < 0, 0, self.old_offset[order]),
            stays=np.zeros(len(order), bool) if stays is None else stays,
            checksum=self.checksum[order],
            payloads={place[at]: payload for at, payload in self.payloads.items()},
            **files,
        )


def _from_recipes(
    catalog: Catalog, plain: NDArray[np.bool_], rows: Int64s, holds: Holds
) -> tuple[Int64s, Int64s]:
    """Return for every position the number of its recipe, -1 for none, and the bytes it takes.

    Raises:
        UnsupportedError: A recipe gives what the format cannot hold.
    """
    number, sizes = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.int64)
    if len(catalog.columns):
        sizes[plain] = np.asarray(catalog.columns.size)[rows[plain]]
    if catalog.bulk is None:
        return number, sizes
    number[:] = catalog.bulk.number
    made = catalog.bulk.at()
    width = np.ones((2, len(catalog.bulk.recipes)), np.int64)
    for at in np.unique(number[made]).tolist():
        recipe = catalog.bulk.recipes[at]
        if recipe.gives not in holds.dtypes:
            name = catalog.names[int(np.flatnonzero(number == at)[0])]
            raise _cannot_hold(recipe.gives, name, holds)
        width[:, at] = [TensorSpec(dtype, ()).itemsize for dtype in (recipe.takes, recipe.gives)]
    before, after = width[:, number[made]]
    sizes[made] = sizes[made] // before * after
    return number, sizes


def _cannot_hold(dtype: str, name: str, holds: Holds) -> UnsupportedError:
    msg = f"{holds.what} cannot hold {dtype}"
    return UnsupportedError(msg, tensor=name)


def _take(column: memoryview, at: Int64s, known: np.ndarray, default: int) -> Int64s:
    if not len(column):
        return np.full(len(at), default, np.int64)
    return np.where(known, np.asarray(column).astype(np.int64)[at], default)


def _items_of(catalog: Catalog, at: int, holds: Holds) -> Iterator[_Item]:
    """Yield the stored runs of one tensor that is changed, or in slices."""
    name, row = catalog.names[at], catalog.rows[at]
    tensor = catalog.single.get(name)
    slices = catalog.columns.parts.get(row, ())
    if tensor is None:
        for part, (_, slice_row) in enumerate(slices):
            yield _Item(at, part, slice_row, catalog.columns.size[slice_row], derived=False)
        return
    if tensor.spec.dtype not in holds.dtypes:
        raise _cannot_hold(tensor.spec.dtype, name, holds)
    if not slices and _is_row(catalog, tensor, row):
        yield _Item(at, 0, row, catalog.columns.size[row], derived=False)
        return
    old = [slice_row for _, slice_row in slices]
    if tensor.boxes != tuple(box for box, _ in slices):
        old = [row] * len(tensor.boxes)
    for part, box in enumerate(tensor.boxes):
        payload = _payload(tensor, box, catalog.columns.byteorder, holds)
        size = box.count * tensor.spec.itemsize if payload is None else len(payload)
        yield _Item(at, part, old[part], size, derived=True, payload=payload)


def _is_row(catalog: Catalog, tensor: Tensor, row: int) -> bool:
    """Tell whether a tensor is the bytes of a row, of which the index says something else."""
    if row < 0 or not isinstance(tensor.source, Stored):
        return False
    whole = catalog.columns.tensor(row).source
    extents = [piece.extent for piece in tensor.source.pieces]
    return isinstance(whole, Stored) and extents == [piece.extent for piece in whole.pieces]


def _payload(tensor: Tensor, box: Box, byteorder: str, holds: Holds) -> bytes | memoryview | None:
    """Return the stored bytes of a piece whose values are given, None where they are computed."""
    kernel = tensor.source.kernel if isinstance(tensor.source, Derived) else None
    if not isinstance(kernel, Constant):
        return None
    if tensor.spec.kind in {"string", "variant"}:
        elements = kernel.elements
        if box.shape != tensor.spec.shape:
            elements = tuple(kernel.array()[box.slices()].ravel())
        if holds.encode is None:
            raise _cannot_hold(tensor.spec.dtype, "", holds)
        return holds.encode(elements, tensor.spec, byteorder)
    # The engine makes blocks of numbers in slices, and of those for the other byte order.
    whole = box.shape == tensor.spec.shape and byteorder == "little"
    return kernel.payload if whole else None
