"""Groups and datasets of an open HDF5 file by path, through hard links alone."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from ckptkit.errors import EditError, UnsupportedError

if TYPE_CHECKING:
    from typing import NoReturn

MAX_OPEN: Final = 1024
"""Groups held open at a time."""


def encode(name: str) -> bytes:
    """Return the bytes of a name, those that are no UTF-8 included."""
    return name.encode("utf-8", "surrogateescape")


def split(path: str) -> tuple[str, str]:
    """Return the path of the group that something is in, and its name there."""
    parent, _, name = path.rpartition("/")
    return parent, name


def group_properties() -> Any:
    """Return how a group is made that tells no times."""
    from h5py import h5p

    found = h5p.create(h5p.GROUP_CREATE)
    found.set_obj_track_times(False)
    return found


def link_properties(name: bytes) -> Any:
    """Return how a link of this name is made; HDF5 wants to know which characters it is in."""
    from h5py import h5p, h5t

    found = h5p.create(h5p.LINK_CREATE)
    found.set_char_encoding(h5t.CSET_ASCII if name.isascii() else h5t.CSET_UTF8)
    return found


class Links:
    """The links of an open file.

    Attributes:
        file: The path of the file, for messages.
    """

    def __init__(self, root: Any, file: str | None) -> None:
        """Start at the root group of a file that stays open."""
        self.file = file
        self._root = root
        self._groups: OrderedDict[str, Any] = OrderedDict()

    def group(self, path: str) -> Any:
        """Open a group.

        Raises:
            EditError: There is none.
        """
        from h5py import h5g

        if not path:
            return self._root
        found = self._groups.get(path)
        if found is not None:
            self._groups.move_to_end(path)
        else:
            found = self.object(path)
            if not isinstance(found, h5g.GroupID):
                self.refuse(path, "it is a dataset, not a group")
            self.remember(path, found)
        return found

    def object(self, path: str) -> Any:
        """Open a group or a dataset.

        Raises:
            EditError: There is none.
        """
        from h5py import h5o

        if not path:
            return self._root
        if not self.has(path):
            self.refuse(path, "there is no such group or dataset")
        return h5o.open(*self.place(path))

    def has(self, path: str) -> bool:
        """Return whether a group that exists has a link of this name.

        Raises:
            EditError: There is no such group, or the name is none.
            UnsupportedError: The link leads elsewhere.
        """
        from h5py import h5l

        group, raw = self.place(path)
        if not group.links.exists(raw):
            return False
        if group.links.get_info(raw).type != h5l.TYPE_HARD:
            msg = f"{path!r} is a link that leads elsewhere; such files are not edited"
            raise UnsupportedError(msg, path=self.file)
        return True

    def place(self, path: str) -> tuple[Any, bytes]:
        """Return the group that something is in, or is to be, and its name there.

        Raises:
            EditError: There is no such group, or the name is none.
        """
        parent, name = split(path)
        raw = encode(name)
        if raw in {b"", b"."} or b"\0" in raw:
            self.refuse(path, "its last part is empty, a dot, or has a zero byte")
        return self.group(parent), raw

    def remember(self, path: str, group: Any) -> None:
        """Hold a group open."""
        self._groups[path] = group
        if len(self._groups) > MAX_OPEN:
            self._groups.popitem(last=False)

    def forget(self) -> None:
        """Hold nothing open: paths have changed."""
        self._groups.clear()

    def refuse(self, path: str, why: str) -> NoReturn:
        """Raise the error that a path deserves."""
        msg = f"{path!r}: {why}"
        raise EditError(msg, path=self.file)
