"""Attributes of HDF5 objects: carried as they are, and given new values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ckptkit.errors import EditError, UnsupportedError
from ckptkit.formats.keras.hdf5.links import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptkit.formats.keras.hdf5.tree import Value

MAX_LIST: Final = 64512
"""Bytes of a list of texts in an object header, as Keras has it; of longer ones it makes several
attributes."""

REFERENCE: Final = 16
"""Bytes in an object header that tell where else in the file a text of any length is."""


def names(holder: Any) -> list[bytes]:
    """Return the names of the attributes of an object, in the order in which it has them."""
    from h5py import h5, h5a

    found: list[bytes] = []
    if not h5a.get_num_attrs(holder):
        return found

    def note(name: bytes) -> None:
        found.append(name)

    if holder.get_create_plist().get_attr_creation_order():
        h5a.iterate(holder, note, index_type=h5.INDEX_CRT_ORDER, order=h5.ITER_INC)
    else:
        h5a.iterate(holder, note, index_type=h5.INDEX_NAME, order=h5.ITER_NATIVE)
    return found


def carry(source: Any | None, target: Any, others: Mapping[str, Value]) -> None:
    """Give a new object the attributes of an old one, some with other values.

    What is not given another value keeps datatype, dataspace and bytes.

    Args:
        source: The old object (``h5py.h5o.ObjectID``), if there is one.
        target: The new one, without attributes.
        others: The other values by name; None: the attribute goes.

    Raises:
        EditError: A value does not fit an attribute.
        UnsupportedError: An attribute refers to other objects.
    """
    from h5py import h5a

    left = {encode(name): value for name, value in others.items()}
    for name in names(source) if source is not None else ():
        old = h5a.open(source, name)
        if name not in left:
            _carry(old, target, name)
        elif (value := left.pop(name)) is not None:
            _make(target, name, value, old)
    for name, value in left.items():
        if value is not None:
            _make(target, name, value, None)


def put(holder: Any, name: str, value: Value) -> None:
    """Give an object that exists an attribute, another value of one, or take it away.

    An attribute of the same type and shape keeps its place; a list of texts keeps its kind.

    Args:
        holder: The object (``h5py.h5o.ObjectID``).
        name: Of the attribute.
        value: None: it goes, if it is there.

    Raises:
        EditError: The value does not fit an attribute.
    """
    from h5py import h5a

    raw = encode(name)
    old = h5a.open(holder, raw) if h5a.exists(holder, raw) else None
    if old is None:
        if value is not None:
            _make(holder, raw, value, None)
        return
    if value is None:
        h5a.delete(holder, raw)
        return
    form = _Form(raw, value, old)
    if old.get_type().equal(form.kind) and old.shape == form.values.shape:
        form.write(old)
        return
    # Under another name first: were there no room for it, the old one would still be there.
    fresh = raw + b"\x01new"
    form.write(h5a.create(holder, fresh, form.kind, form.space))
    del old
    h5a.delete(holder, raw)
    h5a.rename(holder, fresh, raw)


class _Form:
    """How a value is written: datatype, dataspace, and the elements in memory."""

    def __init__(self, name: bytes, value: Value, old: Any | None) -> None:
        from h5py import h5t

        self.memory: Any = None
        if isinstance(value, str):
            self.kind, self.values = _variable_text(), np.array(encode(value), object)
        elif isinstance(value, tuple) and value:
            texts = [encode(one) for one in value]
            self.kind = _kind_of(texts, old)
            if _size(self.kind) * len(texts) > MAX_LIST:
                msg = (
                    f"attribute {_shown(name)}: {len(texts)} texts take more than {MAX_LIST} bytes"
                )
                raise EditError(msg)
            self.values = np.empty(len(texts), object)
            self.values[:] = texts
        else:
            # Keras writes an empty list as the array that NumPy makes of one.
            self.values = np.asarray(list(value) if isinstance(value, tuple) else value)
            if self.values.dtype.kind not in "fiub":
                msg = f"attribute {_shown(name)}: {value!r} is no number that HDF5 holds"
                raise EditError(msg)
            self.kind = h5t.py_create(self.values.dtype, logical=True)
        if self.kind.get_class() == h5t.STRING:
            if self.kind.is_variable_str():
                self.values = self.values.astype(_text_dtype(self.kind))
            else:
                size = self.kind.get_size()
                self.values = self.values.astype(f"S{size}").view(f"V{size}")
                self.memory = self.kind
        self.space = space(self.values.shape)

    def write(self, attribute: Any) -> None:
        if self.values.size:
            attribute.write(self.values, mtype=self.memory)


def _make(holder: Any, name: bytes, value: Value, old: Any | None) -> None:
    from h5py import h5a

    form = _Form(name, value, old)
    form.write(h5a.create(holder, name, form.kind, form.space))


def space(shape: tuple[int, ...]) -> Any:
    """Return the dataspace (``h5py.h5s.SpaceID``) of a shape."""
    from h5py import h5s

    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


def _variable_text(*, ascii_only: bool = False) -> Any:
    from h5py import h5t

    kind = h5t.C_S1.copy()
    kind.set_size(h5t.VARIABLE)
    kind.set_cset(h5t.CSET_ASCII if ascii_only else h5t.CSET_UTF8)
    return kind


def _text_dtype(kind: Any) -> np.dtype[Any]:
    import h5py

    ascii_only = kind.get_cset() == h5py.h5t.CSET_ASCII
    found: np.dtype[Any] = h5py.string_dtype("ascii" if ascii_only else "utf-8")
    return found


def _kind_of(texts: list[bytes], old: Any | None) -> Any:
    """Return the datatype for a list: that of the old one with room for it, or as Keras does."""
    from h5py import h5t

    longest = max(1, *map(len, texts))
    kind = old.get_type() if old is not None else None
    if not isinstance(kind, h5t.TypeStringID):
        kind = _variable_text(ascii_only=all(text.isascii() for text in texts))
    else:
        kind = kind.copy()
    if not kind.is_variable_str():
        kind.set_size(longest + (kind.get_strpad() == h5t.STR_NULLTERM))
    elif _size(kind) * len(texts) > MAX_LIST:
        # Short texts take less than what would refer to them elsewhere in the file.
        kind = h5t.C_S1.copy()
        kind.set_size(longest)
        kind.set_strpad(h5t.STR_NULLPAD)
    return kind


def _size(kind: Any) -> int:
    """Return the bytes of one text in an object header."""
    return REFERENCE if kind.is_variable_str() else int(kind.get_size())


def _carry(old: Any, target: Any, name: bytes) -> None:
    """Make an attribute of the same datatype, dataspace and bytes."""
    from h5py import h5a, h5s

    kind, extent = old.get_type().copy(), old.get_space()
    new = h5a.create(target, name, kind, extent)
    if extent.get_simple_extent_type() == h5s.NULL or not extent.get_simple_extent_npoints():
        return
    fixed = _fixed(kind, name)
    # Of what is elsewhere in the file h5py makes objects, and of them the same again.
    dtype = np.dtype(f"V{kind.get_size()}") if fixed else kind.dtype
    memory = kind if fixed else None
    values = np.empty(extent.get_simple_extent_dims(), dtype)
    old.read(values, mtype=memory)
    new.write(values, mtype=memory)


def _fixed(kind: Any, name: bytes) -> bool:
    """Return whether elements are all in their place, not elsewhere in the file."""
    from h5py import h5t

    match kind.get_class():
        case h5t.STRING:
            return not kind.is_variable_str()
        case h5t.VLEN:
            _fixed(kind.get_super(), name)
            return False
        case h5t.ARRAY:
            return _fixed(kind.get_super(), name)
        case h5t.COMPOUND:
            members = [kind.get_member_type(at) for at in range(kind.get_nmembers())]
            # Every member is looked at: any of them may be what is refused.
            return len(members) == sum(_fixed(member, name) for member in members)
        case h5t.REFERENCE:
            msg = f"attribute {_shown(name)} refers to objects of its file, and cannot be carried"
            raise UnsupportedError(msg)
    return True


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))
