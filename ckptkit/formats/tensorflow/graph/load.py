"""The object graph of a checkpoint, read from the tensor that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ckptkit import _native
from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow.graph.objects import GRAPH_KEY, MAX_BYTES, read_graph
from ckptkit.model import Stored
from ckptkit.storage.disk import Sources

if TYPE_CHECKING:
    from ckptkit.catalog import Catalog
    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph
    from ckptkit.model import Piece


class Holder(NamedTuple):
    """Where the bytes of a graph are stored.

    Attributes:
        piece: The stored tensor.
        big_endian: Of the machine that wrote it.
    """

    piece: Piece
    big_endian: bool

    def refuse(self, message: str, at: int | None = 0) -> CorruptError:
        """Return an error at a byte of the stored tensor."""
        extent = self.piece.extent
        offset = None if at is None else extent.offset + at
        return CorruptError(message, path=extent.path, tensor=GRAPH_KEY, offset=offset)


def load_graph(catalog: Catalog, sources: Sources | None = None) -> ObjectGraph | None:
    """Read the object graph of a checkpoint; None where there is none.

    Args:
        catalog: What a scan found; the tensor of the graph must not be changed yet.
        sources: Open files, if some are.

    Raises:
        CorruptError: The tensor is no scalar string, is too long, differs from its checksum, or
            does not hold an object graph.
    """
    holder = find_holder(catalog)
    return None if holder is None else decode_graph(holder, *read_content(holder, sources))


def find_holder(catalog: Catalog) -> Holder | None:
    """Return where the bytes of the graph are; None where there is no graph.

    Raises:
        CorruptError: The tensor is no scalar string, or is too long.
    """
    if GRAPH_KEY not in catalog:
        return None
    tensor = catalog[GRAPH_KEY]
    stored = tensor.source
    if str(tensor.spec) != "string[]" or not isinstance(stored, Stored):
        msg = f"the object graph is a stored string[], this is {tensor.spec}"
        raise CorruptError(msg, tensor=GRAPH_KEY)
    holder = Holder(stored.pieces[0], stored.byteorder == "big")
    if holder.piece.extent.length > MAX_BYTES:
        msg = f"an object graph has at most {MAX_BYTES} bytes, this one more"
        raise holder.refuse(msg)
    return holder


def read_content(holder: Holder, sources: Sources | None = None) -> tuple[bytes, int]:
    """Return the bytes of a graph, and where in the stored tensor they start.

    Raises:
        CorruptError: The stored string does not decode, or differs from its checksum.
    """
    extent, checksum = holder.piece.extent, holder.piece.checksum
    payload = (sources or Sources()).file(extent.path).read(extent.offset, extent.length)
    try:
        start, ends, crc = _native.strings_decode(payload, 1, holder.big_endian)
    except _native.DecodeError as error:
        raise holder.refuse(error.message, error.offset) from None
    if checksum is not None and crc != checksum.value:
        msg = f"the checksum is {crc:08x}, the index says {checksum.value:08x}"
        raise holder.refuse(msg)
    end = start + memoryview(ends).cast("q")[0]
    return bytes(memoryview(payload)[start:end]), start


def decode_graph(holder: Holder, content: bytes, start: int) -> ObjectGraph:
    """Decode the bytes of a graph.

    Raises:
        CorruptError: They are none.
    """
    try:
        return read_graph(content)
    except CorruptError as error:
        at = None if error.offset is None else start + error.offset
        raise holder.refuse(error.message, at) from None
