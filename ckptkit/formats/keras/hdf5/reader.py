"""Reading the metadata of HDF5 content into a tree, with no library that would follow links."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final, NoReturn

from ckptkit import _native
from ckptkit.errors import CorruptError, UnsupportedError
from ckptkit.formats.keras.hdf5.tree import Dataset, Group, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptkit.formats.keras.hdf5.tree import Layout, Value
    from ckptkit.storage.disk import File

PAGE: Final = 4096
"""Bytes are read in such pages: small beside a tensor, and large beside an object header."""

METADATA: Final = 256 << 20
"""Bytes that the pages with metadata of a file, its paths, or its texts may take, each."""

PATIENCE: Final = 32
"""Rounds of reading after which a quarter of what was read is read ahead; before, a little.

A file of ordinary depth takes some ten rounds; a chain of blocks would take thousands.
"""

LAYOUTS: Final[Sequence[Layout]] = ("contiguous", "chunked", "compact", "unallocated")
GROUP: Final = 0xFF

SIGNED, UNSIGNED, FLOAT, TEXT, TEXTS = range(1, 6)


def read_tree(file: File, start: int, length: int) -> Tree:
    """Read all metadata of the HDF5 content in a byte range of a file.

    The data of tensors are not read, but for what lies in a page with metadata. Opaque elements
    of 1 or 2 bytes of which no attribute says what they are come back as uint8 and uint16: so
    Keras leaves behind float8 and, in older files, bfloat16.

    Raises:
        CorruptError: It is damaged, or contradicts itself or the range.
        UnsupportedError: It holds what no weights are, or leads out of the file.
    """
    windows = array("q")
    content = bytearray()
    pages: set[int] = set()
    rounds = 0
    while True:
        try:
            needs, columns = _native.hdf5_scan(content, windows, length, METADATA)
        except _native.DecodeError as error:
            _refuse(error, file.path, start)
        if columns is not None:
            return _tree(columns)
        wanted = memoryview(needs).cast("q")
        ahead = len(content) // (32 if rounds < PATIENCE else 4) // (len(wanted) // 2)
        runs = list(_runs(wanted, ahead, length, pages))
        if PAGE * len(pages) > METADATA:
            msg = f"metadata lies in more than {METADATA} bytes of the file, which is not read"
            raise UnsupportedError(msg, path=file.path, offset=start + runs[0][0])
        for low, high in runs:
            content += file.read(start + low, high - low)
            windows.extend((low, high - low))
        rounds += 1


def _runs(needs: memoryview, ahead: int, length: int, pages: set[int]) -> Iterator[tuple[int, int]]:
    """Give the byte ranges of wanted pages that are not there yet, and count them as there."""
    wanted = set[int]()
    for offset, count in zip(needs[::2], needs[1::2], strict=True):
        end = min(offset + count + ahead, length)
        wanted.update(range(offset // PAGE, -(-end // PAGE)))
    wanted -= pages
    pages |= wanted
    first = last = -1
    for page in sorted(wanted):
        if page == last + 1 and first >= 0:
            last = page
            continue
        if first >= 0:
            yield first * PAGE, min((last + 1) * PAGE, length)
        first = last = page
    if first >= 0:
        yield first * PAGE, min((last + 1) * PAGE, length)


def _refuse(error: _native.DecodeError, path: str, start: int) -> NoReturn:
    """Raise the error for what was found in the content."""
    name = error.name.decode("utf-8", "surrogateescape")
    kind = UnsupportedError if error.unsupported else CorruptError
    raise kind(error.message, path=path, tensor=name or None, offset=start + error.offset) from None


def _slices(ends: bytes) -> Iterator[slice]:
    """Give the rows of a list column by the ends of its lists."""
    first = 0
    for last in memoryview(ends).cast("q"):
        yield slice(first, last)
        first = last


def _tree(columns: _native.Hdf5Columns) -> Tree:
    """Turn columns into values."""
    (paths, numbers), objects, lists, attributes, metadata, end = columns
    addresses, dtypes, big, layouts, *sizes = objects
    offsets, nbytes, stored = (memoryview(column).cast("q") for column in sizes)
    dims, dim_ends, filters, filter_ends, links, link_ends = lists
    shapes = [tuple(memoryview(dims).cast("q")[rows]) for rows in _slices(dim_ends)]
    pipelines = [tuple(memoryview(filters).cast("q")[rows]) for rows in _slices(filter_ends)]
    names = _native.names_decode(*links)
    link_rows = list(_slices(link_ends))
    values = _values(attributes)
    place = memoryview(addresses).cast("q")
    groups: dict[str, Group] = {}
    datasets: dict[str, Dataset] = {}
    for path, at in zip(_native.names_decode(*paths), memoryview(numbers).cast("q"), strict=True):
        if layouts[at] == GROUP:
            groups[path] = Group(path, tuple(names[link_rows[at]]), place[at], values[at])
            continue
        datasets[path] = Dataset(
            path,
            dtypes[at],
            "big" if big[at] else "little",
            shapes[at],
            LAYOUTS[layouts[at]],
            offsets[at],
            nbytes[at],
            stored[at],
            pipelines[at],
            place[at],
            values[at],
        )
    ranges = iter(memoryview(metadata).cast("q"))
    return Tree(groups, datasets, tuple(zip(ranges, ranges, strict=True)), end)


def _values(columns: _native.Hdf5Attributes) -> list[Mapping[str, Value]]:
    """Turn the columns of attributes into a mapping for each object."""
    names, ends, sorts, bits, texts, text_ends = columns
    named = _native.names_decode(*names)
    words = _native.names_decode(*texts)
    signed, unsigned = memoryview(bits).cast("q"), memoryview(bits).cast("Q")
    floats = memoryview(bits).cast("d")
    found: list[Value] = []
    for at, (sort, rows) in enumerate(zip(sorts, _slices(text_ends), strict=True)):
        value: Value = None
        if sort == SIGNED:
            value = signed[at]
        elif sort == UNSIGNED:
            value = unsigned[at]
        elif sort == FLOAT:
            value = floats[at]
        elif sort == TEXT:
            value = words[rows.start]
        elif sort == TEXTS:
            value = tuple(words[rows])
        found.append(value)
    return [dict(zip(named[rows], found[rows], strict=True)) for rows in _slices(ends)]
