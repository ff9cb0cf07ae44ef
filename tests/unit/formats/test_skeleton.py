"""New HDF5 files without their data: what h5py and Keras make of them."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import tracemalloc
import warnings

import h5py
import ml_dtypes
import numpy as np
import pytest

from ckptkit import EditError, UnsupportedError
from ckptkit.formats.keras.hdf5.content import Content
from ckptkit.formats.keras.hdf5.overlay import Overlay
from ckptkit.formats.keras.hdf5.skeleton import Wanted, WantedGroup, build
from ckptkit.formats.keras.hdf5.tree import Tree
from ckptkit.storage.disk import Disk, File
from tests.oracle.skeletons import content, everything, materialise, walk

ROOT = WantedGroup("")
PLAIN = [
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"),
]


@pytest.fixture
def make(tmp_path):
    """Write a source file with h5py, and open it."""

    def make(fill, **options):
        path = tmp_path / "source.h5"
        with h5py.File(path, "w", **options) as file:
            fill(file)
        return content(path)

    return make


def copied(found, path):
    """Copy a file by its skeleton, and return where."""
    skeleton = build([found], *everything(found))
    data = {
        name: np.frombuffer(found.file.read(found.start + one.offset, one.nbytes), np.uint8)
        for name, one in found.tree.datasets.items()
        if one.offset >= 0
    }
    return materialise(skeleton, path, data, found)


@pytest.mark.parametrize("dtype", PLAIN)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 3), (2, 1, 5)])
def test_h5py_reads_a_dataset_of_every_dtype_and_shape(tmp_path, dtype, shape):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    skeleton = build([], [Wanted("w", dtype, shape)], [])
    path = materialise(skeleton, tmp_path / "x.h5", {"w": values})
    with h5py.File(path) as file:
        assert file["w"].dtype == dtype
        assert file["w"].shape == shape
        np.testing.assert_array_equal(file["w"][()], values)
        assert file["w"].id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        assert not file["w"].attrs


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_a_dtype_that_hdf5_lacks_is_told_by_an_attribute(tmp_path, dtype):
    values = np.arange(6).astype(getattr(ml_dtypes, dtype))
    skeleton = build([], [Wanted("w", dtype, (6,))], [])
    path = materialise(skeleton, tmp_path / "x.h5", {"w": values})
    with h5py.File(path) as file:
        assert file["w"].dtype.kind == "V"
        assert file["w"].id.get_type().get_tag() == b""
        assert file["w"].attrs["dtype"] == dtype
        assert file["w"].attrs.get_id("dtype").get_type().is_variable_str()
        np.testing.assert_array_equal(file["w"][()].view(values.dtype), values)


def test_the_attribute_follows_the_dtype(make, tmp_path):
    def fill(file):
        for name in "ab":
            file.create_dataset(name, data=np.zeros(2, "V2")).attrs["dtype"] = "bfloat16"
        file["b"].attrs["note"] = 7
        file.create_dataset("c", data=np.zeros(2, "f4")).attrs["note"] = 8

    wanted = [
        Wanted("a", "bfloat16", (2,), "a"),
        Wanted("b", "float32", (2,), "b"),
        Wanted("c", "bfloat16", (2,), "c"),
    ]
    path = materialise(build([make(fill)], wanted, []), tmp_path / "x.h5")
    with h5py.File(path) as file:
        assert dict(file["a"].attrs) == {"dtype": "bfloat16"}
        assert dict(file["b"].attrs) == {"note": 7}
        assert dict(file["c"].attrs) == {"dtype": "bfloat16", "note": 8}


def odd_attributes(holder):
    attrs = holder.attrs
    attrs["text"] = "h\u00e4llo"
    attrs["nothing"] = ""
    attrs["ascii"] = np.array(b"abc", h5py.string_dtype("ascii"))
    attrs["list"] = ["a", "", "\u00fcber"]
    attrs["fixed"] = np.array([b"ab", b"c"], "S7")
    attrs["empty"] = []
    attrs["null"] = h5py.Empty("f4")
    attrs["number"] = 3
    attrs["big"] = np.array([1, 2], ">i2")
    attrs["matrix"] = np.arange(6.0).reshape(2, 3)
    attrs["flag"] = True
    attrs["complex"] = 1 + 2j
    attrs["pair"] = np.array((1, 2.5), [("x", "i2"), ("y", "<f8")])
    attrs.create("three", np.arange(6).reshape(2, 3), dtype=np.dtype((np.int16, (3,))))
    attrs.create(
        "ragged", np.array([np.arange(2), np.arange(3)], object), dtype=h5py.vlen_dtype(int)
    )
    mixed = np.dtype([("x", h5py.string_dtype()), ("y", "i4")])
    attrs.create("mixed", np.array(("text", 4), mixed), dtype=mixed)
    padded = h5py.h5t.C_S1.copy()
    padded.set_size(6)
    padded.set_strpad(h5py.h5t.STR_SPACEPAD)
    scalar = h5py.h5s.create(h5py.h5s.SCALAR)
    space = h5py.h5a.create(holder.id, b"padded", padded, scalar)
    space.write(np.array(b"ab    ", "V6"), mtype=padded)
    h5py.h5a.create(holder.id, b"raw\xff", h5py.h5t.STD_I32BE, scalar).write(np.array(5))


def test_attributes_of_every_kind_are_carried_as_they_are(make, tmp_path):
    def fill(file):
        odd_attributes(file)
        odd_attributes(file.create_group("g/h"))
        odd_attributes(file["g"].create_dataset("w", data=np.zeros(3)))

    found = make(fill)
    path = copied(found, tmp_path / "x.h5")
    assert len(walk(path)["g/w"][1]) == 18
    assert walk(path) == walk(found.file.path)


def test_references_to_other_objects_are_refused(make):
    def fill(file):
        file.attrs["to"] = file.create_group("g").ref

    with pytest.raises(UnsupportedError, match="attribute 'to' refers to objects"):
        build([make(fill)], [], [WantedGroup("", "")])


def test_attributes_get_other_values_and_go(make, tmp_path):
    def fill(file):
        group = file.create_group("g")
        group.attrs["name"] = "old"
        group.attrs["gone"] = 1
        group.attrs["stays"] = 2
        group.attrs["fixed"] = np.array([b"ab", b"c"], "S2")
        group.attrs["list"] = ["ab", "c"]
        group.attrs["closed"] = h5py.Empty("f4")
        closed = h5py.h5t.C_S1.copy()
        closed.set_size(3)
        del group.attrs["closed"]
        h5py.h5a.create(group.id, b"closed", closed, h5py.h5s.create_simple((1,)))

    others = {
        "name": "new",
        "gone": None,
        "fixed": ("longer", "d", "e"),
        "list": ("x\u00e4", "y"),
        "closed": ("four",),
        "none": None,
        "fresh": ("a", "b"),
        "foreign": ("\u00e4",),
        "empty": (),
        "whole": -4,
        "real": 0.5,
    }
    skeleton = build([make(fill)], [], [WantedGroup("h", "g", others)])
    with h5py.File(materialise(skeleton, tmp_path / "x.h5")) as file:
        attrs = file["h"].attrs
        assert set(attrs) == {"stays", *others} - {"gone", "none"}
        kinds = {name: attrs.get_id(name).get_type() for name in attrs}
        assert attrs["name"] == "new"
        assert kinds["name"].is_variable_str()
        assert kinds["name"].get_cset() == h5py.h5t.CSET_UTF8
        assert attrs["fixed"].tolist() == [b"longer", b"d", b"e"]
        assert attrs["fixed"].dtype == "S6"
        assert attrs["list"].tolist() == ["x\u00e4", "y"]
        assert kinds["closed"].get_size() == 5
        assert attrs["closed"].tolist() == [b"four"]
        assert attrs["fresh"].tolist() == ["a", "b"]
        assert kinds["fresh"].get_cset() == h5py.h5t.CSET_ASCII
        assert kinds["foreign"].get_cset() == h5py.h5t.CSET_UTF8
        assert attrs["empty"].dtype == "f8"
        assert attrs["empty"].shape == (0,)
        assert attrs["whole"].dtype == "i8"
        assert attrs["whole"] == -4
        assert attrs["real"] == 0.5


def test_a_list_too_long_for_references_is_of_fixed_length(tmp_path):
    names = tuple(f"layer_{at}" for at in range(5000))
    skeleton = build([], [], [WantedGroup("", None, {"layer_names": names})])
    with h5py.File(materialise(skeleton, tmp_path / "x.h5")) as file:
        assert file.attrs["layer_names"].tolist() == [name.encode() for name in names]
    with pytest.raises(EditError, match=r"group 'g': attribute 'n': 6500 texts take more than"):
        build([], [], [WantedGroup("g", None, {"n": ("0123456789",) * 6500})])


def test_names_may_be_no_text(make, tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")

    def fill(file):
        group = h5py.h5g.create(file.id, b"caf\xe9")
        space = h5py.h5s.create_simple((2,))
        made = h5py.h5d.create(group, b"\xff\\x", h5py.h5t.IEEE_F32LE, space)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones(2, "f4"))
        h5py.h5a.create(made, b"\xfe", h5py.h5t.STD_I8LE, h5py.h5s.create(h5py.h5s.SCALAR))

    path = tmp_path / "names.h5"
    with h5py.File(path, "w") as file:
        fill(file)
    one = make(lambda file: file.create_dataset("x", data=np.ones(2, "f4"))).tree.datasets["x"]
    tree = Tree({}, {f"{name}/\udcff\\x": one}, (), 0)
    found = Content(Disk().open(str(path)), 0, path.stat().st_size, tree)
    wanted = Wanted(f"{name}/\udcff\\x", "float32", (2,), f"{name}/\udcff\\x")
    skeleton = build([found], [wanted], [ROOT, WantedGroup(name, name)])
    data = {wanted.path: np.ones(2, "f4")}
    assert walk(materialise(skeleton, tmp_path / "x.h5", data)) == walk(path)


def stored_datasets(file):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, (100, 70)).astype("f8")
    create = file.create_group("g").create_dataset
    create("plain", data=values)
    create("big", data=values.astype(">f4"))
    create("zipped", data=values, chunks=(33, 32), compression="gzip", shuffle=True)
    create("summed", data=values, chunks=(33, 32), fletcher32=True, maxshape=(None, 70))
    create("lzf", data=values, chunks=(100, 7), compression="lzf")
    create("scaled", data=values.astype("i4"), chunks=(10, 70), scaleoffset=0)
    create("raw", data=values, chunks=(64, 64))
    create("sparse", (1000,), "f4", chunks=(10,), fillvalue=3)[500:530] = 1
    if not file.userblock_size:  # where HDF5 1.14 reads such data from before the file
        create("unmade", (4, 5), "f4", fillvalue=-1)
    create("nothing", (4, 0), "f4", chunks=(2, 2), maxshape=(None, None))
    create("flags", data=values > 4, chunks=(50, 70), fillvalue=True)
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_chunk((10, 10))
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_value(np.array(2.0))
    space = h5py.h5s.create_simple((30, 10))
    h5py.h5d.create(file["g"].id, b"early", h5py.h5t.IEEE_F64BE, space, early)
    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    small = h5py.h5d.create(file["g"].id, b"small", h5py.h5t.IEEE_F32BE, space, compact)
    small.write(h5py.h5s.ALL, h5py.h5s.ALL, values[:30, :10].astype("f4"))
    masked = create("masked", (4, 4), "i8", chunks=(2, 4), compression="gzip")
    masked.id.write_direct_chunk((2, 0), np.arange(8).tobytes(), filter_mask=1)
    return file


@pytest.mark.parametrize("libver", ["earliest", "v108"])
@pytest.mark.parametrize("userblock", [0, 512])
def test_what_stays_as_it_is_stored_is_copied_without_being_read(make, tmp_path, libver, userblock):
    found = make(stored_datasets, libver=libver, userblock_size=userblock)
    path = copied(found, tmp_path / "x.h5")
    assert walk(path) == walk(found.file.path)
    with h5py.File(found.file.path) as old, h5py.File(path) as new:
        for name in old["g"]:
            before, after = (file[f"g/{name}"].id.get_create_plist() for file in (old, new))
            assert after.get_layout() == before.get_layout(), name
            filters = [
                [plist.get_filter(at) for at in range(plist.get_nfilters())]
                for plist in (before, after)
            ]
            assert filters[0] == filters[1]
            fills = [np.zeros((), old[f"g/{name}"].dtype) for _ in range(2)]
            before.get_fill_value(fills[0])
            after.get_fill_value(fills[1])
            assert fills[0] == fills[1]
        assert new["g/sparse"].id.get_num_chunks() == 3
        assert userblock or new["g/unmade"].id.get_offset() is None
        assert new["g/masked"].id.get_chunk_info(0).filter_mask == 1


def test_what_does_not_stay_is_contiguous_and_little_endian(make, tmp_path):
    found = make(stored_datasets)
    wanted = [
        Wanted(one.path, one.dtype, one.shape, one.path) for one in found.tree.datasets.values()
    ]
    with h5py.File(found.file.path) as file:
        data = {one.path: file[one.path][()] for one in wanted}
        data = {name: one.astype(one.dtype.newbyteorder("<")) for name, one in data.items()}
    skeleton = build([found], wanted, [ROOT, WantedGroup("g", "g")])
    assert not skeleton.carried
    with h5py.File(materialise(skeleton, tmp_path / "x.h5", data)) as file:
        for name, values in data.items():
            assert file[name].chunks is None
            assert file[name].dtype == values.dtype
            np.testing.assert_array_equal(file[name][()], values)
        assert file["g/sparse"].fillvalue == 3


def test_the_same_is_the_same_bytes_and_tells_no_time(make):
    found = make(lambda file: (stored_datasets(file), odd_attributes(file)))
    first, second = (build([found], *everything(found)) for _ in range(2))
    assert first == second
    overlay = Overlay()
    overlay.size = first.size
    for offset, run in first.runs:
        overlay.seek(offset)
        overlay.write(run)
    with h5py.File(overlay, "r") as file:
        assert h5py.h5o.get_info(file["g"].id).mtime == 0
        assert h5py.h5o.get_info(file["g/plain"].id).mtime == 0


def test_runs_extents_and_what_is_carried_are_apart(make):
    found = make(stored_datasets)
    skeleton = build([found], *everything(found))
    ranges = sorted(
        [
            *((offset, offset + len(run)) for offset, run in skeleton.runs),
            *((offset, offset + length) for offset, length in skeleton.extents.values() if length),
            *((new, new + length) for _, _, new, length in skeleton.carried),
        ]
    )
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(ranges))
    assert ranges[-1][1] <= skeleton.size


def test_huge_tensors_take_no_memory(make):
    def fill(file):
        create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        create.set_chunk((1 << 26,))
        create.set_deflate(1)
        made = h5py.h5d.create(
            file.id, b"c", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((1 << 30,)), create
        )
        for at in range(16):
            made.write_direct_chunk((at << 26,), b"x" * (1 << 18))

    build([], [Wanted("w", "float32", (3,))], [])
    found = make(fill)
    wanted = [Wanted(f"w{at}", "float32", (1 << 20, 1 << 11)) for at in range(8)]
    tracemalloc.start()
    try:
        skeleton = build([found], [*wanted, Wanted("c", "float32", (1 << 30,), "c", True)], [ROOT])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert skeleton.size > 64 << 30
    assert sum(len(run) for _, run in skeleton.runs) < 1 << 15
    assert sum(length for _, _, _, length in skeleton.carried) == 1 << 22
    assert {length for _, length in skeleton.extents.values()} == {8 << 30}


def test_many_datasets_are_all_there(tmp_path):
    layers = range(1000)
    groups = [ROOT, WantedGroup("layers")]
    for at in layers:
        groups.append(WantedGroup(f"layers/d_{at}"))
        groups.append(WantedGroup(f"layers/d_{at}/vars", None, {"name": f"d_{at}"}))
    wanted = [
        Wanted(f"layers/d_{at}/vars/{n}", "float32", (n + 1,)) for at in layers for n in (0, 1)
    ]
    data = {one.path: np.full(one.shape, at, "f4") for at, one in enumerate(wanted)}
    with h5py.File(materialise(build([], wanted, groups), tmp_path / "x.h5", data)) as file:
        assert len(file["layers"]) == 1000
        for name, values in data.items():
            np.testing.assert_array_equal(file[name][()], values)
        assert file["layers/d_77/vars"].attrs["name"] == "d_77"


def test_links_keep_the_order_that_their_group_tells(make, tmp_path):
    def fill(file):
        for name in ("z", "a", "m"):
            group = file.create_group(name, track_order=True)
            for link in ("2", "10", "1"):
                group.create_dataset(link, data=np.zeros(2))
                group.create_group(f"g{link}").attrs["n"] = 1
            for at in (3, 1, 2, 9, 8, 7, 6, 5, 4):
                group.attrs[str(at)] = at
        file.create_group("plain").create_group("z")

    found = make(fill, track_order=True)
    path = copied(found, tmp_path / "x.h5")
    assert walk(path) == walk(found.file.path)
    with h5py.File(path) as file:
        assert list(file) == ["z", "a", "m", "plain"]
        assert list(file["a"]) == ["2", "g2", "10", "g10", "1", "g1"]
        assert list(file["a"].attrs) == list("312987654")


@pytest.mark.parametrize(
    ("wanted", "groups", "message"),
    [
        (["a/w"], [], "dataset 'a/w': 'a': there is no such group or dataset"),
        (["w", "w"], [], "dataset 'w': it is wanted twice"),
        (["w"], ["w"], "dataset 'w': it is wanted twice"),
        ([], ["a/b"], "group 'a/b': 'a': there is no such"),
        (["w/x"], ["w/x/y"], "group 'w/x/y'"),
        (["w/"], ["w"], "its last part is empty"),
        (["."], [], "its last part is empty, a dot"),
        ([], ["a\0"], "zero byte"),
    ],
)
def test_what_has_no_place_is_refused(wanted, groups, message):
    with pytest.raises(EditError) as caught:
        build([], [Wanted(path, "int8", (1,)) for path in wanted], [*map(WantedGroup, groups)])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted("w", "int8", (1,), "x"), "'x': there is no such group or dataset"),
        (Wanted("w", "int8", (1,), "g"), "it is to be like 'g', which is no dataset"),
        (
            Wanted("w", "int8", (3,), None, True),
            "int8[3] cannot stay as it is stored: it is like n",
        ),
        (Wanted("w", "int8", (3,), "a", True), "it is like float64[3]"),
        (Wanted("w", "float64", (2,), "a", True), "it is like float64[3]"),
        (Wanted("w", "float64", (1 << 40, 1 << 40)), "more than a file can hold"),
        (Wanted("w", "int8", (1,) * 33), "the HDF5 library does not do this, it says: "),
    ],
)
def test_what_cannot_be_made_is_refused(make, wanted, message):
    def fill(file):
        file.create_group("g")
        file.create_dataset("a", data=np.zeros(3))

    found = make(fill)
    with pytest.raises(EditError) as caught:
        build([found], [wanted], [])
    assert message in str(caught.value)
    assert caught.value.path == found.file.path


@pytest.mark.parametrize("dtype", ["string", "int4", "qint8", "resource"])
def test_dtypes_that_keras_does_not_store_are_refused(dtype):
    with pytest.raises(UnsupportedError, match=f"hold no tensors of dtype {dtype}; cast it"):
        build([], [Wanted("w", dtype, (1,))], [])


def test_links_that_lead_elsewhere_are_not_followed(make):
    def fill(file):
        file["w"] = np.zeros(3)

    found = make(fill)
    with h5py.File(found.file.path, "r+") as file:
        del file["w"]
        file["w"] = h5py.ExternalLink("/etc/passwd", "/x")
    found = dataclasses.replace(found, length=found.file.size)
    with pytest.raises(UnsupportedError, match="a link that leads elsewhere"):
        build([found], [Wanted("w", "float64", (3,), "w")], [])


def test_a_failing_disk_is_a_failing_disk(make):
    found = make(stored_datasets)
    wanted = everything(found)

    class Failing(File):
        left = 20

        def read_into(self, buffer, offset):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.EIO, "bad sector")
            super().read_into(buffer, offset)

    for left in (0, 3, 20):
        failing = Failing(found.file._disk, found.file.path, found.file.fd)
        failing.left = left
        with pytest.raises(OSError, match="bad sector") as caught:
            build([Content(failing, 0, found.length, found.tree)], *wanted)
        assert caught.value.errno == errno.EIO
        failing.fd = -1


def test_what_is_no_hdf5_is_said_so(make, tmp_path):
    found = make(stored_datasets)
    (tmp_path / "other").write_bytes(bytes(found.length))
    other = Content(found.file._disk.open(str(tmp_path / "other")), 0, found.length, found.tree)
    with pytest.raises(UnsupportedError, match="the HDF5 library does not do this") as caught:
        build([other], [], [])
    assert caught.value.path == str(tmp_path / "other")


@pytest.mark.tensorflow
def test_keras_loads_what_is_built(tf, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = pytest.importorskip("keras", reason="keras is not installed")
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 3)), layers.LSTM(4), layers.BatchNormalization(), layers.Dense(2)]
    )
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]

    def fill(start):
        for at, variable in enumerate(variables):
            variable.assign(np.full(variable.shape, start * (at + 1), variable.dtype))

    def load(path):
        fill(0)
        model.load_weights(path)
        return [variable.numpy() for variable in variables]

    fill(1)
    source = tmp_path / "a.weights.h5"
    model.save_weights(source)
    path = copied(content(source), tmp_path / "b.weights.h5")
    assert walk(path) == walk(source)
    loaded = load(path)
    assert sum(bool(values.any()) for values in loaded) > 20
    for old, new in zip(load(source), loaded, strict=True):
        np.testing.assert_array_equal(old, new)
