"""Sharded weights: the map of shards (``X.weights.json``), the names of shards, and the cuts."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptkit.errors import CorruptError, EditError, UnsupportedError
from ckptkit.formats.keras.config.jsontext import parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptkit.model import TensorSpec

MAX_BYTES: Final = 64 << 20
"""A map longer than this is none: it has a line for every layer."""

_WHAT: Final = "the map of shards"
_DRIVE: Final = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class ShardMap:
    """Which files hold which variables.

    Attributes:
        total_size: Bytes of all variables, as the writer counted them.
        groups: For every ``vars`` group with variables, by its absolute path (such as
            ``/layers/dense/vars``), the bare names of the files that have some of them.
    """

    total_size: float
    groups: Mapping[str, tuple[str, ...]]

    @property
    def shards(self) -> tuple[str, ...]:
        """Bare names of all files, in the order in which they are first named."""
        return tuple(dict.fromkeys(name for names in self.groups.values() for name in names))


def read_map(content: bytes, *, path: str | None = None) -> ShardMap:
    """Read a map of shards.

    Args:
        content: The text, of at most ``MAX_BYTES``.
        path: The file, for messages.

    Raises:
        CorruptError: It is no such map, or names a file that is not beside it.
        UnsupportedError: It names files that are no HDF5 files, or is larger than any map.
    """
    if len(content) > MAX_BYTES:
        msg = f"{_WHAT} has {len(content)} bytes, and at most {MAX_BYTES} are read"
        raise UnsupportedError(msg, path=path)
    value = parse(content, _WHAT, path=path)
    metadata, weights = value.get("metadata"), value.get("weight_map")
    if not isinstance(metadata, dict) or not isinstance(weights, dict):
        msg = f'{_WHAT} has no "metadata" and "weight_map" objects'
        raise CorruptError(msg, path=path)
    size = metadata.get("total_size")
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 <= size < 2**63:
        msg = f"{_WHAT} has a total_size that is no number of bytes: {_short(size)}"
        raise CorruptError(msg, path=path)
    groups = {name: _names(name, listed, path) for name, listed in weights.items()}
    return ShardMap(size, groups)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _names(group: str, listed: Any, path: str | None) -> tuple[str, ...]:
    parts = group.split("/")
    if parts[0] or len(parts) < 2 or not {"", ".", ".."}.isdisjoint(parts[1:]) or "\0" in group:
        msg = f"{_WHAT} has {_short(group)}, which is no path of a group of variables"
        raise CorruptError(msg, path=path)
    names = [listed] if isinstance(listed, str) else listed
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        msg = f"{_WHAT} should have a file name or some for {_short(group)}: {_short(listed)}"
        raise CorruptError(msg, path=path)
    for name in names:
        _check_name(name, path)
    if len(set(names)) < len(names):
        msg = f"{_WHAT} names a file more than once for {_short(group)}: {_short(names)}"
        raise CorruptError(msg, path=path)
    return tuple(names)


def _check_name(name: str, path: str | None) -> None:
    led_away = "/" in name or "\\" in name or "\0" in name or _DRIVE.match(name) is not None
    if led_away or name in {"", ".", ".."}:
        msg = f"{_WHAT} names {_short(name)}; shards lie beside it, and are named without a folder"
        raise CorruptError(msg, path=path)
    if not name.endswith(".h5"):
        msg = f"{_WHAT} names {_short(name)}; only shards that are .h5 files are read"
        raise UnsupportedError(msg, path=path)


def write_map(
    total_size: float, groups: Mapping[str, Sequence[str]], counts: Mapping[str, int]
) -> bytes:
    """Return the map of shards that Keras would write.

    Args:
        total_size: Bytes of all variables; see :func:`counted`.
        groups: The files of every ``vars`` group with variables, in the order in which they
            were saved.
        counts: How many variables each of these groups has: the files of one that has a single
            variable are a string in place of a list.
    """
    weights = {
        name: files[0] if counts[name] == 1 else list(files) for name, files in groups.items()
    }
    # A writer that meets no variable leaves the count at the whole number it began with.
    total = float(total_size) if groups else 0
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weights}, indent=4).encode()


def owner(path: str) -> str:
    """Return the absolute path of the ``vars`` group of a variable; its key can have slashes."""
    head, found, _ = f"/{path}".rpartition("/vars/")
    return f"{head}/vars" if found else f"/{path}".rpartition("/")[0]


def shard_names(map_path: str, count: int) -> tuple[str, ...]:
    """Return the bare names that the first ``count`` shards of a map have."""
    stem = os.path.splitext(os.path.basename(map_path))[0].replace(".weights", "")
    return tuple(f"{stem}_{number:05}.weights.h5" for number in range(count))


def counted(spec: TensorSpec) -> float:
    """Return for how many bytes a variable counts: a boolean is one bit, though it takes a byte."""
    return spec.count / 8 if spec.dtype == "bool" else float(spec.nbytes)


def cut(order: Sequence[tuple[str, float]], limit: float) -> list[int]:
    """Return in which shard each variable goes.

    A new shard begins where the next variable would go over the limit.

    Args:
        order: Paths and sizes in bytes (see :func:`counted`), in the order in which they are saved.
        limit: Bytes of variables in a shard.

    Raises:
        EditError: A variable is larger than a shard may be.
    """
    shards, shard, size = [], 0, 0.0
    for name, nbytes in order:
        if nbytes > limit:
            msg = (
                f"{name!r} has {nbytes:.0f} bytes, and a shard may have {limit:.0f}: a variable "
                f"is never divided, so the limit must be {nbytes:.0f} or more"
            )
            raise EditError(msg, tensor=name)
        size += nbytes
        if size > limit:
            shard, size = shard + 1, float(nbytes)
        shards.append(shard)
    return shards
