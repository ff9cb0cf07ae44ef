"""Where tensors go: the wish (:class:`Target`) and the answer (:class:`Placement`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ckptkit.errors import EditError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """

    shards: int | None = None
    max_shard_bytes: int | None = None
    rules: tuple[str, ...] = ()

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


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Placement:
    """Where every stored run of a catalog goes: one item per tensor, or per piece of one.

    Items are in the order of their bytes: by shard, then by offset. Those that are written to a
    place of their own have no gaps between them.

    Attributes:
        files: Path of every data file, by shard.
        file_sizes: Length of every data file in bytes.
        bases: The file that a data file is already, or is to be a hard link to; None for a new
            one.
        index: Path of the file whose appearance makes the checkpoint.
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

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.size)
