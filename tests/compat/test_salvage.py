"""TensorFlow restores what was salvaged, equal in every bit where nothing was damaged."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ckptkit
from tests.golden.damage import damage

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("unsynced")]

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def model(tf: Any, seed: int, *, empty: bool = False) -> Any:
    rng = np.random.default_rng(seed)
    root = tf.Module()
    root.layers = [tf.Module() for _ in range(6)]
    for number, layer in enumerate(root.layers):
        layer.w = tf.Variable(rng.normal(size=(16, number + 3)).astype("float32"))
        layer.half = tf.Variable(rng.normal(size=(number + 1,)).astype("float16"))
        layer.slot = tf.Variable(np.full(3, seed, "int64"))
    if empty:
        root.nothing = tf.Variable(np.zeros((0, 4), "float32"))
    return root


def write(tf: Any, root: Any, prefix: Path, shard_bytes: int | None = None) -> str:
    options = None
    if shard_bytes is not None:
        policy = tf.train.experimental.MaxShardSizePolicy(shard_bytes)
        options = tf.train.CheckpointOptions(experimental_sharding_callback=policy)
    return str(tf.train.Checkpoint(root=root).write(str(prefix), options=options))


def arrays(tf: Any, path: str) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def same(a: Any, b: Any) -> bool:
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


def restored(tf: Any, path: str, *, empty: bool = False) -> tuple[Any, Any]:
    root = model(tf, 99, empty=empty)
    return root, tf.train.Checkpoint(root=root).read(path)


def test_the_rest_is_restored_by_the_object_graph(tf: Any, tmp_path: Path) -> None:
    root = model(tf, 1)
    path = write(tf, root, tmp_path / "model")
    before = arrays(tf, path)
    lost = f"layers/2/w{VALUE}"
    damage(path, lost)
    found = ckptkit.salvage(path, tmp_path / "saved")
    assert not found.ok
    assert [(fate.tensor, fate.how) for fate in found.fates] == [(lost, "lost")]
    assert found.dropped == (lost,)
    after = arrays(tf, str(tmp_path / "saved"))
    assert after.keys() == before.keys() - {lost}
    assert all(same(after[name], before[name]) for name in after if name != GRAPH)
    again, status = restored(tf, str(tmp_path / "saved"))
    for number, layer in enumerate(root.layers):
        other = again.layers[number]
        assert same(layer.half, other.half)
        assert same(layer.w, other.w) == (number != 2)
    status.assert_consumed()


def test_a_donor_fills_what_is_lost(tf: Any, tmp_path: Path) -> None:
    root, other = model(tf, 1), model(tf, 2)
    path = write(tf, root, tmp_path / "model")
    donor = write(tf, other, tmp_path / "donor")
    damage(path, f"layers/2/w{VALUE}")
    damage(path, GRAPH)
    found = ckptkit.salvage(path, tmp_path / "saved", donor)
    assert {fate.tensor: (fate.how, fate.same) for fate in found.fates} == {
        f"layers/2/w{VALUE}": ("filled", False),
        GRAPH: ("filled", True),
    }
    again, status = restored(tf, str(tmp_path / "saved"))
    status.assert_consumed()
    status.assert_existing_objects_matched()
    assert same(again.layers[2].w, other.layers[2].w)
    assert same(again.layers[1].w, root.layers[1].w)


def test_a_lost_graph_without_a_donor(tf: Any, tmp_path: Path) -> None:
    path = write(tf, model(tf, 1), tmp_path / "model")
    before = arrays(tf, path)
    damage(path, GRAPH)
    found = ckptkit.salvage(path, tmp_path / "saved")
    assert [fate.tensor for fate in found.of("lost")] == [GRAPH]
    assert any("by name alone" in note for note in found.notes)
    after = arrays(tf, str(tmp_path / "saved"))
    assert after.keys() == before.keys() - {GRAPH}
    assert all(same(after[name], before[name]) for name in after)


def test_the_graph_of_a_donor_of_another_model_is_not_taken(tf: Any, tmp_path: Path) -> None:
    path = write(tf, model(tf, 1), tmp_path / "model")
    other = tf.Module()
    other.v = tf.Variable([1.0])
    donor = write(tf, other, tmp_path / "donor")
    damage(path, GRAPH)
    found = ckptkit.salvage(path, tmp_path / "saved", donor)
    assert [(fate.tensor, fate.how) for fate in found.fates] == [(GRAPH, "lost")]
    assert "v" + VALUE not in ckptkit.open(tmp_path / "saved")


@pytest.mark.parametrize("shard_bytes", [None, 700])
def test_a_lost_index_is_made_anew(tf: Any, tmp_path: Path, shard_bytes: int | None) -> None:
    root = model(tf, 1)
    path = write(tf, root, tmp_path / "model", shard_bytes)
    donor = write(tf, model(tf, 2), tmp_path / "donor", shard_bytes)
    before = arrays(tf, path) if shard_bytes is None else {}
    os.unlink(path + ".index")
    found = ckptkit.salvage(path, tmp_path / "saved", donor)
    assert found.ok
    assert {fate.how for fate in found.fates} == {"found"}
    again, status = restored(tf, str(tmp_path / "saved"))
    if shard_bytes is None:
        after = arrays(tf, str(tmp_path / "saved"))
        assert after.keys() == before.keys()
        assert all(same(after[name], before[name]) for name in after)
        status.assert_consumed()
    else:
        with ckptkit.open(tmp_path / "saved") as checkpoint:
            assert checkpoint.verify().ok
    assert (
        all(same(a.w, b.w) for a, b in zip(again.layers, root.layers, strict=True)) or shard_bytes
    )


def test_the_table_of_a_listing_makes_an_index(
    tf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ckptkit.cli import main

    root = model(tf, 1)
    path = write(tf, root, tmp_path / "model")
    donor = write(tf, model(tf, 2), tmp_path / "donor")
    assert main(["ls", "--json", donor]) == 0
    (tmp_path / "table").write_text(capsys.readouterr().out)
    os.unlink(path + ".index")
    found = ckptkit.salvage(path, tmp_path / "saved", sizes=tmp_path / "table")
    assert found.ok
    again, status = restored(tf, str(tmp_path / "saved"))
    status.assert_consumed()
    assert all(same(a.w, b.w) for a, b in zip(again.layers, root.layers, strict=True))


def test_empty_variables_that_sharding_lost(tf: Any, tmp_path: Path) -> None:
    root = model(tf, 1, empty=True)
    path = write(tf, root, tmp_path / "model", 1 << 20)
    lost = f"nothing{VALUE}"
    assert lost not in ckptkit.open(path)
    found = ckptkit.salvage(path, tmp_path / "without")
    assert [(fate.tensor, fate.how) for fate in found.fates] == [(lost, "lost")]
    assert found.dropped == (lost,)
    again, _ = restored(tf, str(tmp_path / "without"), empty=True)
    assert same(again.layers[0].w, root.layers[0].w)
    donor = write(tf, model(tf, 2, empty=True), tmp_path / "donor")
    found = ckptkit.salvage(path, tmp_path / "with", donor)
    assert [(fate.tensor, fate.how) for fate in found.fates] == [(lost, "filled")]
    again, status = restored(tf, str(tmp_path / "with"), empty=True)
    status.assert_consumed()
    status.assert_existing_objects_matched()
    assert same(again.layers[0].w, root.layers[0].w)


def test_slots_of_lost_variables_go_with_them(tf: Any, tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")
    keras.utils.set_random_seed(1)

    def trained() -> Any:
        made = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(2)])
        made.compile(keras.optimizers.legacy.Adam(), "mse")
        made.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
        return made

    first = trained()
    path = str(tf.train.Checkpoint(model=first).write(str(tmp_path / "model")))
    names = [name for name in ckptkit.open(path) if "layer_with_weights-0/kernel/" in name]
    assert len(names) == 3
    damage(path, names[1])
    found = ckptkit.salvage(path, tmp_path / "saved")
    assert found.dropped == (names[1],)
    second = trained()
    tf.train.Checkpoint(model=second).read(str(tmp_path / "saved")).expect_partial()
    assert all(same(a, b) for a, b in zip(first.weights, second.weights, strict=True))


def test_a_saved_model_is_salvaged_as_a_whole(tf: Any, tmp_path: Path) -> None:
    class Adder(tf.Module):  # type: ignore[misc,name-defined]
        def __init__(self, value: float) -> None:
            super().__init__()
            self.v = tf.Variable([value, 2.0])
            self.w = tf.Variable([value])

        @tf.function(input_signature=[tf.TensorSpec([2])])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return x + self.v + self.w

    tf.saved_model.save(Adder(1.0), str(tmp_path / "model"))
    tf.saved_model.save(Adder(5.0), str(tmp_path / "donor"))
    index = tmp_path / "model" / "variables" / "variables.index"
    shutil.copy(index, tmp_path / "index")
    index.unlink()
    found = ckptkit.salvage(tmp_path / "model", tmp_path / "saved", tmp_path / "donor")
    assert found.ok
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    assert loaded(tf.constant([0.0, 0.0])).numpy().tolist() == [2.0, 3.0]
    assert ckptkit.open(tmp_path / "saved").verify().ok
    shutil.copy(tmp_path / "index", index)
    damage(str(tmp_path / "model"), f"w{VALUE}")
    found = ckptkit.salvage(tmp_path / "model", tmp_path / "filled", tmp_path / "donor")
    assert not found.ok
    loaded = tf.saved_model.load(str(tmp_path / "filled"))
    assert loaded(tf.constant([0.0, 0.0])).numpy().tolist() == [6.0, 7.0]
    found = ckptkit.salvage(tmp_path / "model", tmp_path / "less")
    assert any("saved_model.load wants all" in note for note in found.notes)
