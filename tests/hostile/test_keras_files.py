"""Keras files that are damaged, or made to mislead: from their path to what a person reads."""

from __future__ import annotations

import io
import json
import random
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

import ckptkit
from ckptkit import CorruptError, UnknownFormatError, UnsupportedError, _native
from ckptkit.cli import main
from ckptkit.errors import CkptError, FormatError
from tests.golden.make import FILES
from tests.hostile.archives import Forged, deflate, forge
from tests.hostile.models import (
    BIAS,
    DENSE,
    KERNEL,
    VALUES,
    config,
    dumped,
    hdf5,
    keras,
    weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = Forged(b"config.json", dumped(config()).encode())
WEIGHTS = Forged(b"model.weights.h5", hdf5())


def refused(path: Path, error: type[FormatError], *reasons: str) -> FormatError:
    """Require that a checkpoint does not open, and that verifying it says why."""
    with pytest.raises(error) as caught:
        ckptkit.open(path)
    assert type(caught.value) is error
    for reason in reasons:
        assert reason in str(caught.value)
    assert main(["verify", "-q", str(path)]) in {1, 3}
    return caught.value


def survives(path: Path) -> bool:
    """Do all that reads a checkpoint; tell whether it opened. Nothing but our errors is raised."""
    try:
        found = ckptkit.open(path)
    except FormatError:
        return False
    with found:
        for name in found:
            try:
                found[name].read()
            except CkptError:
                continue
        found.verify()
        return True


# --- shards --------------------------------------------------------------------------------------


def shards(folder: Path, *listed: Any, **files: bytes) -> Path:
    """Write shards and a map that says that the layer is in these."""
    for name, content in files.items():
        (folder / f"{name}.weights.h5").write_bytes(content)
    text = {"metadata": {"total_size": 32.0}, "weight_map": {"/layers/dense/vars": [*listed]}}
    path = folder / "m.weights.json"
    path.write_text(json.dumps(text))
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("../m_00000.weights.h5", "/etc/m.weights.h5", "./m_00000.weights.h5", "a/b.weights.h5"),
        *("..\\m.weights.h5", "C:m.weights.h5", "..", ".", "", "m_0\0.weights.h5"),
    ],
)
def test_shards_that_are_named_with_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "m_00000.weights.h5").write_bytes(hdf5())
    path = shards(tmp_path / "in", name, m_00000=hdf5())
    refused(path, CorruptError, "shards lie beside it, and are named without a folder")


def test_shards_of_another_kind(tmp_path: Path) -> None:
    refused(shards(tmp_path, "secret.txt"), UnsupportedError, "only shards that are .h5 files")


def test_shards_that_are_not_there(tmp_path: Path) -> None:
    path = shards(tmp_path, "m_00000.weights.h5", "m_00001.weights.h5", m_00000=hdf5())
    refused(path, CorruptError, "'m_00001.weights.h5'", "no such file beside it")
    (tmp_path / "m_00001.weights.h5").mkdir()
    refused(path, CorruptError, "no such file beside it")


def test_a_shard_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere.weights.h5").write_bytes(hdf5())
    path = shards(tmp_path / "in", "m_00000.weights.h5")
    (tmp_path / "in" / "m_00000.weights.h5").symlink_to(tmp_path / "elsewhere.weights.h5")
    refused(path, CorruptError, "m_00000.weights.h5")


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    names = ("m_00000.weights.h5", "m_00001.weights.h5")
    path = shards(tmp_path, *names, m_00000=hdf5(), m_00001=hdf5())
    error = refused(path, CorruptError, "it is in two shards, m_00001.weights.h5 is the second")
    assert error.tensor == KERNEL


def test_a_shard_without_what_the_map_says(tmp_path: Path) -> None:
    other = hdf5(fill=lambda file: file.create_dataset("layers/other/vars/0", data=[1.0]))
    names = ("m_00000.weights.h5", "m_00001.weights.h5")
    path = shards(tmp_path, *names, m_00000=hdf5(), m_00001=other)
    refused(path, CorruptError, "'/layers/dense/vars'", "m_00001.weights.h5 has none of it")


