"""Checkpoints through TensorFlow's own reader, from file systems that only TensorFlow knows."""

import itertools

import numpy as np
import pytest

import ckptkit
import ckptkit.tf as train
from ckptkit.storage import foreign
from tests.compat.tensors import TEXTS, every_dtype, restore, tensor, write, write_first
from tests.golden.handmade import Bundle, as_bytes, grid

pytestmark = pytest.mark.tensorflow

NUMBERS = itertools.count()


@pytest.fixture
def ram(tf):
    """A new folder in memory."""
    folder = f"ram://foreign-{next(NUMBERS)}"
    tf.io.gfile.makedirs(folder)
    return folder


def opened(path):
    return ckptkit.open(path, reader="tensorflow")


@pytest.fixture(scope="module")
def every(tf, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("every") / "m"
    values = {name: tensor(tf, array, dtype) for name, (dtype, array) in every_dtype().items()}
    return write(tf, prefix, values)


def test_it_is_as_our_reader_has_it(every):
    with opened(every) as found, ckptkit.open(every) as ours:
        assert [*found] == [*ours]
        assert dict(found.dtypes()) == dict(ours.dtypes())
        assert dict(found.shapes()) == dict(ours.shapes())
        for name in ours:
            one, other = found[name].read(), ours[name].read()
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert as_bytes(one) == as_bytes(other)
        assert ckptkit.diff(found, ours) == ()
        assert (found.format, found.dead_bytes) == ("tensorflow-reader", 0)


def test_a_copy_has_every_bit(tf, every, tmp_path):
    with opened(every) as found:
        report = found.edit("rename ^string/scalar$ -> first").plan(tmp_path / "m").run()
    assert report.how == "copy"
    with ckptkit.open(tmp_path / "m") as copy, ckptkit.open(every) as ours:
        assert copy.verify().ok
        different = {one.name for one in ckptkit.diff(copy, ours)}
        assert different == {"first", "string/scalar"}
        for name in set(ours) & set(copy):
            assert as_bytes(copy[name].read()) == as_bytes(ours[name].read())


def test_a_file_system_that_only_tensorflow_knows(tf, ram, tmp_path):
    model = tf.train.Checkpoint(v=tf.Variable([[1.0, 2.0], [3.0, 4.0]]), s=tf.Variable(["a", "b"]))
    prefix = model.save(f"{ram}/m")
    for path in (prefix, ram, f"{prefix}.index"):
        with opened(path) as found:
            assert found.path == prefix
            key = "v/.ATTRIBUTES/VARIABLE_VALUE"
            assert found[key][:, 1].tolist() == [2, 4]
            blocks = [block.tolist() for _, block in found[key].blocks(8)]
            assert blocks == [[[1, 2]], [[3, 4]]]
            plan = found.edit(f"{key}[0] = 9").plan(tmp_path / "m")
    plan.run()
    other = tf.train.Checkpoint(v=tf.Variable(tf.zeros((2, 2))), s=tf.Variable(["", ""]))
    other.restore(str(tmp_path / "m")).assert_existing_objects_matched()
    assert other.v.numpy().tolist() == [[9, 9], [3, 4]]
    assert other.s.numpy().tolist() == [b"a", b"b"]


def test_objects_follow_a_rename(tf, ram, tmp_path):
    prefix = tf.train.Checkpoint(v=tf.Variable([1.0])).save(f"{ram}/m")
    with opened(prefix) as found:
        found.edit("rename ^v/ -> w/").plan(tmp_path / "m").run()
    other = tf.train.Checkpoint(w=tf.Variable([0.0]))
    other.restore(str(tmp_path / "m")).assert_consumed()
    assert other.w.numpy().tolist() == [1]


def test_the_first_format_and_slices(tf, tmp_path):
    path = write_first(tf, tmp_path / "first", {"x": tf.constant([1.0, 2.0])})
    write_first(tf, tmp_path / "many-00000-of-00001", {"x": tf.constant([1.0, 2.0])})
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "many-?????-of-00001"\n')
    assert opened(path)["x"].read().tolist() == [1, 2]
    for shards in ("many-?????-of-00001", "many", "many-00000-of-00001", "."):
        assert opened(tmp_path / shards)["x"].read().tolist() == [1, 2]
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "many-?????-of-00002")
    bundle = Bundle()
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    bundle.add_slices(b"w", values, grid((4, 3), [[1], []]))
    bundle.write(tmp_path / "m")
    for path in ("m", "m.index", "m.data-00000-of-00001"):
        assert opened(tmp_path / path)["w"].read().tolist() == values.tolist()


