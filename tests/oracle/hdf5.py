"""What h5py sees in a file, as the values of the native reader; and the checksum of metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ckptkit.formats.keras.hdf5.tree import Dataset, Group, Tree

if TYPE_CHECKING:
    from pathlib import Path

LAYOUTS = {
    h5py.h5d.COMPACT: "compact",
    h5py.h5d.CONTIGUOUS: "contiguous",
    h5py.h5d.CHUNKED: "chunked",
}


def text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def attribute(value: Any) -> Any:
    """Return an attribute as the tree has it."""
    if isinstance(value, h5py.Empty):
        return ()
    if isinstance(value, str | bytes):
        return text(value)
    if np.size(value) == 0:
        return ()
    if np.ndim(value) == 1 and value.dtype.kind in "SO":
        return tuple(map(text, value))
    if np.ndim(value) == 0 and value.dtype.kind in "biuf":
        return value.item()
    return None


def attributes(node: h5py.HLObject) -> dict[str, Any]:
    return {name: attribute(node.attrs[name]) for name in node.attrs}


def address(node: h5py.HLObject) -> int:
    """Return where a header is; h5py leaves the user block out."""
    return h5py.h5o.get_info(node.id).addr + node.file.userblock_size


def dataset(path: str, node: h5py.Dataset) -> Dataset:
    plist = node.id.get_create_plist()
    layout = LAYOUTS[plist.get_layout()]
    offset = node.id.get_offset() if layout == "contiguous" else None
    # With a user block h5py adds its size to an address that is undefined, too.
    if layout == "contiguous" and (offset is None or offset < node.file.userblock_size):
        offset = None
        layout = "unallocated"
    dtype = node.dtype
    name = dtype.name
    if dtype.kind == "V":
        name = node.attrs.get("dtype", f"uint{8 * dtype.itemsize}")
    return Dataset(
        path,
        name,
        "big" if dtype.byteorder == ">" else "little",
        node.shape,
        layout,
        -1 if offset is None else offset,
        node.size * dtype.itemsize,
        0 if layout == "unallocated" else node.id.get_storage_size(),
        tuple(plist.get_filter(at)[0] for at in range(plist.get_nfilters())),
        address(node),
        attributes(node),
    )


def tree(path: Path | str) -> Tree:
    """Read a file through h5py; metadata ranges are not known."""
    groups: dict[str, Group] = {}
    datasets: dict[str, Dataset] = {}

    def walk(node: h5py.Group, path: str) -> None:
        groups[path] = Group(path, tuple(node), address(node), attributes(node))
        for name in node:
            child = f"{path}/{name}" if path else name
            if isinstance(node[name], h5py.Group):
                walk(node[name], child)
            else:
                datasets[child] = dataset(child, node[name])

    with h5py.File(path, "r") as file:
        walk(file["/"], "")
        return Tree(groups, datasets, (), file.id.get_filesize())


def _rotate(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & 0xFFFFFFFF


def lookup3(data: bytes) -> int:
    """Return Bob Jenkins' lookup3 of some bytes, with 0 as the start."""
    mask = 0xFFFFFFFF
    a = b = c = (0xDEADBEEF + len(data)) & mask
    while len(data) > 12:
        words = np.frombuffer(data[:12], "<u4").tolist()
        a, b, c = (a + words[0]) & mask, (b + words[1]) & mask, (c + words[2]) & mask
        for by in (4, 6, 8, 16, 19, 4):
            a = ((a - c) & mask) ^ _rotate(c, by)
            c = (c + b) & mask
            a, b, c = b, c, a
        data = data[12:]
    if not data:
        return c
    words = np.frombuffer(data.ljust(12, b"\0"), "<u4").tolist()
    a, b, c = (a + words[0]) & mask, (b + words[1]) & mask, (c + words[2]) & mask
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotate(b, by)) & mask
        a, b, c = b, c, a
    return b
