"""Keys that order elements as unsigned integers, one element at a time."""

EXPONENT_BITS = {("float", 2): 5, ("bfloat", 2): 8, ("float", 4): 8, ("float", 8): 11}


def key(element: bytes, kind: str) -> int:
    """Return the key of a little-endian element."""
    sign = 1 << 8 * len(element) - 1
    if kind == "int":
        return int.from_bytes(element, "little", signed=True) + sign
    bits = int.from_bytes(element, "little")
    if kind == "uint":
        return bits
    if kind == "magnitude":
        return bits % sign
    fraction_bits = 8 * len(element) - 1 - EXPONENT_BITS[kind, len(element)]
    infinity = sign - (1 << fraction_bits)
    negative, magnitude = divmod(bits, sign)
    if magnitude > infinity or not negative:
        return sign + magnitude
    return sign - 1 - magnitude


def count(elements: list[bytes], kind: str, shift: int, prefix: int) -> dict[int, int]:
    """Return how many elements have each digit, of those with this prefix above it."""
    counts: dict[int, int] = {}
    for element in elements:
        above, digit = divmod(key(element, kind) >> shift, 1 << 16)
        if above == prefix:
            counts[digit] = counts.get(digit, 0) + 1
    return counts
