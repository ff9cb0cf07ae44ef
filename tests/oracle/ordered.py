"""Keys of slice entries."""

Extent = tuple[int, int]

_HEADERS = (0x80, 0xC0, 0xE0, 0xF0, 0xF8, 0xFC, 0xFE, 0xFF, 0xFF80, 0xFFC0)


def number(value: int) -> bytes:
    """Encode an unsigned number: its size, then its bytes."""
    size = (value.bit_length() + 7) // 8
    return bytes((size,)) + value.to_bytes(size, "big")


def text(value: bytes) -> bytes:
    """Escape and terminate a string."""
    escapes = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}
    return b"".join(escapes.get(byte, bytes((byte,))) for byte in value) + b"\x00\x01"


def signed(value: int) -> bytes:
    """Encode a signed number in as few bytes as it needs."""
    size = 1
    while not -(1 << 7 * size - 1) <= value < 1 << 7 * size - 1:
        size += 1
    header = _HEADERS[size - 1]
    width = 1 if header < 1 << 8 else 2
    header <<= 8 * (size - width)
    return ((value & (1 << 8 * size) - 1) ^ header).to_bytes(size, "big")


def slice_key(name: bytes, slices: list[Extent]) -> bytes:
    """Return the key of a slice entry."""
    extents = b"".join(signed(start) + signed(length) for start, length in slices)
    return number(0) + text(name) + number(len(slices)) + extents
