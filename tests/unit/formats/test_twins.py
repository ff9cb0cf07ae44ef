"""Tensors that are stored twice, in files that Keras made, and edits of them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import ckptkit
from ckptkit import EditError
from ckptkit.formats.keras.naming.twins import kept_in_step, twins
from ckptkit.model import TensorSpec

INNER = "optimizer/inner_optimizer/vars"


@pytest.fixture(scope="module")
def keras(tf):
    return pytest.importorskip("keras")


def datasets(path):
    found = {}
    with h5py.File(path) as file:

        def visit(name, node):
            if isinstance(node, h5py.Dataset):
                found[name] = node[()]

        file.visititems(visit)
    return found


def specs(values):
    return {k: TensorSpec(v.dtype.name, v.shape) for k, v in values.items()}


def trained(keras, optimizer, path):
    """Save a model after some steps, so that hardly any two of its variables are equal."""
    layers = [keras.layers.Dense(4, name="first"), keras.layers.Dense(3, name="second")]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(2, name="third")])
    model.compile(optimizer, "mse")
    rng = np.random.default_rng(7)
    model.fit(rng.normal(size=(8, 3)), rng.normal(size=(8, 2)), epochs=3, verbose=0)
    model.save_weights(path)
    return model


def scaled(keras, name):
    made = keras.optimizers
    schedule = made.schedules.ExponentialDecay(0.1, 10, 0.9)
    inner = {
        "adam": made.Adam,
        "amsgrad": lambda: made.Adam(amsgrad=True),
        "schedule": lambda: made.Adam(schedule),
        "bare": lambda: made.SGD(schedule),
        "average": lambda: made.SGD(momentum=0.9, use_ema=True),
        "nadam": made.Nadam,
        "accumulating": lambda: made.Adam(gradient_accumulation_steps=2),
    }[name]()
    return made.LossScaleOptimizer(inner)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("adam", 14),
        ("amsgrad", 20),
        ("schedule", 13),
        ("bare", 1),
        ("average", 14),
        ("nadam", 14),
        ("accumulating", 20),
    ],
)
def test_scaled_optimizers(keras, tmp_path, name, count) -> None:
    trained(keras, scaled(keras, name), tmp_path / "m.weights.h5")
    values = datasets(tmp_path / "m.weights.h5")
    inner = [key for key in values if key.startswith(INNER)]
    found = twins(specs(values))
    assert found == twins(specs(values).items())
    assert set(found) == {(f"optimizer/vars/{4 + at}", f"{INNER}/{at}") for at in range(len(inner))}
    assert len(found) >= min(count, len(inner)) == len(inner)
    for one, other in found:
        np.testing.assert_array_equal(values[one], values[other])


def several(keras, *, scale=False):
    made, module = keras.optimizers, keras.src.optimizers.multi_optimizer
    kinds = {
        "first.*kernel": made.SGD(momentum=0.9),
        "second.*kernel": made.RMSprop(),
        ".*bias": made.SGD(momentum=0.5),
    }
    by_path = {f".*{key}": value for key, value in kinds.items()}
    multi = module.MultiOptimizer(module.OptimizerMap(made.Adam(), by_path))
    return made.LossScaleOptimizer(multi) if scale else multi


@pytest.mark.tensorflow
@pytest.mark.parametrize("scale", [False, True])
def test_several_optimizers(keras, tmp_path, scale) -> None:
    trained(keras, several(keras, scale=scale), tmp_path / "m.weights.h5")
    values = datasets(tmp_path / "m.weights.h5")
    found = twins(specs(values))
    for one, other in found:
        np.testing.assert_array_equal(values[one], values[other])
    owned = [key for key in values if "/optimizers/" in key]
    # Which of the optimizers comes first is not told, but that does not matter to most.
    assert {other for _, other in found} >= {key for key in owned if values[key].ndim}
    assert len(found) == len({other for _, other in found})
    assert any(key.startswith(INNER) for _, key in found) is scale


@pytest.mark.tensorflow
def test_weights_of_terms(keras, tmp_path) -> None:
    layer = keras.layers.TextVectorization(output_mode="tf_idf", max_tokens=8)
    layer.adapt(["a b c", "b c d"])
    lookup = keras.layers.IntegerLookup(output_mode="tf_idf", max_tokens=8)
    lookup.adapt([1, 2, 3])
    text, number = keras.Input((), dtype="string"), keras.Input((3,), dtype="int64")
    parts = [layer(text), lookup(number)]
    model = keras.Model([text, number], keras.layers.Concatenate()(parts))
    model.save_weights(tmp_path / "m.weights.h5")
    values = datasets(tmp_path / "m.weights.h5")
    here = "layers/text_vectorization"
    pair = f"{here}/vars/idf_weights", f"{here}/_lookup_layer/vars/idf_weights"
    assert twins(specs(values)) == (pair,)
    np.testing.assert_array_equal(*(values[name] for name in pair))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "optimizer", [lambda keras: "adam", lambda keras: keras.optimizers.SGD(momentum=0.1)]
)
def test_nothing_is_stored_twice(keras, tmp_path, optimizer) -> None:
    trained(keras, optimizer(keras), tmp_path / "m.weights.h5")
    assert twins(specs(datasets(tmp_path / "m.weights.h5"))) == ()


NUMBER, SCALAR = TensorSpec("int64", ()), TensorSpec("float32", ())


def test_pairs_have_equal_specs_and_whole_groups() -> None:
    found = {f"optimizer/vars/{at}": SCALAR for at in range(6)}
    found |= {f"{INNER}/0": SCALAR, f"{INNER}/1": NUMBER}
    assert twins(found) == (("optimizer/vars/4", f"{INNER}/0"),)
    assert twins({**found, f"{INNER}/2": SCALAR}) == ()
    assert twins({k: v for k, v in found.items() if k != "optimizer/vars/2"}) == ()
    assert twins({"_lookup_layer/vars/idf_weights": SCALAR}) == ()
    both = {"a_lookup_layer/vars/idf_weights": SCALAR, "avars/idf_weights": SCALAR}
    assert twins(both) == ()


def test_an_order_that_is_not_told() -> None:
    outer = {f"optimizer/vars/{at}": spec for at, spec in enumerate([NUMBER, SCALAR] * 3)}
    for kind in ("adam", "sgd"):
        outer |= {
            f"optimizer/optimizers/{kind}/vars/{at}": s for at, s in ((0, NUMBER), (1, SCALAR))
        }
    assert twins(outer) == ()
    del outer["optimizer/optimizers/adam/vars/0"], outer["optimizer/optimizers/adam/vars/1"]
    outer |= {
        "optimizer/optimizers/sgd_1/vars/0": NUMBER,
        "optimizer/optimizers/sgd_1/vars/1": SCALAR,
    }
    assert [a for a, _ in twins(outer)] == [f"optimizer/vars/{at}" for at in (2, 3, 4, 5)]


# --- edits --------------------------------------------------------------------------------------

SHAPES = {"iteration": (), "kernel": (4, 3), "bias": (3,)}
PAIRS = tuple((f"optimizer/vars/{at}", f"{INNER}/{at - 4}") for at in (4, 5, 6))
KERNEL, COPY = PAIRS[1][1], PAIRS[1][0]


@pytest.fixture
def stored(tmp_path, unsynced):
    rng = np.random.default_rng(3)
    values = {f"optimizer/vars/{at}": np.float32(at) for at in range(4)}
    values |= {"layers/dense/vars/0": rng.normal(size=(4, 3)).astype(np.float32)}
    for (copy, name), shape in zip(PAIRS, SHAPES.values(), strict=True):
        values[copy] = values[name] = rng.normal(size=shape).astype(np.float32)
    ckptkit.save(tmp_path / "m", values)
    return tmp_path / "m"


def kept(stored, *statements):
    """Edit, and keep in step; return the draft and the notes."""
    checkpoint = ckptkit.open(stored)
    before = checkpoint.catalog
    pairs = twins(before.specs())
    assert set(pairs) == set(PAIRS)
    draft = checkpoint.edit(*statements)
    draft.catalog, notes = kept_in_step(before, draft.catalog, pairs)
    assert kept_in_step(before, draft.catalog, pairs)[0]["layers/dense/vars/0"]
    return draft, notes


def written(stored, draft, how):
    target = None if how == "patch" else stored.with_name("out")
    draft.plan(target, how).run(device="numpy")
    with ckptkit.open(target or stored) as found:
        assert found.verify().ok
        return {name: found[name].read() for name in found}


FOLLOWED = [
    (f"{KERNEL} *= 2",),
    (f"{COPY} *= 2", f"{COPY} += 1"),
    (f"{KERNEL}[1:3, ::2] = 7",),
    (f"{KERNEL} = 0.5 * x + t(layers/dense/vars/0)",),
    (f"{KERNEL} = x / norm(x)",),
    (f"{KERNEL} += normal(seed=4)",),
    (f"{KERNEL} += t({COPY})",),
    (f"{INNER}/* *= 0.5",),
    ("optimizer/vars/* *= 0.5",),
]


@pytest.mark.parametrize("how", ["copy", "patch"])
@pytest.mark.parametrize("statements", FOLLOWED)
def test_the_other_one_follows(stored, statements, how) -> None:
    statements = tuple(
        one.replace("t(layers/dense/vars/0)", 't("layers/dense/vars/0")').replace(
            f"t({COPY})", f't("{COPY}")'
        )
        for one in statements
    )
    with ckptkit.open(stored) as found:
        old = found[KERNEL].read()
    draft, notes = kept(stored, *statements)
    assert 1 <= len(notes) <= 3
    values = written(stored, draft, how)
    assert not np.array_equal(values[KERNEL], old)
    for one, other in PAIRS:
        np.testing.assert_array_equal(values[one], values[other])


def test_a_note_says_which_one_follows(stored) -> None:
    _, notes = kept(stored, f"{KERNEL} *= 2")
    assert notes == (f"'{COPY}' holds what '{KERNEL}' does, and changes with it",)


def test_a_put_and_a_function(stored) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    draft, _ = kept(stored, ckptkit.Put(KERNEL, values))
    np.testing.assert_array_equal(written(stored, draft, "patch")[COPY], values)
    draft, _ = kept(stored, ckptkit.Map(KERNEL, lambda x: x + 1))
    assert draft.catalog[COPY].source.kernel is draft.catalog[KERNEL].source.kernel


@pytest.mark.parametrize(
    "statements",
    [
        ("optimizer/** *= 0.5",),
        ("optimizer/**/5 *= 2", f"{KERNEL} *= 2"),
        (f"{KERNEL} *= 2", f"{COPY} *= 2"),
        ("cast optimizer/** -> float16",),
        ("drop optimizer/**",),
        ("rename ^optimizer/ -> other/",),
        ("layers/dense/vars/0 *= 3",),
    ],
)
def test_both_changed_alike_is_left_alone(stored, statements) -> None:
    before = ckptkit.open(stored).catalog
    after = ckptkit.open(stored).edit(*statements).catalog
    assert kept_in_step(before, after, PAIRS) == (after, ())


def test_both_drew_numbers_of_their_own(stored) -> None:
    draft, notes = kept(stored, "optimizer/** += normal(seed=1)")
    assert len(notes) == 3
    values = written(stored, draft, "copy")
    for one, other in PAIRS:
        np.testing.assert_array_equal(values[one], values[other])
    draft = ckptkit.open(stored).edit(f"{COPY} += normal(seed=1)")
    draft.plan(stored.with_name("alone")).run(device="numpy")
    with ckptkit.open(stored.with_name("alone")) as found:
        np.testing.assert_array_equal(found[COPY].read(), values[COPY])


@pytest.mark.parametrize(
    ("statements", "texts"),
    [
        ((f"{KERNEL} *= 2", f"{COPY} *= 3"), ("changed in different ways", KERNEL, COPY)),
        ((f"{KERNEL} += normal(seed=1)", f"{COPY} += normal(seed=2)"), ("different ways",)),
        ((f"{KERNEL}[0] *= 2", f"{COPY}[1] *= 2"), ("different ways",)),
        ((f"drop {KERNEL}",), (f"drop or rename '{COPY}' as well", KERNEL)),
        ((f"drop {INNER}/**",), ("as well",)),
        ((f"rename ^{COPY}$ -> elsewhere",), (f"drop or rename '{KERNEL}' as well",)),
        ((f"cast {KERNEL} -> float16",), ("would be float16[4, 3]", f"change '{COPY}' as well")),
        ((f"cast {KERNEL} -> float16", f"cast {COPY} -> bfloat16"), ("different ways",)),
        ((f"{INNER}/0 = 1", f"reshape {KERNEL} -> 12"), ("float32[12]", "as well")),
    ],
)
def test_out_of_step_is_refused(stored, statements, texts) -> None:
    before = ckptkit.open(stored).catalog
    after = ckptkit.open(stored).edit(*statements).catalog
    with pytest.raises(EditError) as caught:
        kept_in_step(before, after, PAIRS)
    for text in texts:
        assert text in str(caught.value)


def test_a_tensor_in_two_pairs_takes_both_along(stored) -> None:
    before = ckptkit.open(stored).catalog
    third = f"{INNER}/7"
    before = before.with_more({third: before[KERNEL]})
    after = before.with_tensors({third: before[third].derive(kernel_of(stored), (before[third],))})
    result, notes = kept_in_step(before, after, [(COPY, KERNEL), (KERNEL, third)])
    assert result[COPY].source.kernel == result[KERNEL].source.kernel == after[third].source.kernel
    assert notes == (f"'{COPY}' and '{KERNEL}' hold what '{third}' does, and change with it",)


def kernel_of(stored):
    return ckptkit.open(stored).edit(f"{KERNEL} *= 2").catalog[KERNEL].source.kernel


def test_many_notes_are_joined(stored) -> None:
    before = ckptkit.open(stored).catalog
    names = [f"a/{at}" for at in range(10)]
    before = before.with_more(dict.fromkeys(names, before[KERNEL]))
    kernel = kernel_of(stored)
    changed = {one: before[one].derive(kernel, (before[one],)) for one in names[:5]}
    pairs = [*zip(names[:5], names[5:], strict=True)]
    _, notes = kept_in_step(before, before.with_tensors(changed), pairs)
    assert len(notes) == 4
    assert notes[-1] == "so do the copies of 2 more tensors that are stored twice"


def test_a_normalised_kernel_is_that_of_the_layer_within():
    specs = {
        "layers/spectral_normalization_1/vars/0": TensorSpec("float32", (4, 3)),
        "layers/spectral_normalization_1/vars/1": TensorSpec("float32", (1, 3)),
        "layers/spectral_normalization_1/layer/vars/0": TensorSpec("float32", (4, 3)),
        "layers/spectral_normalization_1/layer/vars/1": TensorSpec("float32", (3,)),
    }
    path = "layers/spectral_normalization_1"
    assert twins(specs) == ((f"{path}/vars/0", f"{path}/layer/vars/0"),)
