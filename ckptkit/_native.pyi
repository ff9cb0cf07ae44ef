"""Contract of the native core: pure functions of buffers.

Every function takes any one-dimensional contiguous buffer (`bytes`, `bytearray`, `memoryview`, a
NumPy array), releases the GIL while it works, and may be called from several threads at once. A
buffer must not be written to while a call reads it.

Columns. A column of byte strings is two buffers: all strings joined, and the end of each as int64.
A column of numbers is one buffer of native integers; as an argument it may also be plain bytes.
Columns come back as `bytes`, for `memoryview(...).cast("q")` or `numpy.frombuffer`.

Errors. Bytes that break the format raise `DecodeError`; arguments that no call can have (wrong
item size, lengths that disagree, a buffer of two dimensions) raise `ValueError`; an integer that
does not fit its machine type raises `OverflowError`.
"""

from collections.abc import Buffer, Sequence
from typing import Any, Final, TypeAlias

from numpy.typing import NDArray

_Buffer: TypeAlias = Buffer | NDArray[Any]  # NumPy declares its buffers only from Python 3.12 on.

__all__ = [
    "DecodeError",
    "__debug_build__",
    "crc32",
    "crc32_combine",
    "crc32_patch",
    "crc32_patch_runs",
    "crc32c",
    "crc32c_combine",
    "crc32c_mask",
    "crc32c_patch",
    "crc32c_patch_runs",
    "crc32c_segments",
    "crc32c_unmask",
    "crc32c_unmask_column",
    "entries_check",
    "entries_decode",
    "entries_encode",
    "entries_salvage",
    "entry_encode",
    "entry_respec",
    "entry_slices",
    "entry_slices_encode",
    "fields_scan",
    "fingerprint64",
    "graph_decode",
    "graph_holders",
    "graph_reach",
    "graph_splice",
    "graph_tree",
    "hdf5_scan",
    "header_decode",
    "header_encode",
    "header_splice",
    "keys_hashed",
    "keys_order",
    "names_decode",
    "names_encode",
    "philox",
    "power_sum",
    "radix_count",
    "radix_value",
    "shapes_decode",
    "slice_key",
    "slice_key_decode",
    "snappy_decompress",
    "strings_decode",
    "strings_encode",
    "strings_scan",
    "table_decode",
    "table_encode",
    "table_salvage",
    "table_warnings",
    "variants_decode",
    "variants_encode",
    "varints_decode",
    "varints_skip",
    "zip_descriptor",
    "zip_directory",
    "zip_end",
    "zip_local",
]

__debug_build__: Final[bool]
"""Whether the extension was built without optimisation."""

class DecodeError(ValueError):
    """Bytes that are not what the format prescribes.

    For decoders of many records the offset is in the joined buffer.
    """

    message: str
    """What was expected and what was found."""
    offset: int
    """Where: a byte offset in the buffer given to the decoder; of `hdf5_scan` in the whole."""
    unsupported: bool
    """Whether the bytes are sound, but ask for what is not done. Of `hdf5_scan` alone."""
    name: bytes
    """The path of the object that it is about, if any. Of `hdf5_scan` alone."""

# --- checksums ---------------------------------------------------------------------------------

def crc32c(data: _Buffer, value: int = 0) -> int:
    """Continue the CRC-32C `value` over `data`; 0 starts."""

def crc32(data: _Buffer, value: int = 0) -> int:
    """Continue the CRC-32 (ISO-HDLC, as in zip) `value` over `data`; 0 starts."""

def crc32c_combine(first: int, second: int, second_length: int) -> int:
    """Return the CRC-32C of two parts from the CRC of each and the length of the second."""

def crc32_combine(first: int, second: int, second_length: int) -> int:
    """Return the CRC-32 of two parts from the CRC of each and the length of the second."""

def crc32c_patch(value: int, old: _Buffer, new: _Buffer, tail: int) -> int:
    """Return the CRC-32C of a whole after some of its bytes were replaced.

    Args:
        value: CRC-32C of the whole before.
        old: the bytes that were replaced.
        new: the bytes that replaced them, as many.
        tail: how many bytes come after them in the whole.

    Raises:
        ValueError: `old` and `new` differ in length.
    """

