"""The values that everything else speaks in: specs, extents, regions, tensors, catalogs.

Frozen, picklable, without I/O. NumPy is not imported here, so that listing a checkpoint stays
cheap; the columns of a large catalog are buffers that NumPy can wrap without a copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from ckptkit.errors import UnsupportedError
from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptkit.kernels import Kernel
    from ckptkit.region import Region

Algorithm = Literal["crc32c", "crc32", "crc32c-strings", "crc32c-variants"]
"""What a checksum is over: the stored bytes, or the elements that they encode."""

Kind = Literal["float", "complex", "int", "uint", "bool", "string", "variant", "opaque"]

MAX_BYTES: Final = 2**63 - 1
"""No tensor is larger than a signed 64-bit count of bytes can say."""


@dataclass(frozen=True, slots=True)
class DType:
    """How elements of one type are stored.

    Attributes:
        name: The name that NumPy, ml_dtypes or TensorFlow give it.
        kind: What family of values it holds.
        itemsize: Stored bytes per element, or None where elements differ in length.
        bits: Significant bits per element; fewer than ``8 * itemsize`` for int4 and the like.
    """

    name: str
    kind: Kind
    itemsize: int | None
    bits: int = 0


def _dtypes() -> dict[str, DType]:
    rows: list[tuple[str, Kind, int | None, int]] = [
        *((f"float{8 * n}", "float", n, 8 * n) for n in (2, 4, 8)),
        ("bfloat16", "float", 2, 16),
        *(
            (f"float8_{v}", "float", 1, 8)
            for v in ("e5m2", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e5m2fnuz")
        ),
        ("float4_e2m1fn", "float", 1, 4),
        *((f"int{8 * n}", "int", n, 8 * n) for n in (1, 2, 4, 8)),
        *((f"uint{8 * n}", "uint", n, 8 * n) for n in (1, 2, 4, 8)),
        *((f"int{n}", "int", 1, n) for n in (2, 4)),
        *((f"uint{n}", "uint", 1, n) for n in (2, 4)),
        *((f"qint{8 * n}", "int", n, 8 * n) for n in (1, 2, 4)),
        *((f"quint{8 * n}", "uint", n, 8 * n) for n in (1, 2)),
        ("bool", "bool", 1, 1),
        ("complex64", "complex", 8, 64),
        ("complex128", "complex", 16, 128),
        ("string", "string", None, 0),
        ("variant", "variant", None, 0),
        ("resource", "opaque", None, 0),
    ]
    return {row[0]: DType(*row) for row in rows}


DTYPES: Final[Mapping[str, DType]] = _dtypes()
"""Every dtype by name."""

_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "string": "crc32c-strings",
    "variant": "crc32c-variants",
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The dtype (by name) and the shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def kind(self) -> Kind:
        """The family of values."""
        found = DTYPES.get(self.dtype)
        return found.kind if found is not None else "opaque"

    @property
    def algorithm(self) -> Algorithm:
        """The checksum that goes with such values in a TensorFlow checkpoint."""
        return _ALGORITHMS.get(self.kind, "crc32c")

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Stored bytes per element.

        Raises:
            UnsupportedError: Elements of this dtype have no fixed size.
        """
        found = DTYPES.get(self.dtype)
        if found is None or found.itemsize is None:
            msg = f"elements of dtype {self.dtype} have no fixed size"
            raise UnsupportedError(msg)
        return found.itemsize

    @property
    def nbytes(self) -> int:
        """Stored bytes of the whole tensor.

        Raises:
            UnsupportedError: The dtype has no fixed size, or the product overflows 63 bits.
        """
        size = self.count * self.itemsize
        if size > MAX_BYTES:
            msg = f"{self} would take {size} bytes, more than a file can hold"
            raise UnsupportedError(msg)
        return size

    def __str__(self) -> str:
        """Return ``float32[3, 4]``."""
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint is.

    Attributes:
        path: What its files have in common: the file, or the prefix of a bundle.
        folder: The folder that is the checkpoint as a whole (a SavedModel), if one is.
    """

    path: str
    folder: str | None = None

    def __str__(self) -> str:
        """Return the path that a user would give."""
        return self.folder or self.path


@dataclass(frozen=True, slots=True)
class Extent:
    """A contiguous byte range of one file."""

    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum as plain number (never masked) over the piece that carries it."""

    algorithm: Algorithm
    value: int

    def __str__(self) -> str:
        """Return ``crc32c:89abcdef``."""
        return f"{self.algorithm}:{self.value:08x}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stored part of a tensor.

    Attributes:
        box: Which part of the tensor it holds, in C order.
        extent: Where the bytes are.
        checksum: The checksum over them, where the format has one.
        entry: The index bytes that describe the piece, carried verbatim.
    """

    box: Box
    extent: Extent
    checksum: Checksum | None = None
    entry: bytes = b""


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes that lie in files: one piece, or several that tile the tensor."""

    pieces: tuple[Piece, ...]
    byteorder: Literal["little", "big"] = "little"


@dataclass(frozen=True, slots=True)
class Derived:
    """Values that a kernel computes from other tensors, block by block.

    Attributes:
        kernel: What is computed.
        parents: Its inputs; the first one is the tensor that is edited, if it existed.
        region: Which elements the kernel computes; the first parent gives the others.
    """

    kernel: Kernel
    parents: tuple[Tensor, ...] = ()
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A spec, and where its values come from.

    Attributes:
        parts: How the tensor is to be stored when it is derived: the boxes of its pieces,
            or nothing for one piece.
        entry: The index bytes that describe the whole tensor, carried verbatim.
    """

    spec: TensorSpec
    source: Stored | Derived
    parts: tuple[Box, ...] = ()
    entry: bytes = b""

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of the pieces, at least one."""
        if isinstance(self.source, Stored):
            return tuple(piece.box for piece in self.source.pieces)
        return self.parts or (Box.whole(self.spec.shape),)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the values take, as they are stored or will be."""
        if isinstance(self.source, Stored):
            return sum(piece.extent.length for piece in self.source.pieces)
        return self.spec.nbytes

    def derive(
        self,
        kernel: Kernel,
        parents: tuple[Tensor, ...],
        *,
        spec: TensorSpec | None = None,
        region: Region | None = None,
    ) -> Tensor:
        """Return this tensor with values computed by ``kernel``, stored the same way."""
        new = spec or self.spec
        boxes = self.boxes
        parts = boxes if new.shape == self.spec.shape and len(boxes) > 1 else ()
        return Tensor(new, Derived(kernel, parents, region), parts, self.entry)
