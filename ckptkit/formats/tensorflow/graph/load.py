"""The object graph of a checkpoint, read from the tensor that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow.graph.objects import MAX_BYTES, read_graph
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from ckptkit.formats.tensorflow.payload import read_elements
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
        byteorder: Of the machine that wrote it.
    """

    piece: Piece
    byteorder: str

    def refuse(self, message: str, at: int | None = 0) -> CorruptError:
        """Return an error at a byte of the stored tensor."""
        extent = self.piece.extent
        offset = None if at is None else extent.offset + at
        return CorruptError(message, path=extent.path, tensor=GRAPH_KEY, offset=offset)


def load_graph(catalog: Catalog) -> ObjectGraph | None:
    """Read the object graph of a checkpoint; None where there is none.

    Args:
        catalog: What a scan found; the tensor of the graph must not be changed yet.

    Raises:
        CorruptError: The tensor is no scalar string, is too long, differs from its checksum, or
            does not hold an object graph.
    """
    holder = find_holder(catalog)
    return None if holder is None else decode_graph(holder, *read_content(holder))


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
    holder = Holder(stored.pieces[0], stored.byteorder)
    if holder.piece.extent.length > MAX_BYTES:
        msg = f"an object graph has at most {MAX_BYTES} bytes, this one more"
        raise holder.refuse(msg)
    return holder


def read_content(holder: Holder) -> tuple[bytes, int]:
    """Return the bytes of a graph, and where in the stored tensor they start.

    Raises:
        CorruptError: The stored string does not decode, or differs from its checksum.
    """
    piece, sources = holder.piece, Sources()
    try:
        (content,) = read_elements(sources, GRAPH_KEY, piece, "string", holder.byteorder)
    finally:
        sources.close()
    # Its length and the checksum of that come first, nothing behind.
    return content, piece.extent.length - len(content)


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
