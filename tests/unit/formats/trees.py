"""Trees of HDF5 files without the files."""

from __future__ import annotations

import math

from ckptkit.formats.keras.hdf5.tree import Dataset, Group, Tree


def tree_of(datasets, *, groups=(), attributes=None):
    """Make a tree of datasets: paths, or paths with shapes or with (dtype, shape)."""
    attributes = attributes or {}
    shapes = datasets if isinstance(datasets, dict) else dict.fromkeys(datasets, (2,))
    links: dict[str, dict[str, None]] = {"": {}}
    for path, group in [*((path, False) for path in shapes), *((path, True) for path in groups)]:
        at, parts = "", path.split("/")
        for depth, part in enumerate(parts):
            links[at][part] = None
            at = f"{at}/{part}" if at else part
            if group or depth < len(parts) - 1:
                links.setdefault(at, {})
    found_groups: dict[str, Group] = {}
    found: dict[str, Dataset] = {}

    def walk(path):
        at = 64 * (len(found_groups) + len(found) + 1)
        if path not in links:
            one = shapes[path]
            dtype, shape = one if len(one) == 2 and isinstance(one[0], str) else ("float32", one)
            found[path] = Dataset(
                *(path, dtype, "little", shape, "contiguous", 4096, 4 * math.prod(shape)),
                *(4 * math.prod(shape), (), at, attributes.get(path, {})),
            )
            return
        names = tuple(sorted(links[path]))
        found_groups[path] = Group(path, names, at, attributes.get(path, {}))
        for name in names:
            walk(f"{path}/{name}" if path else name)

    walk("")
    return Tree(found_groups, found, (), 1 << 20)
