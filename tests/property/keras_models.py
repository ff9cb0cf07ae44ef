"""Strategies: small HDF5 files, by Keras and by others; edits of them, and what NumPy says."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from hypothesis import strategies as st

import ckptkit
from tests.crash import keras_files as made
from tests.golden.handmade import numpy_dtype, random_array
from tests.property.edited import EDITED, reference, regions, small_values, written
from tests.property.strategies import SEEDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ckptkit.edits import Edit

    Array = NDArray[Any]

OBJECTS = (
    "",
    "layers/dense",
    "layers/dense_1",
    "layers/functional/layers/dense",
    "layers/lstm/cell",
    "optimizer",
    "custom",
)
"""Paths of what has variables."""

GROUPS = ("layers/new/vars", "head", f"x{'long' * 30}/vars", "optimizer/vars")
"""Paths of groups that something may come to."""

KEYS = ("0", "1", "2", "10", "idf_weights")
STORAGE = ("plain", "plain", "plain", "chunked", "gzip", "checked", "big-endian")
OTHERS = ("bool", "complex64", "complex128", "uint16", "uint64", "int8")
SHAPES = st.lists(st.sampled_from([1, 2, 3, 7, 0]), max_size=3).map(tuple)
EXPRESSIONS = ("x * 0.5", "x + 3", "2 - x", "where(x > 1, x, 1)", "0", "clip(x, 0, 2)")


@dataclass
class Variable:
    """A dataset: its values, and how they are stored."""

    values: Array
    dtype: str
    storage: str

    @property
    def is_direct(self) -> bool:
        """Whether its bytes are a range of the file."""
        return self.storage == "plain" or not self.values.size


@dataclass
class Model:
    """A file that is not written yet.

    Attributes:
        variables: By path.
        names: Of the groups of variables that have one, by path of the group.
        groups: Paths of all groups that are made by themselves.
        order: In which order all of it is written.
        archived: It is in an archive.
    """

    variables: dict[str, Variable]
    names: dict[str, str]
    groups: list[str]
    order: list[str]
    archived: bool

    @property
    def suffix(self) -> str:
        """What its name has to end in."""
        return ".keras" if self.archived else ".weights.h5"

    def write(self, path: Path) -> None:
        """Write it."""
        if not self.archived:
            self._write_hdf5(path)
            return
        content = io.BytesIO()
        self._write_hdf5(content)
        members = {
            "metadata.json": made.METADATA,
            "config.json": made.config({}),
            made.WEIGHTS: content.getvalue(),
            "assets/words.txt": b"one\ntwo\n",
        }
        with zipfile.ZipFile(path, "w") as archive:
            for name, held in members.items():
                archive.writestr(zipfile.ZipInfo(name), held)

    def _write_hdf5(self, target: Any) -> None:
        with h5py.File(target, "w") as file:
            for path in self.order:
                if path in self.variables:
                    self._put(file, path, self.variables[path])
                    continue
                group = file.require_group(path)
                if path in self.names:
                    group.attrs["name"] = self.names[path]

    def _put(self, file: Any, path: str, variable: Variable) -> None:
        parent, _, key = path.rpartition("/")
        values, options = variable.values, {}
        if values.shape and values.size and variable.storage in {"chunked", "gzip", "checked"}:
            options["chunks"] = tuple(-(-n // 2) for n in values.shape)
            if variable.storage == "gzip":
                options["compression"] = "gzip"
            options["fletcher32"] = variable.storage == "checked"
        if variable.storage == "big-endian":
            values = values.astype(values.dtype.newbyteorder(">"))
        made.put(file.require_group(parent), key, values, **options)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Draw a file of a few variables."""
    variables: dict[str, Variable] = {}
    names: dict[str, str] = {}
    groups = []
    for path in draw(st.lists(st.sampled_from(OBJECTS), min_size=1, max_size=4, unique=True)):
        group = f"{path}/vars" if path else "vars"
        groups.append(group)
        if draw(st.booleans()):
            names[group] = draw(st.sampled_from(["dense", "head", "é", ""]))
        for key in draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True)):
            dtype = draw(st.sampled_from((*EDITED, *OTHERS)))
            shape, seed = draw(SHAPES), draw(SEEDS)
            storage = draw(st.sampled_from(STORAGE))
            if dtype in OTHERS:
                values = random_array(dtype, shape, seed)
            else:
                values = small_values(dtype, shape, seed)
            if not shape or dtype in {"bfloat16", "bool"} or values.dtype.itemsize == 1:
                storage = "plain"
            variables[f"{group}/{key}"] = Variable(values, dtype, storage)
    order = draw(st.permutations([*groups, *variables]))
    return Model(variables, names, groups, order, draw(st.booleans()))


@dataclass
class Case:
    """An edit of a file.

    Attributes:
        model: The file.
        edits: Statements, and edits that no statement is for.
        values: What all tensors are afterwards, by path.
        origin: Path before, by path afterwards; of what is new, none.
        touched: Paths before of what gets new values.
        remade: Whether something gets another dtype, or is new.
    """

    model: Model
    edits: list[str | Edit] = field(default_factory=list)
    values: dict[str, Array] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    remade: bool = False

    @property
    def indirect(self) -> bool:
        """Whether what gets new values is no range of bytes."""
        return any(not self.model.variables[path].is_direct for path in self.touched)

    @property
    def renamed(self) -> bool:
        """Whether there are other paths than before."""
        return any(new != old for new, old in self.origin.items()) or (
            len(self.origin) < len(self.model.variables)
        )


