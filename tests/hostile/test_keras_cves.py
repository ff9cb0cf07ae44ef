"""What was published against loaders of Keras models, one attack after the other.

Every file carries its attack in full: a loader that falls for it would leave a canary in the
folder, import a module that does, or show a secret that lies beside. Weights are read and edited
as if nothing were there, or the file is refused with the reason; that, in little memory.
"""

from __future__ import annotations

import base64
import io
import json
import marshal
import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

import ckptkit
from tests.hostile.archives import Forged, deflate, forge
from tests.hostile.models import (
    KERNEL,
    VALUES,
    config,
    dumped,
    hdf5,
    keras,
    legacy,
    weights,
)
from tests.hostile.watched import watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.hostile.watched import Watched

SECRET = b"0123456789 the secret of somebody else 0123456789"
LEAVE = "open({!r}, 'w').close()"


@dataclass(frozen=True)
class Place:
    """Where an attack takes place.

    Attributes:
        folder: The checkpoint is in it.
        secret: A file elsewhere that nobody may read.
        canary: A file that is not there, and never may be.
    """

    folder: Path
    secret: Path
    canary: Path

    def code(self) -> str:
        """Return Python code that leaves the canary."""
        return LEAVE.format(str(self.canary))

    def bytecode(self) -> str:
        """Return a function that leaves the canary, as Keras stores a lambda."""
        code = compile(self.code(), "<lambda>", "exec")
        return base64.b64encode(marshal.dumps(code)).decode()

    def pickled(self) -> bytes:
        """Return a pickle that leaves the canary."""

        class Payload:
            def __reduce__(payload) -> Any:  # noqa: N805
                return exec, (self.code(),)

        return pickle.dumps(Payload())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "in"
    folder.mkdir()
    made = Place(folder, tmp_path / "out" / "secret.txt", folder / "left-by-the-attack")
    made.secret.parent.mkdir()
    made.secret.write_bytes(SECRET)
    # Whoever imports what a file names leaves a trace as well.
    (folder / "canary.py").write_text(made.code())
    return made


def watched(place: Place, *lines: tuple[object, ...]) -> Watched:
    """Run command lines, and require that nothing of what is attacked was touched."""
    root = place.folder.parent
    done = watch(lines, root, place.folder)
    assert done.started == ()
    assert done.imported == frozenset()
    assert not place.canary.exists()
    inside = (str(place.folder), f"{place.folder}/")
    assert [
        path for path in done.opened if path != inside[0] and not path.startswith(inside[1])
    ] == []
    assert place.secret.read_bytes() == SECRET
    assert list(place.secret.parent.iterdir()) == [place.secret]
    for text in (*done.out, *done.err):
        assert "the secret of" not in text
    for path in place.folder.rglob("*"):
        assert not path.is_file() or SECRET not in path.read_bytes()
    assert 70 not in done.codes, done.err
    return done


WIDEN = ("-e", "resize layer:head/kernel -> 3 axis=1", "-e", "resize layer:head/bias -> 3")


def stays_text(place: Place, path: Path, kernel: str = KERNEL) -> None:
    """Require that weights are read and edited, and that text beside them stays text."""
    copied, synced = path.with_name(f"copied{path.suffix}"), path.with_name(f"synced{path.suffix}")
    done = watched(
        place,
        ("ls", path),
        ("show", path, "layer:head/kernel"),
        ("verify", path),
        ("edit", path, copied, "-e", "layer:head/kernel *= 2"),
        ("edit", path, synced, "--sync-config", *WIDEN),
        ("edit", path, "--in-place", "-e", "layer:head/kernel *= 2"),
        ("edit", path, "--in-place", "--sync-config", *WIDEN),
    )
    assert done.codes == (0,) * 7, done.err
    assert all("head/kernel" in line for line in done.out[:1])
    with ckptkit.open(copied) as one, ckptkit.open(path) as other:
        np.testing.assert_array_equal(one[kernel].read(), VALUES * 2)
        assert other[kernel].shape == (3, 3)


