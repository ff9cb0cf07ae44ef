"""Files and folders as values, taken from a device and made real again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property


def place(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a name, as it is in its real folder."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


@dataclass(frozen=True, eq=False)
class Tree:
    """Files and folders: contents by path, the folders' paths, and which paths are one file."""

    files: dict[str, bytes]
    folders: frozenset[str]
    inodes: dict[str, int]

    def under(self, folder: str | os.PathLike[str]) -> dict[str, bytes]:
        """Return the contents of the files in a folder, by their paths in it."""
        head = os.path.join(place(folder), "")
        return {
            path.removeprefix(head): content
            for path, content in self.files.items()
            if path.startswith(head)
        }

    @cached_property
    def _key(self):
        first: dict[int, str] = {}
        for path in sorted(self.files):
            first.setdefault(self.inodes[path], path)
        alike = frozenset((path, first[inode]) for path, inode in self.inodes.items())
        return frozenset(self.files.items()), self.folders, alike

    def __eq__(self, other):
        return isinstance(other, Tree) and self._key == other._key

    def __hash__(self):
        return hash(self._key)


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Return the names of which not both have the same contents; a diff of those takes minutes."""
    names = sorted(found.keys() | expected.keys())
    return [name for name in names if found.get(name) != expected.get(name)]


def materialise(tree: Tree, root: str | os.PathLike[str], elsewhere: str | os.PathLike[str]):
    """Make the files and folders of a tree that lay in ``root``, in another folder; return that.

    Files that shared their contents under several names still do.
    """
    root = place(root)
    first: dict[int, str] = {}
    for folder in sorted(tree.folders):
        os.makedirs(moved_path(folder, root, elsewhere), exist_ok=True)
    for path, content in tree.files.items():
        there = moved_path(path, root, elsewhere)
        if tree.inodes[path] in first:
            os.link(first[tree.inodes[path]], there)
            continue
        first[tree.inodes[path]] = there
        with open(there, "xb") as file:
            file.write(content)
    return elsewhere


def moved_path(path: str, root: str, elsewhere: str | os.PathLike[str]) -> str:
    inner = os.path.relpath(path, root)
    if inner.startswith(os.pardir):
        msg = f"{path} does not lie in {root}"
        raise ValueError(msg)
    return os.path.normpath(os.path.join(elsewhere, inner))
