"""HDF5 files as h5py sees them, and files made of skeletons and runs."""

from __future__ import annotations

import h5py
import numpy as np

from ckptkit.formats.keras.hdf5.content import Content
from ckptkit.formats.keras.hdf5.reader import read_tree
from ckptkit.formats.keras.hdf5.skeleton import Wanted, WantedGroup
from ckptkit.storage.disk import Disk


def content(path, start=0, length=None):
    """Return the HDF5 content of a file, or of a part of it."""
    file = Disk().open(str(path))
    length = file.size - start if length is None else length
    return Content(file, start, length, read_tree(file, start, length))


def everything(found):
    """Ask for a copy of all that is there, stored as it is."""
    groups = [WantedGroup(path, path) for path in found.tree.groups]
    datasets = found.tree.datasets.values()
    return [Wanted(one.path, one.dtype, one.shape, one.path, True) for one in datasets], groups


def materialise(skeleton, path, data=None, source=None):
    """Write a skeleton, the data of its contiguous datasets, and what it carries."""
    with open(path, "wb") as file:
        file.truncate(skeleton.size)
        for offset, run in skeleton.runs:
            file.seek(offset)
            file.write(run)
        for name, (offset, length) in skeleton.extents.items():
            if length:
                raw = np.ascontiguousarray(data[name]).tobytes() if data else bytes(length)
                assert len(raw) == length
                file.seek(offset)
                file.write(raw)
        for _, old, new, length in skeleton.carried:
            file.seek(new)
            file.write(source.file.read(source.start + old, length))
    return path


def walk(path):
    """Return all that h5py sees: links in order, attributes and data with their types."""
    seen = {}

    def look(node, name):
        links = tuple(node) if isinstance(node, h5py.Group) else None
        data = None
        if isinstance(node, h5py.Dataset):
            raw = node[()]
            data = (node.dtype, node.shape, node.maxshape, np.asarray(raw).tobytes())
        seen[name] = (links, attributes(node), data)
        for link in links or ():
            # h5py gives names that are no UTF-8 as they are.
            raw = link if isinstance(link, bytes) else link.encode()
            assert node.id.links.get_info(raw).type == h5py.h5l.TYPE_HARD
            look(node[raw], f"{name}/{link}" if name else str(link))

    with h5py.File(path, "r") as file:
        look(file, "")
    return seen


def attributes(node):
    """Return the attributes of an object: datatype as HDF5 encodes it, shape, and values."""
    found = {}
    for name in node.attrs:
        one = node.attrs.get_id(name)
        value = node.attrs[name]
        if isinstance(value, np.ndarray):
            value = [x.tolist() if isinstance(x, np.ndarray) else x for x in value.ravel()]
        found[name] = (one.get_type().encode(), one.shape, repr(value))
    return found


def patched(found, relinked, path):
    """Write a file with runs over it."""
    raw = bytearray(found.file.read(found.start, found.length))
    raw += bytes(relinked.size - len(raw))
    for start, run in relinked.runs:
        assert start + len(run) <= relinked.size
        raw[start : start + len(run)] = run
    path.write_bytes(raw)
    return path
