"""Maps of shards, with Keras as the oracle."""

from __future__ import annotations

import json
from collections import defaultdict

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import EditError
from ckptkit.formats.keras.shardmap import ShardMap, counted, cut, read_map, shard_names, write_map
from ckptkit.model import TensorSpec

GIB = 2**30


@pytest.fixture(scope="module")
def keras(tf):
    return pytest.importorskip("keras")


def odd_layer(keras):
    class Odd(keras.layers.Layer):
        def build(self, shape):
            self.flags = self.add_weight(shape=(13,), dtype="bool", initializer="zeros")
            self.half = self.add_weight(shape=(5, 2), dtype="bfloat16")
            self.none = self.add_weight(shape=(0, 3))
            self.count = self.add_weight(shape=(), dtype="int64", initializer="zeros")

        def call(self, x):
            return x

    return Odd()


def saved(keras, folder, limit, name="some.weights.json"):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(16),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(16, use_bias=False),
            odd_layer(keras),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save_weights(folder / name, max_shard_size=limit / GIB)
    layers = [layer for layer in model.layers if layer.weights]
    return model, layers


def stored(folder, names):
    """Return the datasets of all shards: path to shard number and spec."""
    found = {}
    for number, name in enumerate(names):
        with h5py.File(folder / name) as file:

            def visit(path, node, number=number):
                if isinstance(node, h5py.Dataset):
                    dtype = str(node.attrs.get("dtype", node.dtype.name))
                    found[path] = number, TensorSpec(dtype, node.shape)

            file.visititems(visit)
    return found


@pytest.mark.tensorflow
@pytest.mark.parametrize("limit", [1024, 1100, 1500, 3000, 1e6])
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_map_and_cuts_are_those_of_keras(keras, tmp_path, limit) -> None:
    saved(keras, tmp_path, limit)
    content = (tmp_path / "some.weights.json").read_bytes()
    found = read_map(content)
    count = len(list(tmp_path.glob("*.h5")))
    assert found.shards == shard_names(str(tmp_path / "some.weights.json"), count)
    datasets = stored(tmp_path, found.shards)

    # Save order: groups as the map has them, variables by number.
    order, counts = [], defaultdict(int)
    for group in found.groups:
        numbers = [
            int(p.rpartition("/")[2]) for p in datasets if f"/{p}".rpartition("/")[0] == group
        ]
        counts[group] = len(numbers)
        order += [f"{group[1:]}/{number}" for number in sorted(numbers)]
    assert len(order) == len(datasets)
    sizes = [(path, counted(datasets[path][1])) for path in order]
    shards = cut(sizes, limit / GIB * GIB)
    assert shards == [datasets[path][0] for path in order]

    groups = defaultdict(dict)
    for path, shard in zip(order, shards, strict=True):
        groups["/" + path.rpartition("/")[0]][found.shards[shard]] = None
    total = sum(size for _, size in sizes)
    assert write_map(total, {k: [*v] for k, v in groups.items()}, counts) == content
    assert found.total_size == total


@pytest.mark.tensorflow
def test_a_variable_larger_than_a_shard_is_refused_as_by_keras(keras, tmp_path) -> None:
    with pytest.raises(ValueError, match="exceeds the maximum shard size"):
        saved(keras, tmp_path, 1023)
    with pytest.raises(EditError, match=r"'layers/dense_1/vars/0' has 1024 bytes.*may have 1023"):
        cut([("layers/dense/vars/0", 256), ("layers/dense_1/vars/0", 1024)], 1023)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["a.weights.json", "c.weights.d.weights.json", "e.f.weights.json"])
def test_names_of_shards_are_those_of_keras(keras, tmp_path, name) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])
    model.save_weights(tmp_path / name, max_shard_size=100 / GIB)
    found = sorted(path.name for path in tmp_path.glob("*.h5"))
    assert len(found) == 2
    assert shard_names(str(tmp_path / name), 2) == tuple(found)


@pytest.mark.tensorflow
def test_keras_loads_a_map_that_was_written(keras, tmp_path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])
    path = tmp_path / "m.weights.json"
    model.save_weights(path, max_shard_size=100 / GIB)
    kept = model.get_weights()
    found = read_map(path.read_bytes())
    counts = dict.fromkeys(found.groups, 2)
    path.write_bytes(write_map(found.total_size, found.groups, counts))
    model.set_weights([np.zeros_like(one) for one in kept])
    model.load_weights(path)
    for one, other in zip(kept, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_map_without_variables() -> None:
    assert json.loads(write_map(0, {}, {})) == {"metadata": {"total_size": 0}, "weight_map": {}}
    assert read_map(write_map(0, {}, {})) == ShardMap(0, {})


@given(
    st.lists(st.integers(0, 50), max_size=30),
    st.integers(50, 120),
)
def test_cuts_fill_shards_in_order(sizes, limit) -> None:
    shards = cut([(str(at), size) for at, size in enumerate(sizes)], limit)
    filled = [0] * (shards[-1] + 1 if shards else 0)
    for at, (shard, size) in enumerate(zip(shards, sizes, strict=True)):
        assert not at or shard - shards[at - 1] in {0, 1}
        if at and shard > shards[at - 1]:
            assert filled[shard - 1] + size > limit
        filled[shard] += size
    assert all(one <= limit for one in filled)


names = st.text("ab_", min_size=1, max_size=3)
groups = st.dictionaries(
    names.map(lambda name: f"/layers/{name}/vars"),
    st.lists(names.map(lambda name: f"{name}.weights.h5"), min_size=1, max_size=3, unique=True),
    max_size=5,
)


@given(groups, st.floats(0, 1e15), st.data())
def test_what_is_written_is_read(groups, total, data) -> None:
    counts = {k: data.draw(st.integers(len(v), 4 + len(v))) for k, v in groups.items()}
    found = read_map(write_map(total, groups, counts))
    assert found.groups == {k: tuple(v) for k, v in groups.items()}
    assert list(found.groups) == list(groups)
    assert found.total_size == (total if groups else 0)
    assert found.shards == tuple(dict.fromkeys(one for v in groups.values() for one in v))
