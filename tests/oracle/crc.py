"""CRC-32C and CRC-32, bit by bit, their masked form, and the FarmHash fingerprint."""

CASTAGNOLI = 0x82F63B78
ISO_HDLC = 0xEDB88320

_WORD = 0xFFFFFFFF


def _table(polynomial: int) -> list[int]:
    """Return the register after each byte, of which every entry is eight single steps."""
    table = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = register >> 1 ^ (polynomial if register & 1 else 0)
        table.append(register)
    return table


_TABLES = {polynomial: _table(polynomial) for polynomial in (CASTAGNOLI, ISO_HDLC)}


def extend(polynomial: int, data: bytes, value: int = 0) -> int:
    """Continue the CRC `value` over `data`."""
    table = _TABLES[polynomial]
    register = value ^ _WORD
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return register ^ _WORD


def crc32c(data: bytes, value: int = 0) -> int:
    """Continue the CRC-32C `value` over `data`."""
    return extend(CASTAGNOLI, data, value)


def crc32(data: bytes, value: int = 0) -> int:
    """Continue the CRC-32 `value` over `data`."""
    return extend(ISO_HDLC, data, value)


def mask(crc: int) -> int:
    """Rotate right by 15 bits and add a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _WORD


def unmask(masked: int) -> int:
    """Invert `mask`."""
    rotated = (masked - 0xA282EAD8) & _WORD
    return (rotated >> 17 | rotated << 15) & _WORD


_K0 = 0xC3A5C85C97CB3127
_K1 = 0xB492B66FBE98F273
_K2 = 0x9AE16A3B2F90404F
_LONG = (1 << 64) - 1


def _rotate(value: int, bits: int) -> int:
    value &= _LONG
    return (value >> bits | value << 64 - bits) & _LONG


def _mix(value: int) -> int:
    value &= _LONG
    return value ^ value >> 47


def _fold(left: int, right: int, by: int) -> int:
    first = _mix((left ^ right) * by)
    return _mix((right ^ first) * by) * by & _LONG


def _word(data: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _short(data: bytes) -> int:
    length = len(data)
    by = _K2 + length * 2 & _LONG
    if length >= 8:
        a, b = _word(data, 0) + _K2 & _LONG, _word(data, length - 8)
        c = _rotate(b, 37) * by + a & _LONG
        return _fold(c, (_rotate(a, 25) + b) * by & _LONG, by)
    if length >= 4:
        return _fold(length + (_word(data, 0, 4) << 3), _word(data, length - 4, 4), by)
    if length:
        low = data[0] + (data[length >> 1] << 8)
        high = length + (data[-1] << 2)
        return _mix(low * _K2 ^ high * _K0) * _K2 & _LONG
    return _K2


def _medium(data: bytes) -> int:
    length = len(data)
    by = _K2 + length * 2 & _LONG
    a = _word(data, 0) * (_K1 if length <= 32 else _K2) & _LONG
    b = _word(data, 8)
    c, d = _word(data, length - 8) * by, _word(data, length - 16) * _K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d & _LONG
    z = _fold(y, a + _rotate(b + _K2, 18) + c & _LONG, by)
    if length <= 32:
        return z
    e, f = _word(data, 16) * by & _LONG, _word(data, 24)
    g, h = (y + _word(data, length - 32)) * by, (z + _word(data, length - 24)) * by
    left = _rotate(e + f, 43) + _rotate(g, 30) + h & _LONG
    return _fold(left, e + _rotate(f + a, 18) + g & _LONG, by)


def _weak(chunk: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = (_word(chunk, at + 8 * i) for i in range(4))
    a = a + w
    total = a + x + y
    b = _rotate(b + a + z, 21) + _rotate(total, 44)
    return total + z & _LONG, b + a & _LONG


_State = tuple[int, int, int, tuple[int, int], tuple[int, int]]


def _step(state: _State, chunk: bytes, by: int, factor: int) -> _State:
    x, y, z, v, w = state
    x = _rotate(x + y + v[0] + _word(chunk, 8), 37) * by & _LONG ^ w[1] * factor & _LONG
    y = _rotate(y + v[1] + _word(chunk, 48), 42) * by + v[0] * factor + _word(chunk, 40) & _LONG
    z = _rotate(z + w[0], 33) * by & _LONG
    v = _weak(chunk, 0, v[1] * by, x + w[0])
    w = _weak(chunk, 32, z + w[1], y + _word(chunk, 16))
    return z, y, x, v, w


def fingerprint64(data: bytes) -> int:
    """Return FarmHash Fingerprint64."""
    length = len(data)
    if length <= 64:
        return _short(data) if length <= 16 else _medium(data)
    y = 81 * _K1 + 113 & _LONG
    state: _State = (
        81 * _K2 + _word(data, 0) & _LONG,
        y,
        _mix(y * _K2 + 113) * _K2 & _LONG,
        (0, 0),
        (0, 0),
    )
    for at in range(0, (length - 1) // 64 * 64, 64):
        state = _step(state, data[at : at + 64], _K1, 1)
    x, y, z, v, w = state
    by = _K1 + ((z & 0xFF) << 1)
    carried = w[0] + (length - 1 & 63)
    v = (v[0] + carried & _LONG, v[1])
    w = (carried + v[0] & _LONG, w[1])
    x, y, z, v, w = _step((x, y, z, v, w), data[-64:], by, 9)
    left = _fold(v[0], w[0], by) + _mix(y) * _K0 + z & _LONG
    return _fold(left, _fold(v[1], w[1], by) + x & _LONG, by)