def is_refused(place: Place, path: Path, *reasons: str) -> None:
    """Require that a file is refused, by its reason, whatever is done with it."""
    done = watched(
        place,
        ("ls", path),
        ("show", path, KERNEL),
        ("edit", path, path.with_name(f"copy{path.suffix}"), "-e", "** *= 2"),
        ("edit", path, "--in-place", "-e", "** *= 2", "--sync-config"),
        ("verify", path),
    )
    assert done.codes[:4] == (3,) * 4, (done.out, done.err)
    # What is damaged does not pass; what is of no format is nothing to verify.
    assert done.codes[4] in {1, 3}
    for text in (*done.err[:4], done.out[4] + done.err[4]):
        for reason in reasons:
            assert reason in text


# --- code in the configuration ------------------------------------------------------------------


def lambda_layer(place: Place, **more: Any) -> dict[str, Any]:
    function = {"code": place.bytecode(), "defaults": None, "closure": None}
    return {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {
            "name": "lambda",
            "function": {"class_name": "__lambda__", "config": function},
            "arguments": {},
            **more,
        },
    }


def called(module: str, name: str, /, *args: Any, **settings: Any) -> dict[str, Any]:
    """Return a layer that a loader would make by calling something."""
    return {
        "module": module,
        "class_name": name,
        "config": {"name": "called", "args": args, **settings},
        "registered_name": name,
        "build_config": {"input_shape": [None, 3]},
    }


