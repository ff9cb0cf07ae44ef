"""TensorFlow's own code, and that of others, with our readers under TensorFlow's names."""

import inspect
import threading
from types import ModuleType

import numpy as np
import pytest

import ckptkit.tf as train
from ckptkit.tf import reader
from tests.compat.tensors import write

pytestmark = pytest.mark.tensorflow

WHERE = {
    "NewCheckpointReader": {
        "tensorflow._api.v2.compat.v1.train",
        "tensorflow.python.training.py_checkpoint_reader",
        "tensorflow.python.training.training",
    },
    **{
        name: {
            "tensorflow._api.v2.compat.v1.train",
            "tensorflow._api.v2.compat.v2.train",
            "tensorflow._api.v2.train",
            "tensorflow.python.training.checkpoint_utils",
            "tensorflow.python.training.training",
        }
        for name in ("load_checkpoint", "list_variables", "load_variable")
    },
    "latest_checkpoint": {
        "tensorflow._api.v2.compat.v1.train",
        "tensorflow._api.v2.compat.v2.train",
        "tensorflow._api.v2.train",
        "tensorflow.python.checkpoint.checkpoint_management",
        "tensorflow.python.training.saver",
        "tensorflow.python.training.training",
    },
    "checkpoint_exists": {
        "tensorflow._api.v2.compat.v1.train",
        "tensorflow.python.checkpoint.checkpoint_management",
        "tensorflow.python.training.saver",
        "tensorflow.python.training.training",
    },
    "checkpoint_exists_internal": {"tensorflow.python.checkpoint.checkpoint_management"},
}
"""Every module of TensorFlow 2.21 that binds one of the names, when Keras is loaded as well."""


@pytest.fixture
def opened(monkeypatch):
    """The prefixes that our reader opened."""
    found = []
    original = reader._listing

    def spy(prefix):
        found.append(prefix)
        return original(prefix)

    monkeypatch.setattr(reader, "_listing", spy)
    return found


@pytest.fixture
def model(tf, tmp_path):
    values = {"dense/kernel": tf.reshape(tf.range(6.0), (3, 2)), "dense/bias": tf.constant([1.0])}
    return write(tf, tmp_path / "m", values)


@pytest.fixture(autouse=True)
def restored():
    """See that every test leaves TensorFlow as it was."""
    assert train.bound_names() == []
    yield
    train.uninstall()
    assert train.bound_names() == []


def names_of(tf):
    """Return TensorFlow's functions by the names that users have for them."""
    v1 = tf.compat.v1.train
    return {
        "load_checkpoint": tf.train.load_checkpoint,
        "list_variables": tf.train.list_variables,
        "load_variable": tf.train.load_variable,
        "latest_checkpoint": tf.train.latest_checkpoint,
        "v1.load_checkpoint": v1.load_checkpoint,
        "v1.NewCheckpointReader": v1.NewCheckpointReader,
        "v1.checkpoint_exists": v1.checkpoint_exists,
        "v2.load_variable": tf.compat.v2.train.load_variable,
    }


def test_every_binding_is_ours_and_then_theirs_again(tf):
    import keras  # noqa: F401  so that the list is complete
    import tf_keras  # noqa: F401

    before = names_of(tf)
    train.install()
    bound = train.bound_names()
    ours = [one for one in bound if one.module.startswith(("tensorflow", "keras", "tf_keras"))]
    assert {one.function for one in ours} == WHERE.keys()
    for function, modules in WHERE.items():
        assert {one.module for one in ours if one.function == function} == modules
    assert all(one.name == one.function for one in ours)
    during = names_of(tf)
    assert not [name for name in before if before[name] is during[name]]
    assert during["load_checkpoint"].__name__ == "load_checkpoint"
    assert during["load_checkpoint"].__wrapped__ is before["load_checkpoint"]
    train.uninstall()
    assert names_of(tf) == before


def test_it_holds_once_whoever_wants_it_how_often(tf):
    before = names_of(tf)
    with train.installed():
        once = names_of(tf)
        with train.installed():
            train.install()
            train.install()
            assert names_of(tf) == once
        assert names_of(tf) == once
        train.uninstall()
        assert names_of(tf) == once
    assert names_of(tf) == before
    with pytest.raises(KeyError), train.installed():
        raise KeyError
    assert names_of(tf) == before
    train.uninstall()
    assert names_of(tf) == before


def test_a_lasting_one_outlives_blocks(tf):
    before = names_of(tf)
    with train.installed():
        train.install()
    assert names_of(tf) != before
    train.uninstall()
    assert names_of(tf) == before


def test_blocks_in_many_threads(tf, model):
    before = names_of(tf)
    failures = []
    start = threading.Barrier(6)

    def work():
        try:
            start.wait()
            for _ in range(5):
                with train.installed():
                    assert isinstance(tf.train.load_checkpoint(model), train.CheckpointReader)
        except BaseException as error:  # noqa: BLE001  told to the thread that asserts
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names_of(tf) == before