def crc32c_patch_runs(value: int, old: _Buffer, new: _Buffer, width: int, tails: _Buffer) -> int:
    """Return the CRC-32C of a whole after runs of `width` bytes each were replaced.

    Args:
        value: CRC-32C of the whole before.
        old: the bytes that were replaced, all runs joined.
        new: the bytes that replaced them, as many.
        width: bytes of each run, above 0.
        tails: int64, how many bytes of the whole come after each run; strictly falling by at least
            `width`.

    Raises:
        ValueError: the lengths do not agree, or the tails do not fall.
    """

def crc32_patch(value: int, old: _Buffer, new: _Buffer, tail: int) -> int:
    """Return the CRC-32 of a whole after some of its bytes were replaced; see `crc32c_patch`."""

def crc32_patch_runs(value: int, old: _Buffer, new: _Buffer, width: int, tails: _Buffer) -> int:
    """Return the CRC-32 of a whole after runs were replaced; see `crc32c_patch_runs`."""

def crc32c_segments(data: _Buffer, ends: _Buffer) -> bytes:
    """Return the CRC-32C of each consecutive segment of `data`, as uint32.

    Args:
        data: all segments, joined.
        ends: int64 end of each; none decreases, the last is at most `len(data)`.
    """

def crc32c_mask(crc: int) -> int:
    """Return the form in which a CRC-32C is stored beside the bytes that it covers."""

def crc32c_unmask(masked: int) -> int:
    """Invert `crc32c_mask`."""

def crc32c_unmask_column(masked: _Buffer) -> bytes:
    """Undo the masking of each uint32 of a column."""

def fingerprint64(data: _Buffer) -> int:
    """Return FarmHash Fingerprint64, by which a SavedModel names its variables index."""

# --- tables ------------------------------------------------------------------------------------