def function(module: str, name: str) -> dict[str, Any]:
    """Return a reference to a function, as Keras stores those."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def calling(place: Place, module: str, name: str) -> dict[str, Any]:
    layer = called("keras.layers", "Lambda", function=function(module, name))
    node = {"args": [place.code()], "kwargs": {}}
    return {**layer, "inbound_nodes": [node]}


def torch_wrapper(place: Place) -> dict[str, Any]:
    raw = base64.b64encode(place.pickled()).decode()
    return called("keras.src.utils.torch_utils", "TorchModuleWrapper", module=raw)


ATTACKS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "CVE-2024-3660: a lambda": lambda_layer,
    "CVE-2025-1550: a module": lambda place: called("canary", "Anything"),
    "CVE-2025-1550: os.system": lambda place: called("os", "system", f"touch {place.canary}"),
    "CVE-2025-1550: builtins": lambda place: calling(place, "builtins", "exec"),
    "CVE-2025-8747: get_file": lambda place: called(
        "keras.utils", "get_file", origin=f"file://{place.secret}", fname=str(place.canary)
    ),
    "CVE-2025-8747: a function of Keras": lambda place: calling(place, "keras.utils", "get_file"),
    "CVE-2025-9906: unsafe first": lambda place: {
        **called("keras.config", "enable_unsafe_deserialization"),
        "then": lambda_layer(place),
    },
    "CVE-2025-49655: a module of torch": torch_wrapper,
    "CVE-2025-12058: a vocabulary": lambda place: called(
        "keras.layers", "StringLookup", vocabulary=str(place.secret)
    ),
    "CVE-2025-12058: a vocabulary elsewhere": lambda place: called(
        "keras.layers", "TextVectorization", vocabulary="http://127.0.0.1:9/vocabulary.txt"
    ),
    "CVE-2026-1462: a saved model": lambda place: called(
        "keras.layers", "TFSMLayer", filepath=str(place.secret.parent), call_endpoint="serve"
    ),
    "CVE-2026-12481: no safe mode": lambda place: lambda_layer(place, safe_mode=False),
    "CVE-2024-55459 and CVE-2025-12060: an archive": lambda place: called(
        "keras.utils",
        "get_file",
        origin=f"file://{place.folder}/evil.tar",
        extract=True,
        cache_dir=str(place.secret.parent),
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_a_config(place: Place, attack: str) -> None:
    stays_text(place, keras(place.folder / "m.keras", dumped(config(ATTACKS[attack](place)))))


@pytest.mark.parametrize(
    "attack", ["CVE-2024-3660: a lambda", "CVE-2025-1550: a module", "CVE-2026-1462: a saved model"]
)
def test_cve_2025_9905_code_in_a_legacy_config(place: Place, attack: str) -> None:
    path = legacy(place.folder / "m.h5", dumped(config(ATTACKS[attack](place))))
    stays_text(place, path, "model_weights/head/head/kernel:0")


@pytest.mark.parametrize("field", ["module", "class_name", "registered_name"])
def test_a_model_that_is_of_another_module(place: Place, field: str) -> None:
    stays_text(place, keras(place.folder / "m.keras", dumped(config(**{field: "canary"}))))


def test_code_in_what_a_model_is_compiled_with(place: Place) -> None:
    compiled = {"optimizer": called("canary", "Adam"), "loss": function("canary", "loss")}
    text = dumped(config(compile_config=compiled, build_config=called("canary", "build")))
    stays_text(place, keras(place.folder / "m.keras", text))


def test_code_in_an_unzipped_model(place: Place) -> None:
    folder = place.folder / "model"
    folder.mkdir()
    (folder / "config.json").write_text(dumped(config(lambda_layer(place))))
    (folder / "metadata.json").write_text("{}")
    (folder / "model.weights.h5").write_bytes(hdf5())
    done = watched(
        place,
        ("ls", folder),
        ("edit", folder, place.folder / "copied", "--sync-config", *WIDEN),
        ("edit", folder, "--in-place", "--sync-config", *WIDEN),
    )
    assert done.codes == (0, 0, 0), done.err
    text = json.loads((folder / "config.json").read_bytes())
    assert text["config"]["layers"][0]["config"]["units"] == 3
    assert text["config"]["layers"][1] == lambda_layer(place)


def test_cve_2021_37678_yaml(place: Place) -> None:
    yaml = f"!!python/object/apply:os.system ['touch {place.canary}']\n"
    path = keras(place.folder / "m.keras", yaml)
    (place.folder / "model.yaml").write_text(yaml)
    done = watched(
        place,
        ("ls", path),
        ("edit", path, place.folder / "a.keras", "-e", "layers/** *= 2"),
        ("edit", path, place.folder / "b.keras", *WIDEN),
        ("edit", path, place.folder / "c.keras", "--sync-config", *WIDEN),
        ("ls", place.folder / "model.yaml"),
    )
    assert done.codes == (0, 0, 0, 3, 3)
    assert "note: the configuration does not read: " in done.out[2]
    assert "is no JSON" in done.err[3]
    assert not (place.folder / "c.keras").exists()


# --- members of archives -------------------------------------------------------------------------

MEMBERS = {
    "CVE-2025-12638: ..": Forged(b"assets/../../out/left"),
    "CVE-2025-12060: .. first": Forged(b"../out/left"),
    "keras#23017: an absolute path": Forged(b"/tmp/left"),
    "keras#23017: a drive": Forged(b"C:left"),
    "keras#23017: backslashes": Forged(b"assets\\..\\..\\out\\left"),
    "keras#23015: a symbolic link": Forged(b"assets/link", b"../../out", mode=0o120777),
    "a device": Forged(b"assets/device", b"", mode=0o020666),
}
CONFIG = Forged(b"config.json", dumped(config()).encode())


@pytest.mark.parametrize("attack", MEMBERS)
def test_members_that_lead_elsewhere(place: Place, attack: str) -> None:
    path = place.folder / "m.keras"
    path.write_bytes(forge(CONFIG, Forged(b"model.weights.h5", hdf5()), MEMBERS[attack]))
    is_refused(place, path, f"member {MEMBERS[attack].name.decode()!r}")


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.REGTYPE])
def test_cve_2024_55459_and_keras_22973_tar(place: Place, kind: bytes) -> None:
    for name in ("m.keras", "m.weights.h5", "m.tar"):
        with tarfile.open(place.folder / name, "w") as archive:
            member = tarfile.TarInfo("../out/left")
            member.type, member.linkname = kind, "../out/secret.txt"
            archive.addfile(member)
    for name in ("m.keras", "m.weights.h5", "m.tar"):
        is_refused(place, place.folder / name)


def test_pickled_weights_and_keras_23016_npz_bomb(place: Place) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        head = b"\x93NUMPY\1\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (), }"
        archive.writestr("__root__.npy", head.ljust(128) + place.pickled())
        huge = head.replace(b"'|O'", b"'<f8'").replace(b"()", b"(99999999999,)")
        archive.writestr("bomb.npy", huge.ljust(128))
    alone = place.folder / "model.weights.npz"
    alone.write_bytes(buffer.getvalue())
    path = place.folder / "m.keras"
    path.write_bytes(forge(CONFIG, Forged(b"model.weights.npz", buffer.getvalue())))
    is_refused(place, path, "pickled arrays, which could run code")
    is_refused(place, alone, "not a checkpoint of a format that ckptkit knows")


BOMB = deflate(bytes(1 << 20))


@pytest.mark.parametrize("size", [5 << 30, 1 << 50])
def test_keras_23010_bomb_of_weights(place: Place, size: int) -> None:
    extra = (1).to_bytes(2, "little") + (16).to_bytes(2, "little")
    extra += size.to_bytes(8, "little") + len(BOMB).to_bytes(8, "little")
    full = 0xFFFFFFFF
    bomb = Forged(b"model.weights.h5", BOMB, 0, 8, 1, full, full, extra=extra)
    path = place.folder / "m.keras"
    path.write_bytes(forge(CONFIG, bomb))
    is_refused(place, path, "this may be a bomb")


def test_keras_23303_bomb_of_a_config(place: Place) -> None:
    bomb = Forged(b"config.json", BOMB, method=8, size=(300 << 20), crc=1)
    path = place.folder / "m.keras"
    path.write_bytes(forge(bomb, Forged(b"model.weights.h5", hdf5())))
    is_refused(
        place, path, "member 'config.json' has 314572800 bytes; texts have at most 268435456"
    )


def test_more_in_a_member_than_it_says(place: Place) -> None:
    bomb = Forged(b"model.weights.h5", BOMB, method=8, size=1000, crc=1)
    path = place.folder / "m.keras"
    path.write_bytes(forge(CONFIG, bomb))
    is_refused(place, path, "inflates to more than the 1000 bytes it should have")


def test_keras_23101_bomb_of_an_asset(place: Place) -> None:
    # Assets are never unpacked, whatever they would be.
    asset = Forged(b"assets/bomb", BOMB, method=8, size=0xFFFFFFFE, crc=1)
    path = place.folder / "m.keras"
    path.write_bytes(forge(CONFIG, Forged(b"model.weights.h5", hdf5()), asset))
    copied = place.folder / "copied.keras"
    done = watched(place, ("ls", path), ("edit", path, copied, "-e", "layer:head/kernel *= 2"))
    assert done.codes == (0, 0), done.err
    assert copied.stat().st_size == path.stat().st_size


NESTED = {
    "lists": "[" * 500_000 + "]" * 500_000,
    "objects": '{"config":' * 200_000 + "1" + "}" * 200_000,
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("whole", [True, False])
def test_keras_23303_nesting(place: Place, kind: str, whole: bool) -> None:
    text = NESTED[kind] if whole else dumped(config("?")).replace('"?"', NESTED[kind])
    path = keras(place.folder / "m.keras", text)
    done = watched(
        place,
        ("ls", path),
        ("edit", path, place.folder / "a.keras", "-e", "layers/** *= 2"),
        (
            "edit",
            path,
            place.folder / "b.keras",
            "--sync-config",
            "-e",
            "cast layers/** -> float16",
        ),
    )
    assert done.codes[:2] == (0, 0), done.err
    # Weights that are labelled by their groups are labelled; the text is refused where it counts.
    assert done.codes[2] == 3
    assert "nested deeper than 200 levels" in done.err[2]


def test_keras_23303_values_without_end(place: Place) -> None:
    path = keras(
        place.folder / "m.keras", dumped(config()).replace("{", "{" + '"":[],' * 3_000_000, 1)
    )
    done = watched(
        place,
        ("ls", path),
        (
            "edit",
            path,
            place.folder / "b.keras",
            "--sync-config",
            "-e",
            "cast layers/** -> float16",
        ),
    )
    assert done.codes == (0, 3), done.err
    assert "values, which are not read" in done.err[1]


# --- HDF5 ----------------------------------------------------------------------------------------


def external_storage(file: h5py.File, place: Place) -> None:
    file.create_dataset("layers/dense/vars/2", (8,), "u1", external=[(str(place.secret), 0, 8)])


def virtual(file: h5py.File, place: Place) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(place.secret), "data", (4,))
    file.create_virtual_dataset("layers/dense/vars/2", layout)


def linked(path: str, link: Callable[[Place], Any]) -> Callable[[h5py.File, Place], None]:
    def change(file: h5py.File, place: Place) -> None:
        if path in file:
            del file[path]
        file[path] = link(place)

    return change


def outside(place: Place) -> h5py.ExternalLink:
    return h5py.ExternalLink(str(place.secret), "/data")


def chunk_bomb(file: h5py.File, place: Place) -> None:
    shape = (1 << 36,)
    file.create_dataset("layers/dense/vars/2", shape, "f4", chunks=(1 << 29,), compression="gzip")
    file["layers/dense/vars/2"].id.write_direct_chunk((0,), deflate(bytes(1000)))


def shape_bomb(*shape: int, **how: Any) -> Callable[[h5py.File, Place], None]:
    def change(file: h5py.File, place: Place) -> None:
        file.create_dataset("layers/dense/vars/2", shape, "f4", **how)

    return change


LINKS = {
    "CVE-2026-1669: external storage": (external_storage, "the dataset is in other files"),
    "CVE-2026-1669: an external link": (
        linked("layers/dense/vars/2", outside),
        '"2" is an external link',
    ),
    "keras#22976: a virtual dataset": (virtual, "the dataset is a view of others"),
    "keras#23168: an external link on the way": (
        linked("layers/dense", outside),
        '"dense" is an external link',
    ),
    "keras#23168: a soft link on the way": (
        linked("layers/other", lambda place: h5py.SoftLink("/layers/dense")),
        '"other" is a soft link',
    ),
    "a soft link to nowhere": (
        linked("layers/other", lambda place: h5py.SoftLink("/x")),
        "a soft link",
    ),
}


@pytest.mark.parametrize("attack", LINKS)
@pytest.mark.parametrize("kind", ["m.weights.h5", "m.keras"])
def test_datasets_that_are_elsewhere(place: Place, attack: str, kind: str) -> None:
    change, word = LINKS[attack]
    path = weights(place.folder / "m.weights.h5", lambda file: change(file, place))
    if kind == "m.keras":
        path = keras(place.folder / kind, dumped(config()), path.read_bytes())
    is_refused(place, path, word)


@pytest.mark.parametrize("link", [outside, lambda place: h5py.SoftLink("/elsewhere")])
def test_keras_22900_a_link_that_a_legacy_file_starts_with(place: Place, link: Any) -> None:
    path = legacy(place.folder / "m.h5", "{}")
    with h5py.File(path, "r+") as file:
        file.move("model_weights", "elsewhere")
        file["model_weights"] = link(place)
    is_refused(place, path, "link; only hard links are followed")


BOMBS = {
    "CVE-2026-0897: a shape": shape_bomb(1 << 40),
    "keras#22975: a product": shape_bomb(1 << 32, 1 << 32),
    "CVE-2026-0897: chunks that are not there": shape_bomb(1 << 40, chunks=(1 << 20,)),
    "CVE-2026-12570: a chunk": chunk_bomb,
}


@pytest.mark.parametrize("attack", BOMBS)
@pytest.mark.parametrize("kind", ["m.weights.h5", "m.keras"])
def test_bombs(place: Place, attack: str, kind: str) -> None:
    path = weights(place.folder / "m.weights.h5", lambda file: BOMBS[attack](file, place))
    if kind == "m.keras":
        path = keras(place.folder / kind, dumped(config()), path.read_bytes())
    is_refused(place, path, "tensor 'layers/dense/vars/2'", "the shape takes")
