"""Shards that we cut, join and make anew, as Keras reads them."""

from __future__ import annotations

import h5py
import pytest

import ckptkit
from ckptkit.placement import Layout
from tests.compat import keras_files as files
from tests.compat import keras_zoo as zoo
from tests.compat.keras_results import arrays, equal, load, run

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("unsynced")]


def test_shards_get_the_names_that_keras_left_out(tmp_path):
    def named(file):
        for shard in files.shards(file):
            noted = files.attributes(shard)
            with h5py.File(shard) as root:
                for name in noted:
                    if name.endswith("/vars") and len(root[name]):
                        yield name, noted[name].get("name")

    file = files.save_sharded(zoo.trained("adam"), tmp_path)
    before = list(named(file))
    assert None in dict(before).values()
    whole = files.attributes(files.save_weights(zoo.trained("adam"), tmp_path))
    with ckptkit.open(file) as found:
        found.edit().plan(tmp_path / "n.weights.json", layout=Layout(names=True)).run()
    after = list(named(tmp_path / "n.weights.json"))
    assert after == [(name, whole[name]["name"]) for name, _ in before]


RESHARDED = ("nested", "recurrent", "subclassed", "own_keys", "vocabulary")


@pytest.mark.parametrize("model", RESHARDED)
def test_shards_are_cut_and_joined(tmp_path, model):
    file = files.save_weights(zoo.build(model), tmp_path)
    before = files.h5py_reads(file)
    cut, joined = tmp_path / "cut.weights.json", tmp_path / "joined.weights.h5"
    layout = Layout(max_shard_bytes=max(values.nbytes for values in before.values()))
    for source, target, way in ((file, cut, layout), (cut, joined, Layout())):
        with ckptkit.open(source) as found:
            found.edit().plan(target, layout=way).run(device="numpy")
        assert sorted(files.h5py_reads(target)) == sorted(before)
    assert len(files.shards(cut)) > (model != "own_keys")
    for kind, target in (("sharded", cut), ("weights", joined)):
        found = load(kind, target, None, model)
        assert equal(arrays(found.weights), arrays(zoo.build(model).weights))


@pytest.mark.parametrize("how", ["copy", "auto"])
@pytest.mark.parametrize("model", RESHARDED)
def test_shards_of_nested_models_are_made_anew(tmp_path, model, how):
    file = files.save_sharded(zoo.build(model), tmp_path)
    before = files.h5py_reads(file)
    name = next(name for name, values in before.items() if values.ndim == 2)
    found = files.h5py_reads(run(file, tmp_path, how, f"drop {name}"))
    assert set(before) - set(found) == {name}
    assert all(found[one].tobytes() == before[one].tobytes() for one in found)