def test_while_our_reader_is_under_tensorflow_s_names_it_is_still_tensorflow_s(every, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(train.reader.CheckpointReader, "__init__", refuse)
    with train.installed():
        assert len(opened(every)) == len(every_dtype())


def test_it_is_not_edited_in_place(every):
    with opened(every) as found:
        for how in ("auto", "copy", "append", "patch"):
            with pytest.raises(ckptkit.EditError, match=r"destination|not by"):
                found.edit("drop float32/*").plan(how=how)


def test_what_changed_meanwhile_is_noticed(tf, tmp_path):
    prefix = write(tf, tmp_path / "m", {"x": tf.constant([1.0, 2.0])})
    found = opened(prefix)
    assert found["x"].read().tolist() == [1, 2]
    write(tf, tmp_path / "m", {"x": tf.constant([1.0, 2.0]), "y": tf.constant(3)})
    with pytest.raises(ckptkit.ConflictError, match="edited since it was opened"):
        found["x"].read()
    assert opened(prefix)["y"].read() == 3


def test_few_bytes_of_tensors_are_kept(tf, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "KEPT", 100)
    tensors = {f"x{n}": tf.fill((10,), float(n)) for n in range(5)}
    prefixes = [write(tf, tmp_path / name, tensors) for name in "mn"]
    with opened(prefixes[0]) as one, opened(prefixes[1]) as other:
        for number in (*range(5), 0):
            for found in (one, other):
                assert found[f"x{number}"].read()[0] == number
                kept = foreign._TENSORS.values()
                assert 0 < sum(values.nbytes for values in kept) <= 100


@pytest.mark.parametrize("where", ["none", "no/folder/m"])
def test_there_is_nothing(ram, tmp_path, where):
    for folder in (ram, tmp_path):
        with pytest.raises(FileNotFoundError):
            opened(f"{folder}/{where}")
    with pytest.raises(FileNotFoundError, match="no state file"):
        opened(tmp_path)


def test_there_is_no_such_reader(every):
    with pytest.raises(ValueError, match="no reader is called 'other'"):
        ckptkit.open(every, reader="other")


def test_a_state_file_that_leads_elsewhere(tf, ram):
    with tf.io.gfile.GFile(f"{ram}/checkpoint", "w") as file:
        file.write('model_checkpoint_path: "../other/m"')
    with pytest.raises(ckptkit.CorruptError, match="outside its folder"):
        opened(ram)


def test_damage_is_told_as_ours_is(tf, tmp_path):
    prefix = write(tf, tmp_path / "m", {"x": tf.constant([1.0, 2.0]), "s": tf.constant(["a"])})
    with open(f"{prefix}.data-00000-of-00001", "r+b") as file:
        file.write(b"\xff" * 13)
    with opened(prefix) as found:
        for name in ("x", "s"):
            with pytest.raises(ckptkit.CorruptError, match="TensorFlow's reader says") as caught:
                found[name].read()
            assert caught.value.tensor == name
        problems = found.verify().problems
        assert {one.tensor for one in problems} == {"x", "s"}
        assert {one.severity for one in problems} == {"error"}
        with pytest.raises(ckptkit.CorruptError, match="does not give these strings"):
            found.edit("drop x").plan(tmp_path / "n")
    with open(f"{prefix}.index", "r+b") as file:
        file.truncate(60)
    with pytest.raises(ckptkit.CorruptError, match="TensorFlow's reader says"):
        opened(prefix)


def test_what_tensorflow_does_not_read_is_not_supported(tf, tmp_path):
    bundle = Bundle()
    bundle.add_slices(b"w", np.arange(6, dtype=np.float16).reshape(3, 2), grid((3, 2), [[1], []]))
    bundle.add(b"x", np.float32([1]))
    with opened(bundle.write(tmp_path / "m")) as found:
        with pytest.raises(ckptkit.UnsupportedError, match="Dtype half not supported"):
            found["w"].read()
        (problem,) = found.verify().problems
        assert (problem.tensor, problem.severity) == ("w", "warning")
        found.edit("drop w").plan(tmp_path / "n").run()
    assert restore(tf, tmp_path / "n", "x", "float32").tolist() == [1]


def test_variants_are_listed_and_not_read(tf, tmp_path):
    held = tf.raw_ops.TensorListFromTensor(
        tensor=tf.constant([1.0]), element_shape=tf.constant([], tf.int32)
    )
    prefix = write(tf, tmp_path / "m", {"v": held, "x": tf.constant(2)})
    with opened(prefix) as found:
        assert found["v"].dtype == "variant"
        with pytest.raises(ckptkit.UnsupportedError, match="not convertible"):
            found["v"].read()
        with pytest.raises(ckptkit.UnsupportedError, match="gives no values of dtype variant"):
            found.edit("x = 3").plan(tmp_path / "n")
        found.edit("drop v").plan(tmp_path / "n").run()
    assert ckptkit.open(tmp_path / "n")["x"].read() == 2


# --- on the command line -------------------------------------------------------------------------


def test_every_command_that_reads_takes_the_reader(tf, ram, run, tmp_path):
    prefix = write(tf, f"{ram}/m", {"x": tf.constant([1.0, 2.0]), "s": tf.constant(TEXTS[:2])})
    there = ("--reader", "tensorflow")
    code, out, _ = run("ls", prefix, *there)
    assert code == 0
    assert "2 tensors" in out
    assert "tensorflow-reader checkpoint" in out
    code, out, _ = run("show", prefix, "x[1:]", *there)
    assert (code, out.splitlines()[-1]) == (0, "[2.]")
    code, out, _ = run("edit", prefix, tmp_path / "m", "-e", "x *= 2", *there)
    assert code == 0
    assert run("diff", prefix, tmp_path / "m", *there)[0] == 1
    code, out, _ = run("convert", prefix, tmp_path / "n", *there)
    assert code == 0
    assert run("diff", prefix, tmp_path / "n", *there)[0] == 0
    assert ckptkit.open(tmp_path / "m")["x"].read().tolist() == [2, 4]


def test_a_whole_folder_is_listed_without_it(run, tmp_path):
    code, _, err = run("ls", "--all", tmp_path, "--reader", "tensorflow")
    assert code == 2
    assert "nor --reader" in err


def test_in_place_is_refused(tf, run, tmp_path):
    prefix = write(tf, tmp_path / "m", {"x": tf.constant([1.0, 2.0])})
    code, _, err = run("edit", prefix, "--in-place", "-e", "x *= 2", "--reader", "tensorflow")
    assert code == 4
    assert "give a destination" in err
