"""Where tensors go: the wish (:class:`Target`) and the answer (:class:`Placement`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from ckptkit.errors import EditError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]

Way = Literal["copy", "link", "append", "patch"]
"""How a checkpoint is written: all of it anew; beside hard links to the old shards; at the end of
a shard; or where its bytes are."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a new checkpoint is cut into shards; by default as the old one is.

    Attributes:
        shards: This many, of about equal size.
        max_shard_bytes: As few as it takes for none to be larger than this; a tensor that is
            larger has a shard to itself.
        rules: One shard for each glob, in order, and one for what matches none.
        contiguous: Tensors that are stored in chunks, compressed or not, become single runs of
            bytes; else those that are not edited stay as they are stored.
        names: Objects get the names that they lack, as far as they can be told from elsewhere.
    """

    shards: int | None = None
    max_shard_bytes: int | None = None
    rules: tuple[str, ...] = ()
    contiguous: bool = False
    names: bool = False

    def __post_init__(self) -> None:
        """Refuse contradictions.

        Raises:
            EditError: More than one wish, or a number below 1.
        """
        wishes = (self.shards is not None) + (self.max_shard_bytes is not None) + bool(self.rules)
        if wishes > 1:
            msg = "choose one of: a number of shards, a largest shard, rules"
            raise EditError(msg)
        for number in (self.shards, self.max_shard_bytes):
            if number is not None and number < 1:
                msg = f"a layout needs a number above 0, not {number}"
                raise EditError(msg)


@dataclass(frozen=True, slots=True)
class Target:
    """Where an edited checkpoint is to be, and how it gets there.

    Attributes:
        path: What its files will have in common, or the folder that it will be as a whole.
        how: The way of writing.
        in_place: It takes the place of the one that is edited.
        layout: How to cut shards, where all of them are written anew.
    """

    path: str
    how: Way = "copy"
    in_place: bool = False
    layout: Layout = field(default_factory=Layout)


class Carried(NamedTuple):
    """Bytes that belong to no tensor, and are copied as they are; places are in bytes.

    Attributes:
        source_file: Which of the placement's source files they come from.
        source_offset: Where in it.
        shard: Which of its data files they go to.
        offset: Where in it.
        size: How many.
    """

    source_file: int
    source_offset: int
    shard: int
    offset: int
    size: int


class Given(NamedTuple):
    """Bytes that belong to no tensor, and are known beforehand.

    Attributes:
        shard: Which data file they go to.
        offset: Where in it, in bytes.
        content: The bytes.
    """

    shard: int
    offset: int
    content: bytes


class Span(NamedTuple):
    """A byte range of a data file that has a CRC-32 as a whole, whatever tensors are in it.

    Attributes:
        shard: Which data file.
        offset, size: The range, in bytes.
        checksum: What it was before, where all but some items stays as it was; None where it has
            to be read to be known.
        base: The file in which the range is as it was before, where that is another one.
    """

    shard: int
    offset: int
    size: int
    checksum: int | None = None
    base: str | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """The metadata of a checkpoint that is complete otherwise.

    Attributes:
        files: Contents of files that are metadata as a whole, by path; what commits is the last.
        splices: By path of a data file, what is in it besides tensors: offsets and bytes.
    """

    files: Mapping[str, bytes]
    splices: Mapping[str, tuple[tuple[int, bytes], ...]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        spliced = (len(new) for splices in self.splices.values() for _, new in splices)
        return sum(map(len, self.files.values())) + sum(spliced)


class Finish(Protocol):
    """Makes the metadata of a checkpoint from the checksums of its spans."""

    def __call__(self, sums: Sequence[int]) -> Sealed:
        """Return it."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Placement:
    """Where every stored run of a catalog goes: one item per tensor, or per piece of one.

    Items are in the order of their bytes: by shard, then by offset.

    Attributes:
        files: Path of every data file, by shard.
        file_sizes: Length of every data file in bytes.
        bases: The file that a data file is already, or is to be a hard link to; None for a new
            one.
        index: Path of the file whose appearance makes the checkpoint; it may be a data file.
        tensor: int64, position of the item's tensor in the catalog.
        part: int64, which piece of the tensor.
        row: int64, the row of the source columns that the item comes from, -1 if none.
        shard, offset, size: int64, the place, in bytes.
        source_files: Path of the files that unchanged bytes come from.
        source_file: int64, which of them; -1 where the bytes are computed or given.
        source_offset: int64, where in it, in bytes.
        stays: bool, the bytes of the item are in the data file already.
        checksum: uint32, as it is in the source; only meaningful for unchanged items.
        payloads: Encoded bytes of the items whose values are given, by item.
        folder: The folder that is published as a whole, if that is how it is done.
        companions: Files beside the tensors that are copied as they are: from, to.
        template: Path of the index that the new one repeats, where nothing was edited.
        carried: Bytes around the tensors that are copied.
        given: Bytes around the tensors that are known; they are written before those of tensors.
        spans: What has checksums; None for every item by itself, with a CRC-32C.
        state: Offset and length of the parts of the index that say in which state a checkpoint
            that is edited in place is; none for all of it.
        finish: What the format needs to seal this very placement, if it made some of that already.
    """

    files: tuple[str, ...]
    file_sizes: tuple[int, ...]
    bases: tuple[str | None, ...]
    index: str
    tensor: Int64s
    part: Int64s
    row: Int64s
    shard: Int64s
    offset: Int64s
    size: Int64s
    source_files: tuple[str, ...]
    source_file: Int64s
    source_offset: Int64s
    stays: NDArray[np.bool_]
    checksum: NDArray[np.uint32]
    payloads: Mapping[int, bytes | memoryview] = field(default_factory=dict)
    folder: str | None = None
    companions: tuple[tuple[str, str], ...] = ()
    template: str | None = None
    carried: tuple[Carried, ...] = ()
    given: tuple[Given, ...] = ()
    spans: tuple[Span, ...] | None = None
    state: tuple[tuple[int, int], ...] = ()
    finish: Finish | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.size)
