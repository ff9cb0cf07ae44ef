"""Links and attributes of HDF5 files, edited: what h5py and Keras make of the bytes."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import warnings

import h5py
import numpy as np
import pytest

from ckptkit import EditError, UnsupportedError
from ckptkit.formats.keras.hdf5.content import Content
from ckptkit.formats.keras.hdf5.regrouping import Attribute, Make, Move, Remove
from ckptkit.formats.keras.hdf5.relink import relink
from ckptkit.storage.disk import File
from tests.oracle.skeletons import content, patched, walk

FORMS = [("earliest", 0), ("latest", 0), ("v110", 0), ("earliest", 512), ("latest", 1024)]


@pytest.fixture(params=FORMS, ids=lambda form: f"{form[0]}-{form[1]}")
def found(request, tmp_path):
    """A file of every form that HDF5 has of groups."""
    libver, userblock = request.param
    path = tmp_path / "source.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
        fill(file)
    return content(path)


@pytest.fixture
def plain(tmp_path):
    """A file as Keras writes it."""
    with h5py.File(tmp_path / "source.h5", "w") as file:
        fill(file)
    return content(tmp_path / "source.h5")


def fill(file):
    for at in range(30):
        group = file.create_group(f"layers/dense_{at}/vars")
        group.attrs["name"] = f"dense_{at}"
        group.create_dataset("0", data=np.full((5, at + 1), at, "f4"))
        group.create_dataset("1", data=np.full(at + 1, -at, "f4"))
    file["layers/dense_3"].create_dataset("c", data=np.arange(99), chunks=(10,), compression=1)
    file.attrs["list"] = ["a", "b"]
    file.attrs["fixed"] = np.array([b"a", b"bc"], "S2")
    file.attrs["text"] = "text"
    file.attrs["number"] = 3


def edited(found, path, *edits):
    """Return what the file is with edits, and the same done by h5py."""
    result = relink(found, edits)
    starts = [start for start, _ in result.runs]
    assert starts == sorted(starts)
    assert result.size >= found.length
    return walk(patched(found, result, path)), walk(by_h5py(found, path.with_suffix(".x"), edits))


def by_h5py(found, path, edits):
    shutil.copyfile(found.file.path, path)
    with h5py.File(path, "r+") as file:
        for edit in edits:
            match edit:
                case Make(made):
                    file.create_group(made)
                case Move(old, new):
                    file.move(old, new)
                case Remove(gone):
                    del file[gone]
    return path


def test_groups_and_datasets_move_come_and_go(found, tmp_path):
    ours, theirs = edited(
        found,
        tmp_path / "out.h5",
        Move("layers/dense_1", "layers/first"),
        Make("new"),
        Make("new/er"),
        Move("layers/dense_2", "new/er/\u00fcber"),
        Remove("layers/dense_3"),
        Move("layers/dense_4/vars/1", "layers/dense_4/vars/bias"),
        Move("new/er", "moved"),
        Move("moved/\u00fcber/vars/0", "w"),
        Remove("moved/\u00fcber"),
        Remove("layers/dense_29/vars/0"),
        Make("layers/dense_3"),
    )
    assert ours == theirs
    assert "moved" in ours
    assert ours["w"][2][0] == "f4"


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("text", "text of another length", "utf-8"),
        ("text", "same", "utf-8"),
        ("number", 4, "<i8"),
        ("number", 0.5, "<f8"),
        ("number", "text", "utf-8"),
        ("list", ("x", "y"), "utf-8"),
        ("list", ("x", "y", "z\u00e4"), "utf-8"),
        ("list", (), "<f8"),
        ("fixed", ("bb", "c"), "S2"),
        ("fixed", ("bbbbb", "c", "d"), "S5"),
        ("fresh", ("a", "b"), "ascii"),
        ("fresh", "a" * 70_000, "utf-8"),
        ("text", None, None),
        ("fresh", None, None),
    ],
)
def test_attributes_change_come_and_go(found, tmp_path, name, value, kind):
    path = tmp_path / "out.h5"
    patched(found, relink(found, [Attribute("", name, value)]), path)
    before, after = walk(found.file.path), walk(path)
    others = dict(after[""][1])
    assert (others.pop(name, None) is None) == (value is None)
    assert others == {key: one for key, one in before[""][1].items() if key != name}
    assert {k: v for k, v in after.items() if k} == {k: v for k, v in before.items() if k}
    if value is None:
        return
    with h5py.File(path) as file:
        got = file.attrs[name]
        dtype = file.attrs.get_id(name).dtype
        text = h5py.check_string_dtype(dtype)
        assert (text.encoding if text is not None and text.length is None else dtype) == kind
        if isinstance(value, tuple):
            got = tuple(one.decode() if isinstance(one, bytes) else one for one in got)
        assert got == value


def test_attributes_of_what_moved_and_of_datasets(found, tmp_path):
    edits = [
        Move("layers/dense_1", "first"),
        Attribute("first/vars", "name", "first"),
        Attribute("first/vars/0", "dtype", "bfloat16"),
        *(Attribute("first", f"n{at}", at) for at in range(40)),
    ]
    path = patched(found, relink(found, edits), tmp_path / "out.h5")
    with h5py.File(path) as file:
        assert file["first/vars"].attrs["name"] == "first"
        assert file["first/vars/0"].attrs["dtype"] == "bfloat16"
        assert dict(file["first"].attrs) == {f"n{at}": at for at in range(40)}
        assert (file["first/vars/0"][()] == 1).all()


def test_nothing_is_asked_and_nothing_changes(found):
    result = relink(found, [])
    assert result.runs == ()
    assert result.size == found.length


def test_there_and_back_is_the_same_to_a_reader(found, tmp_path):
    edits = [Move("layers/dense_1", "x"), Move("x", "layers/dense_1")]
    ours, _ = edited(found, tmp_path / "out.h5", *edits)
    assert ours == walk(found.file.path)


def test_the_result_is_closed_cleanly(found, tmp_path):
    path = patched(found, relink(found, [Make("new"), Remove("layers")]), tmp_path / "out.h5")
    again = content(path)
    path = patched(again, relink(again, [Move("new", "newer")]), tmp_path / "again.h5")
    with h5py.File(path, "r+") as file:
        assert list(file) == ["newer"]


def test_only_what_differs_is_written(plain):
    result = relink(plain, [Move("layers/dense_1", "layers/dense_x")])
    before = [bytes(plain.file.read(start, len(run))) for start, run in result.runs]
    assert all(
        old[0] != run[0] and old[-1] != run[-1]
        for old, (_, run) in zip(before, result.runs, strict=True)
    )
    assert sum(len(run) for _, run in result.runs) < 2000
    assert result.size == plain.length


def test_content_may_be_a_part_of_a_file(plain, tmp_path):
    raw = bytes(plain.file.read(0, plain.length))
    (tmp_path / "zip").write_bytes(b"p" * 7233 + raw + b"s" * 100)
    inner = content(tmp_path / "zip", 7233, len(raw))
    edits = [Remove("layers/dense_3"), Attribute("", "fresh", "x" * 5000)]
    result = relink(inner, edits)
    assert result == relink(plain, edits)
    assert result.size > plain.length
    assert (tmp_path / "zip").read_bytes() == b"p" * 7233 + raw + b"s" * 100


def test_what_shrinks_keeps_its_size(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.arange(3)
        file["z"] = np.arange(100_000)
    found = content(tmp_path / "a.h5")
    result = relink(found, [Remove("z")])
    assert result.size == found.length
    path = patched(found, result, tmp_path / "b.h5")
    with h5py.File(path, "r+") as file:
        assert list(file) == ["a"]
        file["b"] = np.arange(9)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["a"][()], np.arange(3))


def test_bytes_behind_the_end_are_no_part_of_the_file(plain, tmp_path):
    longer = tmp_path / "longer.h5"
    longer.write_bytes(bytes(plain.file.read(0, plain.length)) + b"\xff" * 10_000)
    found = content(longer)
    result = relink(found, [Make("new"), Attribute("new", "text", "x" * 3000)])
    assert result.size == found.length
    with h5py.File(patched(found, result, tmp_path / "out.h5")) as file:
        assert file["new"].attrs["text"] == "x" * 3000


def test_data_is_not_read(tmp_path):
    huge = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    huge.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    huge.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in (b"a", b"b"):
            space = h5py.h5s.create_simple((1 << 31,))
            h5py.h5d.create(file.id, name, h5py.h5t.IEEE_F32LE, space, huge)
    found = content(tmp_path / "a.h5")
    disk = found.file._disk
    disk.traffic.read = 0
    result = relink(found, [Move("a", "c"), Remove("b"), Make("g"), Move("c", "g/c")])
    assert disk.traffic.read < 50_000
    assert sum(len(run) for _, run in result.runs) < 5_000
    assert result.size >= found.length > 16 << 30


def test_one_dataset_of_two_names_stays_while_one_of_them_does(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.arange(1000)
        file["b"] = file["a"]
    found = content(tmp_path / "a.h5")
    result = relink(found, [Remove("a"), Attribute("", "text", "x" * 9000)])
    with h5py.File(patched(found, result, tmp_path / "b.h5")) as file:
        np.testing.assert_array_equal(file["b"][()], np.arange(1000))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Move("x", "y"), "'x': there is no such group or dataset"),
        (Move("layers/dense_1", "layers/dense_2"), "'layers/dense_2': there is a group or dataset"),
        (Move("layers/dense_1", "x/y"), "'x': there is no such group or dataset"),
        (Move("layers", "layers/dense_1/x"), "it cannot move into itself"),
        (Move("", "x"), "the root neither moves nor goes"),
        (Move("layers", ""), "there is a group or dataset of this name already"),
        (Move("layers", "layers/"), "its last part is empty"),
        (Move("layers", "x/../y"), "no such group or dataset"),
        (Move("layers/dense_1", "layers/dense_1/vars/0/x"), "it is a dataset, not a group"),
        (Remove("layers/x"), "'layers/x': there is no such group or dataset"),
        (Remove(""), "the root neither moves nor goes"),
        (Make("layers"), "there is a group or dataset of this name already"),
        (Make("x/y"), "'x': there is no such group or dataset"),
        (Make("a\0b"), "has a zero byte"),
        (Attribute("x", "name", 1), "'x': there is no such group or dataset"),
        (Attribute("", "n", ("0123456789",) * 6500), "6500 texts take more than 64512 bytes"),
        (Attribute("", "n", 1 << 70), "is no number that HDF5 holds"),
    ],
)
def test_edits_that_have_no_place_are_refused(plain, edit, message):
    with pytest.raises(EditError) as caught:
        relink(plain, [edit])
    assert message in str(caught.value)
    assert caught.value.path == plain.file.path


def test_runs_in_data_that_stays_are_refused(plain):
    tree = plain.tree
    start, _ = relink(plain, [Move("layers/dense_1", "x")]).runs[0]
    datasets = dict(tree.datasets)
    name = "layers/dense_5/vars/0"
    datasets[name] = dataclasses.replace(datasets[name], offset=start, nbytes=4)
    forged = dataclasses.replace(tree, datasets=datasets)
    found = Content(plain.file, 0, plain.length, forged)
    with pytest.raises(UnsupportedError, match="without changing its data") as caught:
        relink(found, [Move("layers/dense_1", "x")])
    assert caught.value.tensor == name
    gone = [Remove("layers/dense_5"), Move("layers/dense_1", "x")]
    assert relink(found, gone) == relink(plain, gone)


def test_links_that_lead_elsewhere_are_not_followed(plain):
    with h5py.File(plain.file.path, "r+") as file:
        file["soft"] = h5py.SoftLink("/layers")
    for edit in (Move("soft/dense_1", "x"), Remove("soft"), Attribute("soft", "a", 1)):
        with pytest.raises(UnsupportedError, match="a link that leads elsewhere"):
            relink(plain, [edit])


def test_a_failing_disk_is_a_failing_disk(plain):
    class Failing(File):
        left = 0

        def read_into(self, buffer, offset):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.EIO, "bad sector")
            super().read_into(buffer, offset)

    for left in range(0, 60, 7):
        failing = Failing(plain.file._disk, plain.file.path, plain.file.fd)
        failing.left = left
        found = Content(failing, 0, plain.length, plain.tree)
        with pytest.raises(OSError, match="bad sector") as caught:
            relink(found, [Move(f"layers/dense_{at}", f"x{at}") for at in range(30)])
        assert caught.value.errno == errno.EIO


def test_a_file_that_a_writer_left_open_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_group("a")
    found = content(path)
    raw = bytearray(path.read_bytes())
    assert raw[11] == 0
    with h5py.File(path, "r+", libver="latest") as file:
        file.flush()
        opened = bytearray(path.read_bytes())
    assert opened[11] != 0
    raw[:48] = opened[:48]
    path.write_bytes(raw)
    with pytest.raises(UnsupportedError, match="a program has it open") as caught:
        relink(found, [Move("a", "b")])
    assert caught.value.offset == 11


@pytest.mark.tensorflow
def test_keras_loads_what_is_relinked(tf, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = pytest.importorskip("keras", reason="keras is not installed")
    layers = keras.layers
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(3)])
    for at, variable in enumerate(model.variables):
        variable.assign(np.full(variable.shape, at, "f4"))
    model.save_weights(tmp_path / "a.weights.h5")
    found = content(tmp_path / "a.weights.h5")
    swap = [
        Move("layers/dense", "layers/aside"),
        Move("layers/dense_1", "layers/dense"),
        Move("layers/aside", "layers/dense_1"),
        Attribute("layers/dense/vars", "name", "first"),
    ]
    path = patched(found, relink(found, swap), tmp_path / "b.weights.h5")
    model.load_weights(path)
    assert [float(variable.numpy().max()) for variable in model.variables] == [2, 3, 0, 1]
