"""The order of a ``std::unordered_map`` of the GNU C++ library, as lists of buckets."""

SEED = 0xC70F6907
MUL = 0xC6A4A7935BD1E995
WORD = (1 << 64) - 1
BUCKETS = (13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753)


def _mix(value: int) -> int:
    return value ^ value >> 47


def hashed(data: bytes) -> int:
    """Return the hash of a string."""
    found = SEED ^ len(data) * MUL & WORD
    whole = len(data) & ~7
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little")
        found = (found ^ _mix(word * MUL & WORD) * MUL & WORD) * MUL & WORD
    if data[whole:]:
        found = (found ^ int.from_bytes(data[whole:], "little")) * MUL & WORD
    return _mix(_mix(found) * MUL & WORD)


def order(keys: list[bytes]) -> list[bytes]:
    """Return keys in the order of a map into which they are inserted one by one.

    The list of all nodes is kept as runs, one per bucket: a new node comes first in the run of its
    bucket, and the run of a bucket that was empty comes before all others.
    """
    runs: dict[int, list[bytes]] = {}
    first: list[int] = []
    sizes = iter(BUCKETS)
    size = 0

    def insert(key: bytes) -> None:
        bucket = hashed(key) % size
        if bucket not in runs:
            runs[bucket] = []
            first.insert(0, bucket)
            runs[bucket].append(key)
            return
        runs[bucket].insert(0, key)

    for count, key in enumerate(keys):
        if count >= size:
            nodes = [node for bucket in first for node in runs[bucket]]
            runs.clear()
            first.clear()
            size = next(sizes)
            for node in nodes:
                insert(node)
        insert(key)
    return [node for bucket in first for node in runs[bucket]]