def table_decode(index: _Buffer, limit: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Decode and validate a whole table, the index file of a checkpoint.

    Args:
        index: the file.
        limit: cap on the bytes of all keys and values together.

    Returns:
        keys, their ends (int64), values, their ends (int64); keys strictly increase.

    Raises:
        DecodeError: at the first malformation, or where `limit` would be passed.
    """

def table_salvage(
    index: _Buffer, limit: int
) -> tuple[bytes, bytes, bytes, bytes, bytes, list[tuple[int, int, str, str]], bool]:
    """Read a damaged table as far as it goes; never raises `DecodeError`.

    Blocks that the index block does not name are looked for. A byte of a block is put right where
    that makes its checksum hold and everything in it be in order.

    Args:
        index: the file.
        limit: cap on the bytes of all keys and values together; further ones are left out.

    Returns:
        keys, their ends (int64), values, their ends (int64), for each the number of its region
        (int64); the regions: start, end, state, and what is wrong; whether the end of the table is
        there, so that no block can be missing behind the last region. Keys are in the order of the
        file, and one may be there twice. States: `good`; `repaired`, a byte was put right;
        `doubtful`, the checksum does not hold; `lost`, nothing parses; `directory`, damage to what
        only says where blocks are.
    """

def table_warnings(index: _Buffer) -> list[tuple[int, str]]:
    """Return what `table_decode` accepts but no writer produces: (offset, message), by offset.

    A metaindex block that is malformed or not empty, footer padding that is not zero, bytes that
    belong to no block, and the first number that takes more bytes than it needs.

    Raises:
        DecodeError: the footer, the index block, or what is around the records of another block is
            malformed.
    """

def table_encode(keys: _Buffer, key_ends: _Buffer, values: _Buffer, value_ends: _Buffer) -> bytes:
    """Encode a table, byte for byte as TensorFlow does.

    Raises:
        ValueError: keys do not strictly increase, or the columns differ in length.
    """

def keys_order(keys: _Buffer, key_ends: _Buffer) -> bytes:
    """Return the row numbers (int64) of the keys in unsigned byte order, stably."""

def keys_hashed(keys: _Buffer, key_ends: _Buffer) -> bytes:
    """Return the row numbers (int64) of distinct keys as a hash map of GNU's C++ library has them.

    That is the order in which a `std::unordered_map` lists keys that were inserted one by one, in
    the order of the rows; and so it is that of TensorFlow's maps on Linux.
    """

def names_decode(keys: _Buffer, key_ends: _Buffer, first: int = 0) -> list[str]:
    """Decode keys from row `first` on as UTF-8; bytes that are not become lone surrogates."""

def names_encode(names: list[str]) -> tuple[bytes, bytes]:
    """Invert `names_decode`: the joined keys and their ends (int64).

    Raises:
        UnicodeEncodeError: a name has a surrogate that stands for no byte.
    """

def snappy_decompress(data: _Buffer, limit: int) -> bytes:
    """Decompress a raw Snappy block of at most `limit` decoded bytes."""

# --- index records -----------------------------------------------------------------------------

def header_decode(value: _Buffer) -> tuple[int, int, int, int, list[int]]:
    """Decode a BundleHeaderProto; unknown fields are skipped.

    Returns:
        num_shards, endianness, producer, min_consumer, bad_consumers.
    """

def header_encode(num_shards: int) -> bytes:
    """Encode the header that TensorFlow writes."""

def header_splice(value: _Buffer, num_shards: int) -> bytes:
    """Return the same header with another shard count, every other byte kept."""

_Columns: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]

def entries_decode(values: _Buffer, value_ends: _Buffer, first: int = 0) -> _Columns:
    """Decode BundleEntryProto records from row `first` on.

    Returns:
        dtype (int32), dim_ends (int64), dims (int64, all rows joined), shard (int32), offset
        (int64), size (int64), crc (uint32, masked as stored, 0 if absent), flags (uint8).
        Flags: 1 has slices, 2 has a checksum, 4 has unknown fields at any depth.

    Raises:
        DecodeError: a record is malformed, negative where it cannot be, or has an impossible shape.
    """

def entries_salvage(values: _Buffer, value_ends: _Buffer) -> tuple[_Columns, list[tuple[int, str]]]:
    """Decode what `entries_decode` does, malformed records too, as zeros with the flag 8.

    Returns:
        The columns of `entries_decode`; row and message of each malformed record.
    """

def entries_encode(
    values: _Buffer,
    value_ends: _Buffer,
    rows: _Buffer,
    shard: _Buffer,
    offset: _Buffer,
    size: _Buffer,
    crc: _Buffer,
) -> tuple[bytes, bytes]:
    """Make records from template records, with other places.

    Output row i is `values[rows[i]]` with its four place fields set. A field that is equal already
    is kept verbatim; one that differs is replaced where it is, inserted by its number if absent,
    removed if it is 0 now; every other byte is kept. A size of -1 takes the template verbatim.

    Args:
        values: template records, joined.
        value_ends: int64 end of each.
        rows: int64 template row of each output row.
        shard: int32 number of the data file.
        offset: int64 offset in it.
        size: int64 size in it, or -1.
        crc: uint32 masked checksum.

    Returns:
        The records, joined, and their ends (int64).
    """

def entries_check(
    dtype: _Buffer,
    dim_ends: _Buffer,
    dims: _Buffer,
    shard: _Buffer,
    offset: _Buffer,
    size: _Buffer,
    flags: _Buffer,
    items: Sequence[int],
    shards: Sequence[tuple[int, int]],
    most: int,
) -> list[tuple[int, str]]:
    """Find the rows that contradict their dtype and shape, or point beyond their shard.

    Args:
        dtype, dim_ends, dims, shard, offset, size, flags: columns as `entries_decode` gives them.
        items: stored bytes per element by dtype number; 0 for unknown, -1 for strings, -2 for
            variants.
        shards: number and length of each shard, ordered by number.
        most: how many rows to find at most.

    Returns:
        Rows and what is wrong with them, in order.
    """

def shapes_decode(dims: Buffer, dim_ends: Buffer) -> list[tuple[int, ...]]:
    """Return the shape of each row of columns of dims (int64) and their ends (int64)."""

def entry_slices(value: _Buffer) -> list[list[tuple[int, int]]]:
    """Return the slices that an entry lists: (start, length) a dimension, (0, -1) if full."""

def entry_encode(dtype: int, dims: Sequence[int]) -> bytes:
    """Encode an entry with only dtype and shape, for use as a template."""

def entry_slices_encode(
    dtype: int, dims: Sequence[int], slices: Sequence[Sequence[tuple[int, int]]]
) -> bytes:
    """Encode the full entry of a sliced tensor."""

def entry_respec(value: _Buffer, dtype: int, dims: Sequence[int]) -> bytes:
    """Return the same entry with another dtype and shape, every other byte kept.

    The list of slices is dropped if the shape differs.
    """

def slice_key(name: _Buffer, slices: Sequence[tuple[int, int]]) -> bytes:
    """Return the key of a slice entry."""

def slice_key_decode(key: _Buffer) -> tuple[bytes, list[tuple[int, int]]]:
    """Invert `slice_key`; accepts only what it produces."""

# --- payloads ----------------------------------------------------------------------------------

def strings_scan(
    data: _Buffer, remaining: int, crc: int, big_endian: bool
) -> tuple[int, int, int, int]:
    """Read the next lengths of a string tensor; stops before a varint cut by the end of `data`.

    Args:
        data: bytes of the payload from the next length on.
        remaining: how many lengths to read at most.
        crc: checksum of the lengths before; 0 starts.
        big_endian: byte order of the machine that wrote the checkpoint.

    Returns:
        Bytes consumed, lengths read, the sum of these lengths, checksum of all lengths so far.
    """

def strings_decode(data: _Buffer, count: int, big_endian: bool) -> tuple[int, bytes, int]:
    """Decode and validate a whole string payload.

    Returns:
        Header size, ends (int64) from the end of the header, checksum of the tensor, not masked.
    """

def strings_encode(lengths: _Buffer, big_endian: bool = False) -> tuple[bytes, int]:
    """Encode the header of a string payload.

    Args:
        lengths: int64 length of each string.
        big_endian: byte order of the machine that wrote the checkpoint.

    Returns:
        The header, and the checksum after it, to be continued over all strings.
    """

def variants_decode(data: _Buffer, count: int) -> tuple[bytes, int]:
    """Decode and validate a whole variant payload.

    Returns:
        Start and end (int64) of each message in turn, checksum of the tensor, not masked.
    """

def variants_encode(payload: _Buffer, ends: _Buffer) -> tuple[bytes, int]:
    """Encode messages, joined in `payload`, as a variant payload.

    Returns:
        The payload, and the checksum of the tensor, not masked.
    """

# --- object graphs -----------------------------------------------------------------------------

_Edges: TypeAlias = tuple[bytes, bytes, bytes, list[str]]
_Attributes: TypeAlias = tuple[bytes, bytes, list[str], list[str], list[str]]
_Slots: TypeAlias = tuple[bytes, bytes, bytes, list[str], bytes]

def graph_decode(data: _Buffer) -> tuple[bytes, _Edges, _Attributes, _Slots]:
    """Decode and validate a `TrackableObjectGraph`.

    Returns:
        A byte of flags per node (1: a registered saver has it, 2: it says whether it has values,
        4: it says that it has); ends by node, parent, child (int32) and name of children; ends by
        node, node (int32), name, full name and key of attributes; ends by node, optimizer,
        original (int32), name and variable (int32) of slot variables.

    Raises:
        DecodeError: The message is malformed, refers to a node that it lacks, or has more than
            2^24 nodes and references.
    """

def graph_tree(edge_ends: _Buffer, edge_child: _Buffer) -> bytes:
    """Return for each node the edge (int32) by which a breadth-first walk reaches it, or -1.

    Raises:
        ValueError: The columns are not those of a graph.
    """

def graph_holders(edge_ends: _Buffer, edge_child: _Buffer, holders: _Buffer) -> bytes:
    """Return a byte per node: whether it, or one that it leads to, is a holder.

    Args:
        edge_ends, edge_child: columns of `graph_decode`.
        holders: a byte per node, 0 for those that are none.

    Raises:
        ValueError: The columns are not those of a graph.
    """

def graph_reach(
    edge_ends: _Buffer, edge_child: _Buffer, edge_name: list[str], glob: str, grouped: bool
) -> bytes:
    """Return a byte per node: whether a glob matches one of the paths to it from node 0.

    Local names are escaped (`.` as `..`, `/` as `.S`) and joined by `/`; `?` and `*` stay within
    one, `**` goes across, and `**/` stands for nothing as well.

    Args:
        edge_ends, edge_child, edge_name: columns of `graph_decode`.
        glob: the glob.
        grouped: parentheses in it stand for nothing.

    Raises:
        ValueError: The columns are not those of a graph.
    """

def graph_splice(
    data: _Buffer,
    children: list[tuple[int, str | None]],
    attributes: list[tuple[int, tuple[str | None, str | None] | None]],
    slots: list[int],
    added_children: list[tuple[int, int, str]],
    added_attributes: list[tuple[int, str, str, str]],
    added_slots: list[tuple[int, int, str, int]],
    values: list[tuple[int, bool]],
    nodes: int,
) -> bytes:
    """Change a `TrackableObjectGraph`; what is not changed stays byte for byte.

    Args:
        data: the message.
        children: numbers of children, and other names; None leaves one out.
        attributes: numbers of attributes, and full name and key where they are other ones; None
            leaves one out.
        slots: numbers of slot variables that are left out.
        added_children: parent, child, and name.
        added_attributes: node, name, full name, and key.
        added_slots: optimizer, original, name, and variable.
        values: nodes, and whether they have values.
        nodes: how many nodes are added at the end.

    Raises:
        DecodeError: The message is malformed.
        ValueError: A change is about an item or a node that is not there.
    """

# --- protobuf ----------------------------------------------------------------------------------

def varints_skip(data: _Buffer, limit: int) -> tuple[int, int]:
    """Skip packed varints; stops before one that is cut by the end of `data`.

    Args:
        data: the varints, from one on.
        limit: how many to skip at most.

    Returns:
        Bytes that they take, and how many they are.

    Raises:
        DecodeError: one does not fit 64 bits.
    """

def varints_decode(data: _Buffer, limit: int, kind: str, width: int) -> tuple[int, bytes]:
    """Decode packed varints; stops before one that is cut by the end of `data`.

    Args:
        data: the varints, from one on.
        limit: how many to decode at most.
        kind: "int" (two's complement of 64 bits, whatever the width), "uint", or "bool" (anything
            but 0 is true).
        width: bytes of an element: 1, 2, 4 or 8; 1 for "bool".

    Returns:
        Bytes that they take, and the elements, little-endian.

    Raises:
        DecodeError: one does not fit 64 bits, or is no such element.
    """

def fields_scan(data: _Buffer, tag: int, limit: int) -> tuple[int, bytes]:
    """Find protobuf fields of bytes that follow one another; their bytes are hopped over.

    Stops before another tag, and before a length that is cut by the end of `data`.

    Args:
        data: part of a message, from a tag on.
        tag: the one byte that each field starts with.
        limit: how many to find at most.

    Returns:
        Where what follows them starts, which is past the end of `data` if that cuts the last one;
        start and length (int64) of the bytes of each in turn.

    Raises:
        DecodeError: a length is malformed, or passes 2^63.
    """

# --- numbers -----------------------------------------------------------------------------------
# Elements and values are little-endian.

def power_sum(data: _Buffer, dtype: str, power: int, shift: float) -> float:
    """Return the sum of `(value - shift) ** power`, in float64; 0.0 of no values.

    Element i is added to lane i mod 16 in order, and the lanes are added pairwise at the end: the
    sum of the same values is the same on every machine.

    Args:
        data: the values.
        dtype: float16, bfloat16, float32 or float64.
        power: 1 or 2.
        shift: what is subtracted from each value first.
    """

def radix_count(
    data: _Buffer, kind: str, width: int, shift: int, prefix: int, counts: _Buffer
) -> None:
    """Count elements by 16 bits of their key, which rises with their value as an unsigned integer.

    An element is counted if `key >> (shift + 16) == prefix`, in the bin `key >> shift & 0xffff`.
    Passes from the highest digit down find the element of a rank.

    Args:
        data: the elements.
        kind: "int", "uint"; "float" (float16, float32, float64) or "bfloat" (bfloat16), by value,
            -0 just before 0; "magnitude" (any of these floats), by absolute value. A NaN of either
            sign is above infinity.
        width: bytes of an element: 1, 2, 4 or 8, of floats 2, 4 or 8.
        shift: where the digit is, at most `8 * width - 16`; 0 with a width of 1.
        prefix: what the bits above the digit have to be; 0 for the highest digit.
        counts: 65536 numbers (uint64, writable), to which the elements are added. Only one call at
            a time may have them.
    """

def radix_value(key: int, kind: str, width: int) -> bytes:
    """Return the element that has a key; of magnitudes and NaN the one without a sign.

    Raises:
        ValueError: no element has this key.
    """

def philox(
    kind: str, dtype: str, key: int, stream: int, starts: _Buffer, width: int, step: int
) -> bytes:
    """Draw random values, each of which depends on key, stream and element index alone.

    The generator is Philox4x32-10 (Salmon et al. 2011). Its counter is `index >> 1` in the low and
    the stream in the high 64 bits; an element has 64 bits of the output, the low ones if its index
    is even.

    Args:
        kind: "bits" (the high 32 of the 64 bits), "uniform" (the high 24 or 53 bits, in [0, 1)), or
            "normal" (the inverse of the normal distribution, by Wichura's AS 241, at the high 53
            bits and a half; computed in float64 and rounded once).
        dtype: uint32 for bits, float32 or float64 for the others.
        key: 64 bits, the seed.
        stream: 64 bits, the number of the sequence.
        starts: int64 index of the first element of each run.
        width: elements of each run.
        step: distance of two elements of a run; may be negative, or 0 for the same value again.

    Returns:
        The values of all runs, joined.

    Raises:
        ValueError: an index is not from 0 to 2^63 - 1.
    """

# --- HDF5 --------------------------------------------------------------------------------------

Hdf5Lists: TypeAlias = tuple[bytes, bytes, bytes, bytes, tuple[bytes, bytes], bytes]
"""dims, their ends, filters, their ends, names of links, their ends."""

Hdf5Objects: TypeAlias = tuple[bytes, list[str], bytes, bytes, bytes, bytes, bytes]
"""addresses (int64), dtypes, whether big-endian (uint8), layouts (uint8), offsets, bytes of the
elements, bytes stored (int64)."""

Hdf5Attributes: TypeAlias = tuple[
    tuple[bytes, bytes], bytes, bytes, bytes, tuple[bytes, bytes], bytes
]
"""names, their ends by object, sorts (uint8), bits of numbers (8 bytes each), texts, their ends by
attribute."""

Hdf5Columns: TypeAlias = tuple[
    tuple[tuple[bytes, bytes], bytes], Hdf5Objects, Hdf5Lists, Hdf5Attributes, bytes, int
]
"""(paths, number of the object of each (int64)), objects, lists, attributes, offset and length of
each range of metadata (int64), where the file ends."""

def hdf5_scan(
    content: _Buffer, windows: _Buffer, size: int, cap: int
) -> tuple[bytes, Hdf5Columns | None]:
    """Walk over the metadata of an HDF5 file as far as some windows on it go.

    Args:
        content: the bytes of the windows, joined.
        windows: int64 offset and length of each, in the order in which `content` has them; they do
            not overlap.
        size: bytes of the whole file.
        cap: most bytes of metadata, of all paths, and of all texts.

    Returns:
        What else is needed, as int64 offset and length of each range, and None; call again with
        these. Or nothing, and the columns. Groups come before what is in them, and each link is
        gone down in turn. A group has the layout 255; a dataset 0 contiguous, 1 chunked, 2 compact,
        3 unallocated; only a contiguous one has an offset, others -1. Sorts of attributes are 0
        other, 1 signed, 2 unsigned, 3 float, 4 text, 5 list of texts, which is also what anything
        without elements is. Ends of lists count items, not bytes.

    Raises:
        DecodeError: the file is malformed, passes the cap, or asks for what is not done, such as a
            link that leads out of it.
    """

# --- zip ---------------------------------------------------------------------------------------
# Headers only: contents of members are neither read nor inflated. Names are bytes as they are.

def zip_end(tail: _Buffer, size: int) -> tuple[int, int, int, bool, bytes]:
    """Decode the end records of an archive: the one at its end, and those of zip64 before it.

    Args:
        tail: the last 65,633 bytes of the file, or all of them.
        size: bytes of the file.

    Returns:
        Number of records in the directory, its offset in the file and its length (it ends where
        the end records start, and is long enough for so many records), whether the archive is
        in one piece, comment.

    Raises:
        DecodeError: there is no end record, or it contradicts itself or the file.
    """

def zip_directory(
    data: _Buffer, count: int
) -> list[tuple[bytes, int, int, int, int, int, int, int, int, int, int, int]]:
    """Decode the central directory, which has just `count` records.

    Returns:
        Of each record: name, version and system of the writer, version needed, flags, method, date
        and time (DOS, 16 bits each), CRC-32, compressed size, size, external attributes, offset of
        the local header, length of the record. Records follow one another without a gap.

    Raises:
        DecodeError: a record is malformed, a number is in a zip64 extra that is not there, an
            extra gives another name, or bytes are left.
    """

def zip_local(
    data: _Buffer,
) -> tuple[bytes, int, int, int, int, int, int, int, int, bool]:
    """Decode the local header that the data starts with.

    Returns:
        Name, version needed, flags, method, date and time, CRC-32, compressed size, size, length of
        the header, whether it has a zip64 extra.
    """

def zip_descriptor(data: _Buffer, crc: int, compressed: int, size: int) -> tuple[int, int]:
    """Find the descriptor that repeats these numbers at the start of the data.

    Returns:
        Where its CRC-32 is, and its length.

    Raises:
        DecodeError: the data starts with none.
    """