@pytest.mark.parametrize("content", [b"", b"hello", hdf5()[:3000], b"PK\3\4"])
def test_a_shard_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = shards(tmp_path, "m_00000.weights.h5", m_00000=content)
    error = refused(path, CorruptError)
    assert error.path == str(tmp_path / "m_00000.weights.h5")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"weight_map": "x.h5"}', 'no "metadata" and "weight_map" objects'),
        ('{"weight_map": {}, "metadata": {"total_size": 1}, "weight_map": {}}', "more than once"),
        ('{"weight_map": ".h5"' + ", " + '"a": [' * 300 + "]" * 300 + "}", "nested deeper"),
        ('{"weight_map": ".h5", "a": NaN,}', "is no JSON"),
        ('{"metadata": {"total_size": 1e999}, "weight_map": {"/a": "b.h5"}}', "total_size"),
        ('{"metadata": {"total_size": 1}, "weight_map": {"a/../b": "b.h5"}}', "no path of a group"),
        ('{"metadata": {"total_size": 1}, "weight_map": {"/a": 3, "/b": ".h5"}}', "a file name or"),
    ],
)
def test_maps_that_are_none(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "m.weights.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=reason):
        ckptkit.open(path)


# --- archives ------------------------------------------------------------------------------------


def archive(folder: Path, *members: Forged, **end: int) -> Path:
    path = folder / "m.keras"
    path.write_bytes(forge(*members, **end))
    return path


@pytest.mark.parametrize(
    ("members", "error", "reason"),
    [
        ((CONFIG, WEIGHTS, WEIGHTS), CorruptError, "2 members have the name 'model.weights.h5'"),
        ((CONFIG, CONFIG, WEIGHTS), CorruptError, "2 members have the name 'config.json'"),
        ((CONFIG, replace(WEIGHTS, there={"name": b"model.weights.h6"})), CorruptError, "name is"),
        ((CONFIG, replace(WEIGHTS, there={"crc": 5})), CorruptError, "CRC-32 is 5"),
        ((CONFIG, replace(WEIGHTS, there={"size": 5})), CorruptError, "size is 5"),
        ((CONFIG, replace(WEIGHTS, there={"method": 8})), CorruptError, "method is 8"),
        ((CONFIG, replace(WEIGHTS, flags=1)), UnsupportedError, "it is encrypted"),
        ((CONFIG, replace(WEIGHTS, method=12)), UnsupportedError, "compression method 12"),
        ((CONFIG, replace(WEIGHTS, method=8)), CorruptError, "does not inflate"),
        ((CONFIG, replace(WEIGHTS, data=b"")), CorruptError, ""),
        ((CONFIG, replace(WEIGHTS, name=b"sub/model.weights.h5")), UnsupportedError, "no member"),
        ((CONFIG, replace(WEIGHTS, name=b"model.weights.h5/")), UnsupportedError, "no member"),
        ((CONFIG,), UnsupportedError, "no member model.weights.h5"),
    ],
)
def test_archives(
    tmp_path: Path, members: tuple[Forged, ...], error: type[FormatError], reason: str
) -> None:
    refused(archive(tmp_path, *members), error, reason)


def test_compressed_weights_that_are_sound(tmp_path: Path) -> None:
    raw = hdf5()
    packed = Forged(
        b"model.weights.h5", deflate(raw), method=8, size=len(raw), crc=_native.crc32(raw)
    )
    path = archive(tmp_path, CONFIG, packed)
    with ckptkit.open(path) as found:
        np.testing.assert_array_equal(found[KERNEL].read(), VALUES)
    refused(archive(tmp_path, CONFIG, replace(packed, crc=7)), CorruptError, "checksum mismatch")


@pytest.mark.parametrize(
    "names", [["assets/a"], ["Model.weights.h5", "MODEL.WEIGHTS.H5"], ["a/b/c"]]
)
def test_members_besides(tmp_path: Path, names: list[str]) -> None:
    others = {name: f"the content of {name}".encode() for name in names}
    path = keras(tmp_path / "m.keras", dumped(config()), **others)
    with ckptkit.open(path) as found:
        assert [*found] == [KERNEL, BIAS]
        found.edit("layer:head/kernel = 0", "drop layer:head/bias").plan(tmp_path / "n.keras").run()
    with zipfile.ZipFile(tmp_path / "n.keras") as copied:
        assert copied.testzip() is None
        assert copied.namelist()[3:] == names
        assert {name: copied.read(name) for name in names} == others


# --- HDF5 ----------------------------------------------------------------------------------------


def moved(raw: bytes, name: str, to: Callable[[int], int]) -> bytes:
    """Return a file in which the bytes of a tensor are said to be elsewhere."""
    with h5py.File(io.BytesIO(raw)) as file:
        offset, nbytes = file[name].id.get_offset(), file[name].nbytes
    old = offset.to_bytes(8, "little") + nbytes.to_bytes(8, "little")
    assert raw.count(old) == 1
    return raw.replace(old, to(offset).to_bytes(8, "little") + nbytes.to_bytes(8, "little"))


def offset_of(raw: bytes, name: str) -> int:
    with h5py.File(io.BytesIO(raw)) as file:
        found: int = file[name].id.get_offset()
        return found


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        (lambda raw: offset_of(raw, KERNEL), "overlap"),
        (lambda raw: offset_of(raw, KERNEL) + 20, "overlap"),
        (lambda raw: 96, "overlap"),
        (lambda raw: len(raw) - 4, ""),
        (lambda raw: 1 << 62, ""),
    ],
)
@pytest.mark.parametrize("kind", ["m.weights.h5", "m.keras"])
def test_bytes_that_are_not_their_own(
    tmp_path: Path, kind: str, to: Callable[[bytes], int], reason: str
) -> None:
    raw = hdf5()
    bad = moved(raw, BIAS, lambda _: to(raw))
    path = tmp_path / kind
    if kind == "m.keras":
        keras(path, dumped(config()), bad)
    else:
        path.write_bytes(bad)
    assert reason in str(refused(path, CorruptError)).replace("overlapping", "overlap")


