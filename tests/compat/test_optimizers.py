"""The state of optimizers: it follows what it is kept for, and goes where that is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import EditError
from tests.compat.objects import VALUE, Tree, edited, objects

pytestmark = pytest.mark.tensorflow


def legacy(tf, scale=1.0, dense="dense", optimizer="optimizer"):
    """A model with slots of its optimizer."""
    tf_keras = pytest.importorskip("tf_keras")
    tree = Tree(tf)
    model = tree.make({"model": {dense: {"kernel": 1, "bias": 2}}}, scale).model
    adam = tf_keras.optimizers.legacy.Adam(0.1)
    layer = getattr(model, dense)
    adam.apply_gradients([(tf.ones(2) * scale, one) for one in (layer.kernel, layer.bias)])
    return tf.train.Checkpoint(model=model, **{optimizer: adam})


def slots(root, optimizer="optimizer", dense="dense"):
    adam, layer = getattr(root, optimizer), getattr(root.model, dense)
    return [
        adam.get_slot(one, name).numpy().tobytes()
        for one in (layer.kernel, layer.bias)
        for name in ("m", "v")
    ]


@pytest.mark.parametrize(
    ("edits", "names"),
    [
        (["rename ^optimizer/ -> adam/"], ("adam", "dense")),
        (["rename graph:optimizer -> graph:adam"], ("adam", "dense")),
        (["rename ^model/dense/ -> model/first/"], ("optimizer", "first")),
        (["rename graph:model/dense -> graph:model/first"], ("optimizer", "first")),
        (["rename optimizer -> adam", "rename dense -> first"], ("adam", "first")),
        (
            ["rename graph:model/dense -> graph:model/first", "rename ^optimizer -> adam"],
            ("adam", "first"),
        ),
    ],
)
def test_slots_follow_their_variables_and_their_optimizer(tf, tmp_path, edits, names):
    root = legacy(tf)
    path = Path(root.write(str(tmp_path / "m")))
    optimizer, dense = names
    edited(path, *edits)
    fresh = legacy(tf, 0.0, dense, optimizer)
    fresh.read(str(tmp_path / "edited")).assert_consumed()
    assert slots(fresh, optimizer, dense) == slots(root)
    with ckptkit.open(tmp_path / "edited") as checkpoint:
        found = [name for name in checkpoint if "/.OPTIMIZER_SLOT/" in name]
        assert len(found) == 4
        assert all(
            name.startswith(f"model/{dense}/") and f"SLOT/{optimizer}/" in name for name in found
        )


def test_a_slot_is_no_object_of_a_path(tf, tmp_path):
    path = Path(legacy(tf).write(str(tmp_path / "m")))
    with ckptkit.open(path) as checkpoint, pytest.raises(EditError, match="no path of an obj"):
        checkpoint.edit("new graph:model/dense/w/.OPTIMIZER_SLOT/optimizer/m = 0")


def test_a_new_slot_is_one_of_its_variable_and_optimizer(tf, tmp_path):
    root = legacy(tf)
    path = Path(root.write(str(tmp_path / "m")))
    slot = f"model/dense/kernel/.OPTIMIZER_SLOT/optimizer/m{VALUE}"
    edited(path, f"drop {slot}", to=tmp_path / "less")
    edited(tmp_path / "less", f"new {slot} = t('graph:model/dense/bias') * 0 + 7")
    fresh = legacy(tf, 0.0)
    fresh.read(str(tmp_path / "edited")).assert_consumed()
    assert fresh.optimizer.get_slot(fresh.model.dense.kernel, "m").numpy().tolist() == [7, 7]


def test_a_dropped_variable_takes_its_slots_out_of_the_graph(tf, tmp_path):
    path = Path(legacy(tf).write(str(tmp_path / "m")))
    plan = edited(path, "drop graph:model/dense/bias")
    assert any("kept by an optimizer for a variable that is gone" in note for note in plan.notes)
    edited(path, "drop model/dense/bias/**", to=tmp_path / "all")
    fresh = legacy(tf, 0.0)
    fresh.read(str(tmp_path / "all")).assert_nontrivial_match()
    del fresh.model.dense.bias
    fresh.read(str(tmp_path / "all")).assert_consumed()


def test_the_state_of_an_optimizer_with_slots_goes(tf, tmp_path):
    path = Path(legacy(tf).write(str(tmp_path / "m")))
    plan = edited(path, "drop optimizer state")
    assert plan.notes[0] == "drop optimizer state: 9 tensors go, 56 B"
    with ckptkit.open(tmp_path / "edited") as checkpoint:
        assert len(checkpoint) == 3
    fresh = objects(tf, {"model": {"dense": {"kernel": 1, "bias": 2}}}, 0.0)
    fresh.read(str(tmp_path / "edited")).assert_consumed()


def model_of(name, seed, *, compiled=True, optimizer=lambda keras: keras.optimizers.Adam(0.1)):
    """Make a model of Keras, or of the older Keras, and train it unless told otherwise."""
    keras = pytest.importorskip(name)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(2, name="d1"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.Dense(1, name="d2"),
        ]
    )
    if compiled:
        model.compile(optimizer(keras), "mse")
        model.fit(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32), verbose=0)
    return model


def scaled(keras):
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1))


MODELS = {
    "keras": ("keras", {}),
    "keras, scaled": ("keras", {"optimizer": scaled}),
    "tf_keras": ("tf_keras", {}),
    "tf_keras, legacy": ("tf_keras", {"optimizer": lambda k: k.optimizers.legacy.Adam(0.1)}),
}


@pytest.mark.parametrize("apart", [False, True], ids=["model", "and optimizer"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_restores_from_a_checkpoint_without_the_state_of_its_optimizer(
    tf, tmp_path, kind, apart
):
    name, options = MODELS[kind]
    model = model_of(name, 1, **options)
    more = {"optimizer": model.optimizer} if apart else {}
    path = Path(tf.train.Checkpoint(model=model, **more).write(str(tmp_path / "m")))
    edited(path, "drop optimizer state")
    fresh = model_of(name, 2, compiled=False)
    tf.train.Checkpoint(model=fresh).read(str(tmp_path / "edited")).assert_consumed()
    pairs = list(zip(model.get_weights(), fresh.get_weights(), strict=True))
    assert pairs
    assert all(one.tobytes() == other.tobytes() for one, other in pairs)
    with ckptkit.open(tmp_path / "edited") as checkpoint:
        # TensorFlow's counters and the graph beside the weights.
        assert len(checkpoint) == len(pairs) + 1


def test_an_optimizer_alone_keeps_the_weights_that_it_trains(tf, tmp_path):
    model = model_of("keras", 1)
    path = Path(tf.train.Checkpoint(optimizer=model.optimizer).write(str(tmp_path / "m")))
    edited(path, "drop optimizer state")
    with ckptkit.open(tmp_path / "edited") as checkpoint:
        names = [name for name in checkpoint if name.startswith("optimizer/")]
    assert names == [f"optimizer/_trainable_variables/{n}{VALUE}" for n in range(6)]


@pytest.mark.parametrize(
    "statement", ["drop **/optimizer/**", "drop model/opt*/**", "keep model/_f*/**"]
)
def test_a_glob_that_would_take_the_weights_along_is_refused(tf, tmp_path, statement):
    path = Path(tf.train.Checkpoint(model=model_of("keras", 1)).write(str(tmp_path / "m")))
    with ckptkit.open(path) as checkpoint:
        with pytest.raises(EditError) as caught:
            checkpoint.edit(statement)
        first = f"model/optimizer/_trainable_variables/0{VALUE}"
        assert caught.value.tensor == first
        assert "6 weights that are only named after the optimizer" in caught.value.message
        assert "the model has as graph:model/_" in caught.value.message
        assert "drop optimizer state leaves out what only the optimizer has" in str(caught.value)
        assert first not in checkpoint.edit(f"drop {first}").catalog
        bias = checkpoint.edit("drop graph:model/_functional/_operations/1/bias").catalog
        assert f"model/optimizer/_trainable_variables/1{VALUE}" not in bias
        state = checkpoint.edit("drop model/optimizer/_variables/**").catalog
        assert len(state) == len(checkpoint) - 12


def test_layers_of_a_keras_model_go_to_other_places(tf, tmp_path):
    keras = pytest.importorskip("keras")
    model = model_of("keras", 1)
    path = Path(tf.train.Checkpoint(model=model).write(str(tmp_path / "m")))
    edited(path, "drop optimizer state", "rename graph:model -> graph:net/encoder")
    fresh = model_of("keras", 2, compiled=False)
    net = tf.train.Checkpoint(encoder=fresh)
    tf.train.Checkpoint(net=net).read(str(tmp_path / "edited")).assert_existing_objects_matched()
    pairs = zip(model.get_weights(), fresh.get_weights(), strict=True)
    assert all(one.tobytes() == other.tobytes() for one, other in pairs)
    assert keras.backend.backend() == "tensorflow"


def test_state_in_a_checkpoint_of_version_1_is_told_by_its_names(tf, tmp_path):
    v1 = tf.compat.v1
    path = str(tmp_path / "m")
    with tf.Graph().as_default(), v1.Session() as session:
        with v1.variable_scope("dense"):
            kernel = v1.get_variable("kernel", shape=[2, 3])
            bias = v1.get_variable("bias", shape=[3])
        loss = tf.reduce_sum(kernel) + tf.reduce_sum(bias)
        step = v1.train.get_or_create_global_step()
        v1.train.AdamOptimizer().minimize(loss, global_step=step)
        with v1.variable_scope("training"):
            v1.train.RMSPropOptimizer(0.1, momentum=0.1).minimize(loss)
            v1.train.FtrlOptimizer(0.1).minimize(loss)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, path, write_meta_graph=False)
    with ckptkit.open(path) as checkpoint:
        assert len(checkpoint) == 3 + 2 + 4 + 8
        left = checkpoint.edit("drop optimizer state").catalog
        assert list(left) == ["dense/bias", "dense/kernel", "global_step"]


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_state_in_a_file_of_keras_goes(tf, tmp_path, name):
    keras = pytest.importorskip("keras")
    model = model_of("keras", 1)
    (model.save_weights if "weights" in name else model.save)(tmp_path / name)
    with ckptkit.open(tmp_path / name) as checkpoint:
        draft = checkpoint.edit("drop optimizer state")
        assert not any(one.startswith("optimizer") for one in draft.catalog)
        assert len(draft.catalog) == len(model.weights)
        draft.plan(tmp_path / f"less-{name}").run()
    if "weights" in name:
        fresh = model_of("keras", 2, compiled=False)
        fresh.load_weights(tmp_path / f"less-{name}")
    else:
        fresh = keras.models.load_model(tmp_path / f"less-{name}", compile=False)
    pairs = zip(model.get_weights(), fresh.get_weights(), strict=True)
    assert all(one.tobytes() == other.tobytes() for one, other in pairs)