def test_other_modules_that_took_a_name_get_ours_too(tf, model, monkeypatch):
    import sys

    other = ModuleType("a_converter")
    other.lv = tf.train.list_variables
    monkeypatch.setitem(sys.modules, "a_converter", other)
    original = other.lv
    with train.installed():
        assert ("a_converter", "lv", "list_variables") in train.bound_names()
        assert other.lv is tf.train.list_variables
        later = ModuleType("a_later_converter")
        later.load = tf.train.load_checkpoint
        monkeypatch.setitem(sys.modules, "a_later_converter", later)
    assert other.lv is original
    assert later.load is tf.train.load_checkpoint


def test_what_somebody_else_put_there_meanwhile_stays(tf, monkeypatch):
    from tensorflow.python.training import checkpoint_utils

    def another(path):
        return path

    original = checkpoint_utils.list_variables
    with train.installed():
        checkpoint_utils.list_variables = another
    assert checkpoint_utils.list_variables is another
    checkpoint_utils.list_variables = original


# --- code that is not ours ---------------------------------------------------------------------


def test_tensorflow_lists_and_loads_with_our_reader(tf, model, opened):
    expected = tf.train.list_variables(model), tf.train.load_variable(model, "dense/kernel")
    assert opened == []
    with train.installed():
        assert tf.train.list_variables(model) == expected[0]
        assert tf.train.load_variable(model, "dense/kernel").tolist() == expected[1].tolist()
        assert isinstance(tf.compat.v1.train.NewCheckpointReader(model), train.CheckpointReader)
    assert opened == [model] * 3


def test_arguments_may_be_named_as_tensorflow_names_them(tf, model, tmp_path, opened):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m"')
    v1 = tf.compat.v1.train

    def calls():
        yield tf.train.list_variables(ckpt_dir_or_file=model)
        yield tf.train.load_variable(name="dense/kernel", ckpt_dir_or_file=model).tolist()
        yield tf.train.latest_checkpoint(checkpoint_dir=str(tmp_path), latest_filename=None)
        yield v1.checkpoint_exists(checkpoint_prefix=model)
        yield tf.train.load_checkpoint(ckpt_dir_or_file=model).get_variable_to_shape_map()
        yield v1.NewCheckpointReader(filepattern=model).has_tensor("dense/bias")

    expected = [*calls()]
    with train.installed():
        assert [*calls()] == expected
    assert opened == [model] * 4


@pytest.mark.parametrize(
    "name", ["list_variables", "load_checkpoint", "load_variable", "latest_checkpoint"]
)
def test_signatures_are_those_of_tensorflow(tf, name):
    theirs = inspect.signature(getattr(tf.train, name)).parameters.values()
    ours = inspect.signature(getattr(train, name)).parameters.values()
    assert [(one.name, one.default) for one in ours] == [(one.name, one.default) for one in theirs]


def test_init_from_checkpoint(tf, model, opened):
    v1 = tf.compat.v1
    with train.installed(), tf.Graph().as_default():
        with v1.variable_scope("new"):
            kernel = v1.get_variable("kernel", (3, 2), use_resource=True)
            bias = v1.get_variable("bias", (1,), use_resource=True)
        v1.train.init_from_checkpoint(model, {"dense/": "new/"})
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            found = session.run([kernel, bias])
    assert found[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert found[1].tolist() == [1]
    assert opened == [model]


def test_init_from_checkpoint_of_another_shape_is_refused_as_ever(tf, model, opened):
    v1 = tf.compat.v1
    with train.installed(), tf.Graph().as_default():
        v1.get_variable("kernel", (3, 3), use_resource=True)
        with pytest.raises(ValueError, match="doesn't match"):
            v1.train.init_from_checkpoint(model, {"dense/kernel": "kernel"})
        with pytest.raises(ValueError, match="is not found in"):
            v1.train.init_from_checkpoint(model, {"dense/none": "kernel"})
    assert opened == [model] * 2


def test_warm_start(tf, tmp_path, opened):
    from tensorflow.python.training import warm_starting_util

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("embedding", initializer=np.arange(8, dtype=np.float32).reshape(4, 2))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "m"), global_step=1)
    for words, name in ((["a", "b", "c", "d"], "old"), (["d", "a"], "new")):
        (tmp_path / name).write_text("\n".join(words))
    vocabulary = warm_starting_util.VocabInfo(
        str(tmp_path / "new"), 2, 0, str(tmp_path / "old"), old_vocab_size=4
    )
    with train.installed(), tf.Graph().as_default(), v1.Session() as session:
        found = v1.get_variable("embedding", (2, 2))
        v1.train.warm_start(str(tmp_path), var_name_to_vocab_info={"embedding": vocabulary})
        session.run(v1.global_variables_initializer())
        session.run(v1.tables_initializer())
        assert session.run(found).tolist() == [[6, 7], [0, 1]]
    assert str(tmp_path / "m-1") in opened