def cycle(file: h5py.File) -> None:
    file["layers/dense/again"] = file["layers"]


def deep(file: h5py.File) -> None:
    file["/".join(["a"] * 2000)] = VALUES


TYPES: dict[str, Callable[[h5py.File], object]] = {
    "text": lambda file: file.create_dataset("layers/dense/vars/2", data=["a", "b"]),
    "lists": lambda file: file.create_dataset(
        "layers/dense/vars/2", (2,), h5py.vlen_dtype(np.float32)
    ),
    "fixed text": lambda file: file.create_dataset("layers/dense/vars/2", data=np.array([b"abc"])),
    "records": lambda file: file.create_dataset(
        "layers/dense/vars/2", data=np.zeros(2, [("a", "f4"), ("b", "i2")])
    ),
    "references": lambda file: file.create_dataset(
        "layers/dense/vars/2", data=file["layers"].ref, dtype=h5py.ref_dtype
    ),
    "opaque bytes": lambda file: file.create_dataset("layers/dense/vars/2", data=np.zeros(2, "V5")),
    "an enumeration": lambda file: file.create_dataset(
        "layers/dense/vars/2", (2,), h5py.enum_dtype({"RED": 1, "BLUE": 5}, "i4")
    ),
    "arrays": lambda file: file.create_dataset("layers/dense/vars/2", (2,), np.dtype("(3,)f4")),
    "a cycle": cycle,
    "a type that is shared": lambda file: (
        file.__setitem__("kind", np.dtype("f4")),
        file.create_dataset("layers/dense/vars/2", (2,), file["kind"]),
    ),
}


@pytest.mark.parametrize("kind", TYPES)
def test_what_no_weights_are(tmp_path: Path, kind: str) -> None:
    path = weights(tmp_path / "m.weights.h5", TYPES[kind])
    with pytest.raises(FormatError):
        ckptkit.open(path)


def test_groups_without_end(tmp_path: Path) -> None:
    path = weights(tmp_path / "m.weights.h5", deep)
    with pytest.raises(FormatError):
        ckptkit.open(path)


