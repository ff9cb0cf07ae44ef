"""Philox4x32-10 as it is published, one element at a time."""

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)


def block(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the four output words of a counter."""
    for _ in range(10):
        high0, low0 = divmod(_MULTIPLIERS[0] * counter[0], 1 << 32)
        high1, low1 = divmod(_MULTIPLIERS[1] * counter[2], 1 << 32)
        counter = (high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0)
        key = (key[0] + _INCREMENTS[0] & _WORD, key[1] + _INCREMENTS[1] & _WORD)
    return counter


def word(key: int, stream: int, index: int) -> int:
    """Return the 64 bits of an element."""
    high, low = divmod(index // 2, 1 << 32)
    output = block((low, high, stream & _WORD, stream >> 32), (key & _WORD, key >> 32))
    first = 2 * (index % 2)
    return output[first] | output[first + 1] << 32


def bits(key: int, stream: int, index: int) -> int:
    """Return the high 32 bits."""
    return word(key, stream, index) >> 32


def uniform(key: int, stream: int, index: int, digits: int) -> float:
    """Return the high bits, as many as digits, as a fraction."""
    return (word(key, stream, index) >> 64 - digits) / (1 << digits)


def odds(key: int, stream: int, index: int) -> tuple[int, bool]:
    """Return the probability of a normal value below one half, in units of 2^-54.

    The second says whether it is that of the value, or that of its negative.
    """
    number = 2 * (word(key, stream, index) >> 11) + 1
    below = number < 1 << 53
    return number if below else (1 << 54) - number, below


def counter(output: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the counter that has these output words: every round can be undone."""
    inverses = [pow(multiplier, -1, 1 << 32) for multiplier in _MULTIPLIERS]
    for turn in reversed(range(10)):
        key0, key1 = (
            first + turn * more & _WORD for first, more in zip(key, _INCREMENTS, strict=True)
        )
        word0, word2 = (output[3] * inverses[0] & _WORD, output[1] * inverses[1] & _WORD)
        output = (
            word0,
            output[0] ^ _MULTIPLIERS[1] * word2 >> 32 ^ key0,
            word2,
            output[2] ^ _MULTIPLIERS[0] * word0 >> 32 ^ key1,
        )
    return output


def place(word: int, key: int) -> tuple[int, int]:
    """Return a stream and an index whose 64 bits are this word."""
    for other in range(1 << 16):
        output = (word & _WORD, word >> 32, other, 0)
        low, high, *stream = counter(output, (key & _WORD, key >> 32))
        if high >> 30 == 0:  # Twice this is an index below 2^63.
            return stream[0] | stream[1] << 32, (low | high << 32) * 2
    raise LookupError(word)