def test_objects_are_restored(tf, tmp_path, opened):
    def made():
        return tf.train.Checkpoint(x=tf.Variable([0.0, 0.0]), y=tf.Variable(0, dtype=tf.int64))

    saved = made()
    saved.x.assign([1.0, 2.0])
    prefix = saved.save(str(tmp_path / "m"))
    with train.installed():
        found = made()
        found.restore(tf.train.latest_checkpoint(tmp_path)).assert_consumed()
    assert found.x.numpy().tolist() == [1, 2]
    assert {*opened} == {prefix}


def test_checkpoints_without_objects_are_restored_by_name(tf, tmp_path, opened):
    """TensorFlow asks the reader for the graph of objects, and catches that there is none."""
    prefix = write(tf, tmp_path / "m", {"x": tf.constant([1.0, 2.0])})
    variable = tf.Variable([0.0, 0.0], name="x")
    with train.installed():
        tf.train.Checkpoint(x=variable).restore(prefix).run_restore_ops()
    assert variable.numpy().tolist() == [1, 2]
    assert prefix in opened


def test_saved_models_are_loaded(tf, tmp_path, opened):
    module = tf.Module()
    module.x = tf.Variable(3.0)
    tf.saved_model.save(module, str(tmp_path / "m"))
    with train.installed():
        assert tf.saved_model.load(str(tmp_path / "m")).x.numpy() == 3
    assert opened == [str(tmp_path / "m" / "variables" / "variables")]


def test_weights_of_tf_keras(tf, tmp_path, opened):
    import tf_keras

    def made(value):
        layer = tf_keras.layers.Dense(2, kernel_initializer=tf_keras.initializers.Constant(value))
        return tf_keras.Sequential([tf_keras.Input((3,)), layer])

    made(3.0).save_weights(str(tmp_path / "w"))
    other = made(0.0)
    with train.installed():
        other.load_weights(str(tmp_path / "w"))
    assert other.layers[0].kernel.numpy().tolist() == [[3, 3]] * 3
    assert str(tmp_path / "w") in opened


def test_a_converter_of_somebody_else(tf, model, opened):
    """What scripts do that turn a checkpoint into a dictionary, the layer's names into others."""

    def convert(path):
        arrays = {}
        for name, shape in tf.train.list_variables(path):
            if any(part in {"Adam", "global_step"} for part in name.split("/")):
                continue
            array = tf.train.load_variable(path, name)
            assert [*array.shape] == shape
            arrays[name.replace("/", ".")] = np.ascontiguousarray(array.T)
        return arrays

    expected = convert(model)
    with train.installed():
        found = convert(model)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in expected.items()
    }
    assert opened == [model] * 3


def test_inspect_checkpoint(tf, model, opened, capsys):
    from tensorflow.python.tools import inspect_checkpoint

    call = inspect_checkpoint.print_tensors_in_checkpoint_file
    call(model, tensor_name="", all_tensors=True, all_tensor_names=True)
    expected = capsys.readouterr().out
    with train.installed():
        call(model, tensor_name="", all_tensors=True, all_tensor_names=True)
    assert capsys.readouterr().out == expected
    assert opened == [model]


def test_errors_are_caught_as_tensorflow_s(tf, tmp_path, opened):
    with train.installed():
        with pytest.raises(tf.errors.NotFoundError):
            tf.train.load_checkpoint(str(tmp_path / "none"))
        with pytest.raises(tf.errors.NotFoundError):
            tf.train.Checkpoint(x=tf.Variable(1.0)).restore(str(tmp_path / "none"))
    assert opened


def test_patterns_that_only_tensorflow_takes_are_left_to_it(tf, tmp_path, opened):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("a", initializer=np.float32([1, 2]))
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1)
        saver.save(session, str(tmp_path / "first"), write_meta_graph=False, write_state=False)
    with train.installed():
        assert tf.train.list_variables(str(tmp_path / "fir?t")) == [("a", [2])]
    with pytest.raises(train.errors.UnimplementedError, match="pattern"):
        train.list_variables(tmp_path / "fir?t")


def test_file_systems_that_only_tensorflow_knows_are_left_to_it(tf, opened):
    prefix = tf.train.Checkpoint(x=tf.Variable(4.0)).save("ram://bindings/m")
    with train.installed():
        assert tf.train.latest_checkpoint("ram://bindings") == prefix
        reader = tf.compat.v1.train.NewCheckpointReader(prefix)
        assert reader.get_tensor("x/.ATTRIBUTES/VARIABLE_VALUE") == 4
        assert tf.compat.v1.train.checkpoint_exists(prefix)
        found = tf.train.Checkpoint(x=tf.Variable(0.0))
        found.restore(prefix).assert_consumed()
    assert found.x.numpy() == 4
    assert opened == []
