"""What lies around a SavedModel's variables: the program, other files, and a fingerprint.

``saved_model.pb`` repeats names, dtypes and shapes of the variables, so only values may change. It
is neither read nor run. ``fingerprint.pb`` is a ``FingerprintDef``, whose ``checkpoint_hash`` is
field 5, a varint: FarmHash Fingerprint64 of all bytes of ``variables/variables.index``. The other
fields are about saved_model.pb and stay as they are, ``uuid`` with them: the same edit gives the
same bytes, and the hash tells two results apart.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from ckptkit import _native
from ckptkit.errors import CorruptError, EditError
from ckptkit.formats.tensorflow.graph.load import load_graph
from ckptkit.formats.tensorflow.paths import FINGERPRINT, INDEX, VARIABLES, is_member
from ckptkit.formats.tensorflow.wire import VARINT, fields
from ckptkit.storage.sidecar import is_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.formats import Warn
    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph

MAX_BYTES: Final = 1 << 20
"""A fingerprint is some 60 bytes; a longer file is something else."""

KERAS_LIST: Final = "_all_variables/"
"""What the names begin with under which Keras 3 exports variables a second time."""

_HASH: Final = (5, VARINT)
"""Number and wire type of ``checkpoint_hash``; of another wire type a field is an unknown one."""

_LONGEST: Final = 10


# --- the program -------------------------------------------------------------------------------


def check_program(before: Catalog, after: Catalog, suspects: Sequence[str], folder: str) -> None:
    """Refuse an edit that saved_model.pb would contradict.

    Args:
        before: The variables as the program knows them.
        after: The edited ones.
        suspects: Names of those whose dtype or shape may have changed.
        folder: The SavedModel.

    Raises:
        EditError: It is one.
    """
    found = _contradiction(before, after, suspects)
    if found is None:
        return
    name, what = found
    bundle = os.path.join(folder, VARIABLES)
    msg = (
        f"{what}. Only values of a SavedModel can be edited: export it anew for more, or copy"
        f" {bundle}.* out of it, which is a checkpoint, and edit that"
    )
    raise EditError(msg, path=folder, tensor=name)


def _contradiction(
    before: Catalog, after: Catalog, suspects: Sequence[str]
) -> tuple[str, str] | None:
    """Return a tensor that the program would contradict, and how; None if there is none."""
    if list(before.names) != list(after.names):
        there = set(after.names)
        gone = [name for name in before.names if name not in there]
        new = [at for at, name in enumerate(after.names) if name not in before]
        rows = {before.row(name): name for name in gone}
        for at in new:
            name, old = after.names[at], rows.get(after.rows[at])
            if old is not None:
                text = f"this edit renames {old!r} to {name!r}, and saved_model.pb restores {old!r}"
                return old, f"{text}: it would not load"
        if gone:
            text = f"this edit drops {gone[0]!r}, and saved_model.pb restores it"
            return gone[0], f"{text}: it would not load"
        if new:
            name = after.names[new[0]]
            return name, f"this edit adds {name!r}, and nothing in saved_model.pb would restore it"
    # Names may have changed places.
    moved: list[str] = []
    if list(before.names) != list(after.names) or list(before.rows) != list(after.rows):
        moved = [
            name
            for name, row in zip(after.names, after.rows, strict=True)
            if name in before and before.row(name) != row
        ]
    for name in (*suspects, *moved):
        if name in before and before.spec(name) != after.spec(name):
            old_spec, spec = before.spec(name), after.spec(name)
            field = "dtype" if old_spec.dtype != spec.dtype else "shape"
            text = (
                f"this edit makes {spec} of {name!r}, and saved_model.pb says {old_spec}: its"
                f" {field} would be another one than the program expects"
            )
            return name, text
    return None


def check_twins(before: Catalog, after: Catalog) -> None:
    """Refuse an edit that leaves two tensors apart that are one variable.

    Keras 3 exports a model with every variable twice: as ``variables/N``, from which
    ``tf.saved_model.load`` predicts, and as ``_all_variables/M``, from which a session does, and
    with it TensorFlow Serving. Twins have one ``full_name`` in the object graph, and the same
    bytes.

    Raises:
        EditError: One of two twins changes.
    """
    if not any(name.startswith(KERAS_LIST) for name in before.names):
        return
    try:
        graph = load_graph(before)
    except CorruptError:
        return
    if graph is None:
        return
    changed = {after.names[at] for at in after.changed_at().tolist()}
    for one, other in _twins(graph):
        if (one in changed) != (other in changed) and _alike(before, one, other):
            changes, stays = (one, other) if one in changed else (other, one)
            msg = (
                f"{changes!r} would change, and {stays!r} would not, which is the same variable:"
                f" Keras exports hold all of them twice, and tf.saved_model.load predicts from one,"
                f" TensorFlow Serving from the other; edit both alike"
            )
            raise EditError(msg, tensor=changes)


def _twins(graph: ObjectGraph) -> Iterator[tuple[str, str]]:
    """Yield the two keys of every variable that is listed, where its name is that of no other."""
    listed: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for full_name, key in zip(graph.full_name, graph.key, strict=True):
        keys = listed if key.startswith(KERAS_LIST) else others
        keys.setdefault(full_name, []).append(key)
    for full_name, known in listed.items():
        twins = others.get(full_name, [])
        if len(known) == len(twins) == 1:
            yield known[0], twins[0]


def _alike(catalog: Catalog, one: str, other: str) -> bool:
    if one not in catalog or other not in catalog:
        return False
    columns, rows = catalog.columns, (catalog.row(one), catalog.row(other))
    sizes, sums = ({column[row] for row in rows} for column in (columns.size, columns.checksum))
    return len(sizes) == len(sums) == 1 and catalog.spec(one) == catalog.spec(other)


# --- other files -------------------------------------------------------------------------------


def companions(old: str, new: str, *, in_place: bool) -> Iterator[tuple[str, str]]:
    """Yield from and to of every file of a SavedModel that holds no variables.

    In place only the fingerprint is another afterwards. A link within the SavedModel is copied as
    what it leads to.

    Raises:
        EditError: A link leads out of the SavedModel, or something there is no file.
    """
    if in_place:
        fingerprint = os.path.join(new, FINGERPRINT)
        if os.path.isfile(fingerprint):
            yield fingerprint, fingerprint
        return
    bundle = os.path.join(old, VARIABLES)
    for path in _files(old, os.path.realpath(old), linked=False):
        if not is_member(bundle, path):
            yield path, os.path.join(new, os.path.relpath(path, old))


def _files(place: str, root: str, *, linked: bool) -> Iterator[str]:
    """Yield the files in a folder, and in folders within it.

    Args:
        place: The folder.
        root: The real path of the whole, which links may not leave.
        linked: It was reached by a link; such folders have no further ones, or there might be no
            end to them.
    """
    folders = []
    for name in sorted(os.listdir(place)):
        path = os.path.join(place, name)
        if is_sidecar(name):
            continue
        link = os.path.islink(path)
        if link:
            _check_link(path, root)
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            if link and linked:
                msg = "a link to a folder, in a folder that is reached by a link; put files here"
                raise EditError(msg, path=path)
            folders.append((path, linked or link))
        elif stat.S_ISREG(mode):
            yield path
        else:
            msg = "this is neither a file nor a folder, and a SavedModel has nothing else"
            raise EditError(msg, path=path)
    for path, through in folders:
        yield from _files(path, root, linked=through)


def _check_link(path: str, root: str) -> None:
    target = os.path.realpath(path)
    if not target.startswith(os.path.join(root, "")) and target != root:
        msg = (
            f"a link that leads out of the SavedModel, to {target}: a copy would take along what is"
            f" no part of it; if it is, copy it there first (cp -rL makes files of links)"
        )
        raise EditError(msg, path=path)
    if not os.path.exists(path):
        msg = "a link that leads nowhere; remove it"
        raise EditError(msg, path=path)


# --- the fingerprint ---------------------------------------------------------------------------


def with_checkpoint_hash(fingerprint: bytes, index: bytes, *, path: str) -> bytes:
    """Return a fingerprint with the hash of a new index; all other fields as they were.

    A new hash is written in as many bytes as the longest number takes, so that the length of the
    result is known before the index is.

    Raises:
        CorruptError: The fingerprint does not parse, or is too long to be one.
    """
    found = _native.fingerprint64(index)
    if checkpoint_hash(fingerprint, path=path) == found:
        return fingerprint
    others = [one for one in fields(fingerprint) if (one.number, one.kind) != _HASH]
    before, after = (
        b"".join(fingerprint[one.start : one.end] for one in others if is_there(one.number))
        for is_there in (_HASH[0].__gt__, _HASH[0].__le__)
    )
    tag = bytes([_HASH[0] << 3 | _HASH[1]])
    padded = bytes(found >> 7 * n & 0x7F | 0x80 for n in range(_LONGEST - 1))
    return before + tag + padded + bytes([found >> 7 * (_LONGEST - 1)]) + after


def checkpoint_hash(fingerprint: bytes, *, path: str) -> int | None:
    """Return the hash of the index that a fingerprint has; None if it has none.

    Raises:
        CorruptError: The fingerprint does not parse, or is too long to be one.
    """
    advice = "TensorFlow loads without it: remove it to go on"
    if len(fingerprint) > MAX_BYTES:
        msg = f"a fingerprint has at most {MAX_BYTES} bytes; {advice}"
        raise CorruptError(msg, path=path)
    try:
        found = [one.value for one in fields(fingerprint) if (one.number, one.kind) == _HASH]
    except CorruptError as error:
        msg = f"the fingerprint does not parse; {advice}"
        raise CorruptError(msg, path=path, offset=error.offset) from None
    return found[-1] if found else None


def read_fingerprint(path: str) -> bytes:
    """Return the bytes of a fingerprint, one more than it may have at most."""
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)


def audit_fingerprint(folder: str, warn: Warn) -> None:
    """Report a fingerprint that is not of the variables beside it.

    Nothing looks at it when a SavedModel is loaded, so that is no error; one need not be there.
    """
    path, index = os.path.join(folder, FINGERPRINT), os.path.join(folder, VARIABLES + INDEX)
    if not os.path.isfile(path):
        return
    try:
        told = checkpoint_hash(read_fingerprint(path), path=path)
    except CorruptError as error:
        warn(path, error.offset, error.message)
        return
    with open(index, "rb") as file:
        found = _native.fingerprint64(file.read())
    if told != found:
        msg = (
            f"the fingerprint's checkpoint_hash is {told or 0}, that of {VARIABLES}{INDEX} is"
            f" {found}: one of them was changed without the other; an edit sets it"
        )
        warn(path, None, msg)
