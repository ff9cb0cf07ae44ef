"""Named edits of checkpoints of Keras models: the models predict what they should."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ckptkit
from tests.golden.handmade import as_bytes

pytestmark = pytest.mark.tensorflow

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture(scope="module")
def keras(tf):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras", reason="keras is not installed")


def layer(number):
    """Return how a checkpoint names a layer of a model; the input is the first one."""
    return f"model/_functional/_operations/{number}"


def trained(keras, layers, shape, seed=1):
    """Return a model whose variables all have values as training leaves them."""
    model = keras.Sequential([keras.Input(shape), *layers])
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        values = rng.standard_normal(variable.shape).astype(np.float32)
        if "variance" in variable.path or "gamma" in variable.path:
            values = np.abs(values) + np.float32(0.2)
        variable.assign(values)
    return model


def write(tf, model, prefix):
    return tf.train.Checkpoint(model=model).write(str(prefix))


def read(tf, model, prefix):
    tf.train.Checkpoint(model=model).read(str(prefix)).assert_existing_objects_matched()


def edit(source, target, *statements, **options):
    with ckptkit.open(source) as found:
        found.edit(*statements).plan(target, **options).run(device="numpy")
    with ckptkit.open(target or source) as found:
        assert found.verify().ok


def inputs(shape, seed=2):
    return np.random.default_rng(seed).standard_normal((5, *shape)).astype(np.float32)


def close(found, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


# --- batch normalisation -----------------------------------------------------------------------


@pytest.fixture(
    params=["dense", "dense without bias", "convolution", "convolution without bias",
            "depthwise", "transposed convolution", "without scale and shift"]
)  # fmt: skip
def normalised(request, keras):
    """A layer and a normalisation, what their kernel and bias are called, and the options."""
    made = keras.layers
    kind = request.param
    plain = {"center": False, "scale": False} if kind == "without scale and shift" else {}
    first, shape, kernel, words = {
        "dense": (made.Dense(7), (6,), "_kernel", ""),
        "dense without bias": (made.Dense(7, use_bias=False), (6,), "_kernel", ""),
        "convolution": (made.Conv2D(4, 3), (6, 5, 3), "_kernel", ""),
        "convolution without bias": (
            made.Conv2D(4, 3, use_bias=False), (6, 5, 3), "_kernel", "",
        ),
        "depthwise": (
            made.DepthwiseConv2D(3, depth_multiplier=2), (6, 5, 3), "kernel", " depthwise=true",
        ),
        "transposed convolution": (
            made.Conv2DTranspose(5, 3, strides=2), (4, 4, 3), "kernel", " axis=-2",
        ),
        "without scale and shift": (made.Conv2D(4, 3), (6, 5, 3), "_kernel", ""),
    }[kind]  # fmt: skip
    norm = made.BatchNormalization(epsilon=0.01, **plain)
    words += " epsilon=0.01"
    if "without bias" not in kind:
        words += f" bias={layer(1)}/bias{SUFFIX}"
    model = trained(keras, [first, norm, made.Activation("relu")], shape)
    statement = f"foldbn {layer(1)}/{kernel}{SUFFIX} -> {layer(2)}{words}"
    return model, inputs(shape), statement, f"{layer(1)}/{kernel}{SUFFIX}"


@pytest.mark.parametrize("how", ["copy", "append", "patch"])
def test_a_folded_normalisation_leaves_predictions_as_they_are(tf, normalised, tmp_path, how):
    model, given, statement, kernel = normalised
    expected = model(given).numpy()
    prefix = write(tf, model, tmp_path / "m")
    old = tf.train.load_variable(prefix, kernel)
    target = str(tmp_path / "n") if how == "copy" else None
    edit(prefix, target, statement, how=how)
    assert not np.allclose(tf.train.load_variable(target or prefix, kernel), old)
    for variable in model.variables:
        variable.assign(np.zeros(variable.shape))
    read(tf, model, target or prefix)
    close(model(given).numpy(), expected)
    # What stays of it does nothing: a model without it predicts the same, if a bias took it all.
    if "bias=" in statement:
        norm = model.layers[1]
        seen = model.layers[0](given).numpy()
        np.testing.assert_allclose(norm(seen).numpy(), seen, rtol=1e-5, atol=1e-6)


def test_a_dropped_normalisation_is_not_needed(tf, keras, tmp_path):
    made = keras.layers
    model = trained(keras, [made.Conv2D(4, 3), made.BatchNormalization()], (6, 5, 3))
    smaller = keras.Sequential([keras.Input((6, 5, 3)), made.Conv2D(4, 3)])
    given = inputs((6, 5, 3))
    prefix = write(tf, model, tmp_path / "m")
    fold = f"foldbn {layer(1)}/_kernel{SUFFIX} -> {layer(2)} bias={layer(1)}/bias{SUFFIX} drop=true"
    edit(prefix, str(tmp_path / "n"), fold)
    assert not [
        name for name, _ in tf.train.list_variables(str(tmp_path / "n")) if "moving" in name
    ]
    read(tf, smaller, tmp_path / "n")
    close(smaller(given).numpy(), model(given).numpy())


def test_two_layers_are_folded_one_after_the_other(tf, keras, tmp_path):
    made = keras.layers
    layers = [made.Conv2D(4, 3), made.BatchNormalization(), made.Conv2D(3, 2, use_bias=False),
              made.BatchNormalization(scale=False)]  # fmt: skip
    model = trained(keras, layers, (6, 5, 3))
    given = inputs((6, 5, 3))
    expected = model(given).numpy()
    prefix = write(tf, model, tmp_path / "m")
    edit(
        prefix,
        str(tmp_path / "n"),
        f"foldbn {layer(1)}/_kernel{SUFFIX} -> {layer(2)} bias={layer(1)}/bias{SUFFIX}",
        f"foldbn {layer(3)}/_kernel{SUFFIX} -> {layer(4)}",
    )
    read(tf, model, tmp_path / "n")
    close(model(given).numpy(), expected)


# --- low rank ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 4])
def test_a_folded_adapter_predicts_what_the_adapted_layer_does(tf, keras, tmp_path, rank):
    made = keras.layers
    adapted = trained(keras, [made.Dense(9)], (6,))
    adapted.layers[0].enable_lora(rank, lora_alpha=2 * rank)
    rng = np.random.default_rng(6)
    for variable in (adapted.layers[0].lora_kernel_a, adapted.layers[0].lora_kernel_b):
        variable.assign(rng.standard_normal(variable.shape))
    given = inputs((6,))
    expected = adapted(given).numpy()
    prefix = write(tf, adapted, tmp_path / "m")
    names = [name for name, _ in tf.train.list_variables(prefix)]
    first, second = (
        next(name for name in names if name.endswith(f"lora_kernel_{ab}{SUFFIX}")) for ab in "ab"
    )
    fold = f"lora {layer(1)}/_kernel{SUFFIX} -> {first}, {second} scale=2"
    edit(prefix, str(tmp_path / "n"), fold, "drop **lora_kernel_*/**")
    plain = keras.Sequential([keras.Input((6,)), made.Dense(9)])
    read(tf, plain, tmp_path / "n")
    close(plain(given).numpy(), expected)


# --- int8 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, -1, 0])
def test_int8_and_back_is_off_by_half_a_step_at_most(tf, keras, tmp_path, axis):
    model = trained(keras, [keras.layers.Dense(40), keras.layers.Dense(3)], (30,))
    prefix = write(tf, model, tmp_path / "m")
    kernels = "model/**/_kernel/**"
    words = "" if axis is None else f" axis={axis}"
    edit(prefix, str(tmp_path / "q"), f"quantize {kernels} -> int8{words}")
    edit(tmp_path / "q", str(tmp_path / "n"), f"dequantize {kernels}")
    reader = tf.train.load_checkpoint(str(tmp_path / "q"))
    for number in (1, 2):
        name = f"{layer(number)}/_kernel{SUFFIX}"
        steps, scale = reader.get_tensor(name), reader.get_tensor(f"{name}_scale")
        values = tf.train.load_variable(prefix, name)
        assert steps.dtype == np.int8
        assert np.abs(steps.astype(int)).max() == 127
        assert (np.abs(values - steps * scale) <= scale * (0.5 + 1e-5)).all()
        again = tf.train.load_variable(str(tmp_path / "n"), name)
        assert as_bytes(again) == as_bytes(steps.astype(np.float32) * scale)
        # As TensorFlow quantizes with the same range.
        if axis is None:
            top = np.abs(values).max()
            twin = tf.quantization.quantize_and_dequantize_v2(
                values, -top, top, range_given=True, narrow_range=True, num_bits=8
            )
            np.testing.assert_allclose(again, twin, atol=1e-5 * top)
    read(tf, model, tmp_path / "n")


# --- places ------------------------------------------------------------------------------------


def test_a_transposed_kernel_restores_into_its_twin(tf, keras, tmp_path):
    made = keras.layers
    model = trained(keras, [made.Dense(9, use_bias=False)], (6,))
    twin = keras.Sequential([keras.Input((9,)), made.Dense(6, use_bias=False)])
    prefix = write(tf, model, tmp_path / "m")
    edit(prefix, str(tmp_path / "n"), "transpose model/**/_kernel/**")
    read(tf, twin, tmp_path / "n")
    given = inputs((9,))
    close(twin(given).numpy(), given @ np.asarray(model.variables[0]).T)


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0)])
def test_tiles_that_are_no_runs_are_read_with_checksums_on(tf, tmp_path, monkeypatch, axes):
    monkeypatch.setattr("ckptkit.engine.program.BLOCK", 3000)
    values = np.random.default_rng(3).standard_normal((37, 41, 29)).astype(np.float32)
    ckptkit.save(tmp_path / "m", {"w": values, "z": values[0]})
    edit(tmp_path / "m", str(tmp_path / "n"), f"transpose w -> {', '.join(map(str, axes))}")
    reader = tf.train.load_checkpoint(str(tmp_path / "n"))
    found = reader.get_tensor("w")
    np.testing.assert_array_equal(found, tf.transpose(values, axes).numpy())
    np.testing.assert_array_equal(reader.get_tensor("z"), values[0])


@pytest.mark.parametrize("fill", ["zeros", "mean", "normal", "0", "3"])
def test_a_resized_embedding_keeps_its_rows(tf, keras, tmp_path, fill):
    made = keras.layers
    model = trained(keras, [made.Embedding(11, 5)], (4,))
    larger = keras.Sequential([keras.Input((4,)), made.Embedding(16, 5)])
    prefix = write(tf, model, tmp_path / "m")
    edit(prefix, str(tmp_path / "n"), f"resize model/**/_embeddings/** -> 16 fill={fill}")
    read(tf, larger, tmp_path / "n")
    tokens = np.arange(12).reshape(3, 4) % 11
    np.testing.assert_array_equal(larger(tokens), model(tokens))
    table = np.asarray(model.variables[0])
    more = np.asarray(larger.variables[0])[11:]
    expected = {"zeros": table[0] * 0, "mean": table.mean(0, dtype=np.float64), "0": table[0]}
    expected["3"] = table[3]
    if fill != "normal":
        np.testing.assert_allclose(more, np.tile(expected[fill], (5, 1)), rtol=1e-6, atol=1e-7)
    else:
        assert len(np.unique(more)) == more.size


def test_channels_are_taken_from_a_layer_and_from_the_next(tf, keras, tmp_path):
    """Units that are left out of a hidden layer, as structured pruning does it."""
    made = keras.layers
    model = trained(keras, [made.Dense(8, activation="relu"), made.Dense(3)], (6,))
    smaller = keras.Sequential([keras.Input((6,)), made.Dense(5, activation="relu"), made.Dense(3)])
    kept = [6, 1, 0, 7, 4]
    rows = ", ".join(map(str, kept))
    prefix = write(tf, model, tmp_path / "m")
    edit(
        prefix,
        str(tmp_path / "n"),
        f"take {layer(1)}/_kernel{SUFFIX} -> {rows} axis=1",
        f"take {layer(1)}/bias{SUFFIX} -> {rows}",
        f"take {layer(2)}/_kernel{SUFFIX} -> {rows}",
    )
    read(tf, smaller, tmp_path / "n")
    given = inputs((6,))
    hidden = model.layers[0](given).numpy()
    mask = np.isin(np.arange(8), kept)
    expected = model.layers[1](hidden * mask.astype(np.float32)).numpy()
    close(smaller(given).numpy(), expected)


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_casts_round_as_tensorflow_does(tf, tmp_path, dtype):
    values = np.random.default_rng(5).standard_normal(5000).astype(np.float32) * 3
    ckptkit.save(tmp_path / "m", {"w": values})
    edit(tmp_path / "m", str(tmp_path / "n"), f"cast w -> {dtype}")
    found = tf.train.load_checkpoint(str(tmp_path / "n")).get_tensor("w")
    assert as_bytes(np.asarray(found)) == as_bytes(tf.cast(values, dtype).numpy())


def test_what_is_split_and_stacked_is_read(tf, tmp_path):
    values = np.random.default_rng(5).standard_normal((3, 8, 6)).astype(np.float32)
    ckptkit.save(tmp_path / "m", {"qkv": values, "layer/0": values[0], "layer/1": values[1]})
    edit(
        tmp_path / "m",
        str(tmp_path / "n"),
        "split qkv -> q, k, v axis=1 sizes=2,2,4",
        "stack layer/* -> layers axis=1",
    )
    reader = tf.train.load_checkpoint(str(tmp_path / "n"))
    for name, part in zip("qkv", tf.split(values, [2, 2, 4], axis=1), strict=True):
        np.testing.assert_array_equal(reader.get_tensor(name), part)
    np.testing.assert_array_equal(
        reader.get_tensor("layers"), tf.stack([values[0], values[1]], axis=1)
    )