def test_two_names_of_one_dataset_are_read_and_not_edited_apart(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["layers/dense/vars/2"] = file[KERNEL]

    path = weights(tmp_path / "m.weights.h5", change)
    with ckptkit.open(path) as found:
        np.testing.assert_array_equal(found["layers/dense/vars/2"].read(), VALUES)
        found.edit(f"{KERNEL} *= 2").plan(tmp_path / "n.weights.h5").run(device="numpy")
    with ckptkit.open(tmp_path / "n.weights.h5") as found:
        np.testing.assert_array_equal(found[KERNEL].read(), VALUES * 2)
        np.testing.assert_array_equal(found["layers/dense/vars/2"].read(), VALUES)


# --- damage --------------------------------------------------------------------------------------

SAMPLES = (
    "keras_sequential.keras",
    "keras_nested.weights.h5",
    "keras_legacy.h5",
    "keras_repacked.weights.h5",
)


@pytest.mark.parametrize("name", SAMPLES)
def test_files_that_were_cut_short(tmp_path: Path, name: str) -> None:
    raw, path = (FILES / name).read_bytes(), tmp_path / name
    for length in {*range(64), *range(64, len(raw), 97), *range(len(raw) - 30, len(raw))}:
        path.write_bytes(raw[:length])
        with pytest.raises(FormatError):
            ckptkit.open(path)


@pytest.mark.parametrize("name", SAMPLES)
def test_files_with_a_byte_that_is_other(tmp_path: Path, name: str) -> None:
    raw, path, chance = (FILES / name).read_bytes(), tmp_path / name, random.Random(name)
    opened = 0
    for _ in range(300):
        bad = bytearray(raw)
        bad[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        opened += survives(path)
    assert 0 < opened <= 300


def test_shards_with_a_byte_that_is_other(tmp_path: Path) -> None:
    names = [path.name for path in FILES.glob("keras_shards*")]
    kept = {name: (FILES / name).read_bytes() for name in names}
    for name, raw in kept.items():
        (tmp_path / name).write_bytes(raw)
    chance = random.Random(1)
    for _ in range(150):
        name = chance.choice(names)
        bad = bytearray(kept[name])
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        (tmp_path / name).write_bytes(bad)
        survives(tmp_path / "keras_shards.weights.json")
        (tmp_path / name).write_bytes(kept[name])


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5", "m.weights.json", "m"])
@pytest.mark.parametrize("content", [b"", b"\0", b"{", b"{}", b"PK\5\6" + bytes(18), b"\x89HDF"])
def test_next_to_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises((FormatError, UnknownFormatError)):
        ckptkit.open(path)


# --- what a person sees --------------------------------------------------------------------------

RED = "\x1b[31mred\u202e\x07"


def screens(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> str:
    """Run a command line; require that a terminal obeys nothing that it writes."""
    assert main([*map(str, args)]) == code
    out, err = capsys.readouterr()
    assert all(character.isprintable() or character == "\n" for character in out + err)
    assert "\\x1b[31mred" in out + err
    return out + err


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A model with a layer, a dataset and a member whose names drive a terminal."""

    def change(file: h5py.File) -> None:
        file["layers/dense/vars"].attrs["name"] = RED
        file[f"layers/{RED}/vars/0"] = VALUES

    layer = {**DENSE, "config": {**DENSE["config"], "name": RED}}
    text = config()
    text["config"]["layers"] = [layer]
    return keras(tmp_path / "m.keras", dumped(text), hdf5(change), **{f"assets/{RED}": b""})


def test_names_cannot_drive_a_terminal(
    red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = f'"layer:{RED}/kernel"'
    screens(capsys, "ls", red)
    screens(capsys, "ls", "-l", red)
    screens(capsys, "show", red, f"layer:{RED}/kernel")
    screens(capsys, "show", red, f"layers/{RED}/vars/0", "--stats")
    screens(capsys, "edit", red, tmp_path / "n.keras", "-e", f"{label} *= 2")
    screens(capsys, "edit", red, tmp_path / "o.keras", "-e", f"resize {label} -> 5 axis=1")
    screens(
        capsys,
        "edit",
        red,
        tmp_path / "p.keras",
        "--sync-config",
        "-e",
        "cast layer:** -> float16",
    )
    screens(capsys, "diff", red, tmp_path / "n.keras", "--values", code=1)
    screens(capsys, "edit", red, "--in-place", "-e", f'drop "layers/{RED}/vars/0"')
    screens(capsys, "edit", red, tmp_path / "q.keras", "-e", f'"{RED}" = 0', code=4)
    screens(capsys, "convert", red, tmp_path / "r.keras", "--match", tmp_path / "o.keras")


def test_names_in_errors_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = h5py.SoftLink(f"/{RED}")
    path = weights(tmp_path / "m.weights.h5", lambda file: file.__setitem__(f"a/{RED}", link))
    screens(capsys, "ls", path, code=3)
    screens(capsys, "verify", path, code=1)
    screens(capsys, "ls", path, "--traceback", code=3)
    path = archive(tmp_path, CONFIG, replace(WEIGHTS, name=f"../{RED}".encode()))
    screens(capsys, "ls", path, code=3)
    path = shards(tmp_path, f"../{RED}")
    assert main(["ls", str(path)]) == 3
    assert "\x1b" not in capsys.readouterr().err