@st.composite
def cases(draw: st.DrawFn, *, names: bool = True, anew: bool = True) -> Case:
    """Draw a file and edits of it.

    Args:
        draw: Of Hypothesis.
        names: Paths may change, too.
        anew: Dtypes may change, and tensors may be new.
    """
    model = draw(models())
    case = Case(model)
    case.values = {path: one.values for path, one in model.variables.items()}
    case.origin = {path: path for path in model.variables}
    kinds = ["scale", "region", "set"]
    kinds += ["rename", "drop"] * names + ["cast", "put", "copy"] * anew
    for _ in range(draw(st.integers(1, 4))):
        _EDITS[draw(st.sampled_from(kinds))](draw, case)
    return case


def _chosen(draw: st.DrawFn, case: Case, dtypes: tuple[str, ...] | None = None) -> str | None:
    known = [
        path
        for path in sorted(case.values)
        if dtypes is None or case.values[path].dtype.name in dtypes
    ]
    return draw(st.sampled_from(known)) if known else None


def _touch(case: Case, path: str, values: Array) -> None:
    case.values[path] = values
    if path in case.origin:
        case.touched.add(case.origin[path])


def _scale(draw: st.DrawFn, case: Case) -> None:
    path = _chosen(draw, case, EDITED)
    if path is None:
        return
    values = case.values[path]
    text = draw(st.sampled_from(_for(values)))
    case.edits.append(f"{path} = {text}")
    _touch(case, path, reference(text, values, None, values.dtype.name))


def _for(values: Array) -> list[str]:
    whole = values.dtype.kind in "iu"
    return [text for text in EXPRESSIONS if not (whole and "0.5" in text)]


def _region(draw: st.DrawFn, case: Case) -> None:
    path = _chosen(draw, case, EDITED)
    if path is None or not case.values[path].shape:
        return
    values = case.values[path].copy()
    index = draw(regions(values.shape))
    text = draw(st.sampled_from(_for(values)))
    case.edits.append(f"{path}[{written(index)}] = {text}")
    values[index] = reference(text, values[index], None, values.dtype.name)
    _touch(case, path, values)


def _set(draw: st.DrawFn, case: Case) -> None:
    path = _chosen(draw, case)
    if path is not None:
        case.edits.append(f"{path} = cast(1, {case.values[path].dtype.name})")
        _touch(case, path, np.ones_like(case.values[path]))


def _new_path(draw: st.DrawFn, case: Case) -> str | None:
    group = draw(
        st.sampled_from(["layers/new/vars", "head", f"x{'long' * 30}/vars", "optimizer/vars"])
    )
    path = f"{group}/{draw(st.sampled_from(['0', '1', '7', 'w']))}"
    taken = path in case.values or path in case.origin.values()
    return None if taken else path


def _rename(draw: st.DrawFn, case: Case) -> None:
    path, new = _chosen(draw, case), _new_path(draw, case)
    if path is None or new is None:
        return
    case.edits.append(f"rename ^{path}$ -> {new}")
    case.values[new] = case.values.pop(path)
    if path in case.origin:
        case.origin[new] = case.origin.pop(path)


def _drop(draw: st.DrawFn, case: Case) -> None:
    path = _chosen(draw, case)
    if path is None or len(case.values) == 1:
        return
    case.edits.append(f"drop {path}")
    del case.values[path]
    case.touched.discard(case.origin.pop(path, ""))


def _cast(draw: st.DrawFn, case: Case) -> None:
    path = _chosen(draw, case, ("float32", "float64", "float16", "bfloat16"))
    if path is None:
        return
    dtype = draw(st.sampled_from(["float32", "float16", "bfloat16", "float64"]))
    case.edits.append(f"cast {path} -> {dtype}")
    if case.values[path].dtype.name != dtype:
        case.remade = True
        with np.errstate(all="ignore"):
            _touch(case, path, case.values[path].astype(numpy_dtype(dtype)))


def _put(draw: st.DrawFn, case: Case) -> None:
    new = _new_path(draw, case)
    if new is None:
        return
    dtype = draw(st.sampled_from((*EDITED, *OTHERS)))
    case.values[new] = random_array(dtype, draw(SHAPES), draw(SEEDS))
    case.edits.append(ckptkit.Put(new, case.values[new]))
    case.remade = True


def _copy(draw: st.DrawFn, case: Case) -> None:
    path, new = _chosen(draw, case), _new_path(draw, case)
    if path is None or new is None:
        return
    case.edits.append(f"copy {path} -> {new}")
    case.values[new] = case.values[path]
    case.remade = True


_EDITS = {
    "scale": _scale,
    "region": _region,
    "set": _set,
    "rename": _rename,
    "drop": _drop,
    "cast": _cast,
    "put": _put,
    "copy": _copy,
}


# --- what h5py finds ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """What h5py says of a dataset besides its values."""

    dtype: str
    attributes: tuple[tuple[str, str], ...]
    chunks: tuple[int, ...] | None
    compression: str | None


def look(path: Path) -> tuple[dict[str, Array], dict[str, Stored], dict[str, Any]]:
    """Return values, and how they are stored, by path; and links and attributes of groups."""
    stored: dict[str, Stored] = {}
    groups: dict[str, Any] = {}

    def note(name: str, node: Any) -> None:
        attributes = tuple(sorted((key, repr(value)) for key, value in node.attrs.items()))
        if isinstance(node, h5py.Dataset):
            stored[name] = Stored(str(node.dtype), attributes, node.chunks, node.compression)
        else:
            groups[name] = list(node), attributes

    content = made.content_of(path)
    with h5py.File(content, "r") as file:
        note("", file)
        file.visititems(note)
    return made.arrays_in(content), stored, groups


def members(path: Path) -> Mapping[str, bytes]:
    """Return the members of an archive by name, in order, without the weights."""
    if path.suffix != ".keras":
        return {}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist() if name != made.WEIGHTS}
