"""What the README shows of TensorFlow's checkpoints, line by line, with TensorFlow as the judge."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ckptkit
import ckptkit.tf
from ckptkit.cli import main
from tests.unit.test_readme import README

pytestmark = pytest.mark.tensorflow

SECTION = README.partition("## TensorFlow checkpoints in full\n")[2].partition("\n## ")[0]
LINES = [line for line in SECTION.splitlines() if line.startswith("ckptkit ")]
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class Model:
    """Objects as somebody has them: a model, one of whose layers is shared, and an optimizer."""

    def __init__(self, tf, layer="dense", scale=0.0):
        def variable(values, name):
            return tf.Variable(np.float32(values) * np.float32(scale), name=name)

        dense = tf.Module()
        dense.kernel = variable(np.arange(12).reshape(4, 3), f"model/{layer}/kernel")
        dense.bias = variable([1, 2, 3], f"model/{layer}/bias")
        model = tf.Module()
        model.table = variable([4, 5], "model/table")
        model.block = tf.Module()
        model.block.inner = tf.Module()
        model.block.inner.kernel = model.table
        setattr(model, layer, dense)
        optimizer = tf.compat.v1.train.AdamOptimizer()
        weights = [dense.kernel, dense.bias]
        optimizer.apply_gradients([(tf.ones_like(one), one) for one in weights])
        emb = variable(np.arange(20).reshape(10, 2), "emb")
        self.parts = {"model": model, "optimizer": optimizer, "emb": emb}
        slots = [optimizer.get_slot(one, name) for one in weights for name in ("m", "v")]
        self.state = [*slots, *optimizer.variables()]
        self.weights = [*weights, model.table, emb]
        if not scale:
            for one in (*self.weights, *self.state):
                one.assign(tf.zeros_like(one))

    def checkpoint(self, tf, *, optimizer=True):
        names = self.parts if optimizer else self.parts.keys() - {"optimizer"}
        return tf.train.Checkpoint(**{name: self.parts[name] for name in names})

    def values(self, *, optimizer=True):
        return [one.numpy() for one in (*self.weights, *(self.state if optimizer else ()))]


def first_format(tf, path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", initializer=np.float32([1, 2]))
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1)
        saver.save(session, path, write_meta_graph=False, write_state=False)


def saved_model(tf, path):
    module = tf.Module()
    module.a = tf.Variable(0.5)
    signature = [tf.TensorSpec([], tf.float32)]
    module.times = tf.function(lambda x: x * module.a, input_signature=signature)
    tf.saved_model.save(module, path)


def damaged_copy(src, dst):
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(src + suffix, dst + suffix)
    with ckptkit.open(src) as checkpoint:
        row = checkpoint.catalog.row(f"model/table{VALUE}")
        offset = checkpoint.catalog.columns.offset[row]
    with Path(f"{dst}.data-00000-of-00001").open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff")


def inputs(tf):
    """Make in this folder what the lines are about; return the model that was saved."""
    model = Model(tf, scale=1.0)
    manager = tf.train.CheckpointManager(model.checkpoint(tf), "run", 3)
    for number in (5, 6, 7):
        manager.save(number)
    Path("run/ckpt-4.index").write_bytes(b"damaged")
    first_format(tf, "old.ckpt")
    saved_model(tf, "saved_model")
    damaged_copy("run/ckpt-7", "broken")
    shutil.copytree("run", "moved/run")
    paths = [os.path.abspath(f"run/ckpt-{number}") for number in (5, 6, 7)]
    entries = "".join(f'all_model_checkpoint_paths: "{path}"\n' for path in paths)
    Path("moved/run/checkpoint").write_text(f'model_checkpoint_path: "{paths[-1]}"\n{entries}')
    return model


@pytest.fixture(scope="module")
def done(tf, tmp_path_factory):
    """A folder in which all lines have been run, in their order, and what each of them said."""
    folder = tmp_path_factory.mktemp("readme")
    codes, said = {}, {}
    with contextlib.chdir(folder):
        model = inputs(tf)
        for line in LINES:
            # The one file system that TensorFlow knows without a network.
            _, *arguments = shlex.split(line.replace("gs://bucket", f"file://{folder}/run"), True)
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                codes[line] = main(arguments)
            said[" ".join(arguments)] = out.getvalue()
    return SimpleNamespace(folder=folder, model=model, codes=codes, said=said)


@pytest.fixture(autouse=True)
def there(done, monkeypatch):
    monkeypatch.chdir(done.folder)


def said(done, begin):
    (found,) = (text for arguments, text in done.said.items() if arguments.startswith(begin))
    return found


def same(found, wanted):
    assert [one.tobytes() for one in found] == [one.tobytes() for one in wanted]


def restored(tf, path, layer="dense", *, optimizer=True):
    """Restore a checkpoint into fresh objects, all of both, and return the values of these."""
    fresh = Model(tf, layer)
    status = fresh.checkpoint(tf, optimizer=optimizer).restore(path)
    status.assert_existing_objects_matched()
    status.assert_consumed()
    return fresh.values(optimizer=optimizer)


def test_every_line_does_its_job(done):
    assert len(LINES) == 16
    assert done.codes == dict.fromkeys(LINES, 0)


def test_the_inputs_are_as_they_were(tf, done):
    for number in (5, 6, 7):
        same(restored(tf, f"run/ckpt-{number}"), done.model.values())


def test_the_tree_shows_paths_names_keys_aliases_and_slots(done):
    text = said(done, "ls --graph")
    for what in (
        r"kernel +float32 +\[4,3\] +model/dense/kernel +model/dense/kernel/\.ATTRIBUTES",
        r"table +float32 +\[2\] +model/table",
        r"kernel -> model/table\n",
        r"m of model/dense/kernel +float32",
    ):
        assert re.search(what, text), what


@pytest.mark.parametrize("path", ["out/a", "out/b"])
def test_a_renamed_layer_restores_under_its_new_name(tf, done, path):
    same(restored(tf, path, "fc"), done.model.values())
    with ckptkit.open(path) as checkpoint:
        found = checkpoint.graph.matching("model/fc/kernel")[0]
    assert found.attributes[0].key == f"model/fc/kernel{VALUE}"
    assert found.attributes[0].full_name == "model/fc/kernel"


def test_a_target_by_path_is_every_path(tf, done):
    kernel, bias, table, *others = done.model.values()
    same(restored(tf, "out/c"), [kernel / 2, bias, table / 2, *others])


@pytest.mark.parametrize("path", ["out/d", "out/g"])
def test_a_dropped_optimizer_leaves_the_model(tf, done, path):
    found = restored(tf, path, optimizer=False)
    same(found, done.model.values(optimizer=False))
    with ckptkit.open(path) as checkpoint:
        assert not [name for name in checkpoint if "optimizer" in name.lower()]


def test_an_added_variable_restores(tf, done):
    fresh = Model(tf)
    fresh.parts["model"].scale = tf.Variable(tf.zeros(8))
    fresh.checkpoint(tf).restore("out/e").assert_consumed()
    same([fresh.parts["model"].scale.numpy()], [np.ones(8, np.float32)])
    same(fresh.values(), done.model.values())


def test_a_tensor_in_slices_restores_and_joins_again(tf, done):
    same(restored(tf, "out/f"), done.model.values())
    name = f"emb{VALUE}"
    with ckptkit.open("out/f") as checkpoint:
        columns, row = checkpoint.catalog.columns, checkpoint.catalog.row(name)
        assert [box.shape for box, _ in columns.parts[row]] == [(3, 2), (3, 2), (2, 2), (2, 2)]
        (statement,) = re.findall(r"'(repartition .*) -> 4", SECTION)
        checkpoint.edit(f"{statement} -> whole").plan("whole").run()
    with ckptkit.open("whole") as whole:
        assert not whole.catalog.columns.parts
    same(restored(tf, "whole"), done.model.values())


def test_the_latest_are_those_that_were_registered(tf):
    assert tf.train.latest_checkpoint("out") == "out/g"
    assert tf.train.latest_checkpoint("run") == "run/ckpt-5"
    assert tf.train.latest_checkpoint("moved/run") == "moved/run/ckpt-7"


def test_a_folder_is_listed_with_what_is_damaged(done):
    text = said(done, "ls run --all")
    assert re.search(r"ckpt-7 .* latest\n", text)
    assert re.search(r"ckpt-4 .* at least 48 bytes", text)
    assert "3 checkpoints, 1 does not open; the latest is run/ckpt-7" in text


def test_the_first_format_became_the_second(tf):
    assert Path("new.index").is_file()
    np.testing.assert_array_equal(tf.train.load_variable("new", "w"), [1, 2])


def test_a_saved_model_computes_with_the_new_value(tf):
    assert float(tf.saved_model.load("saved_model").times(3.0)) == 1.5
    assert float(tf.saved_model.load("out/h").times(3.0)) == 3.0
    same_file, hashed = "saved_model.pb", "fingerprint.pb"
    old, new = Path("saved_model"), Path("out/h")
    assert (new / same_file).read_bytes() == (old / same_file).read_bytes()
    assert (new / hashed).read_bytes() != (old / hashed).read_bytes()
    with ckptkit.open("out/h") as checkpoint:
        assert not checkpoint.verify().problems


def test_both_readers_agree(done):
    text = said(done, "verify")
    assert re.search(r"run/ckpt-7: \d+ tensors read by TensorFlow as well", text)


def test_tensorflow_reads_from_where_it_can(done):
    text = said(done, "ls file://")
    assert f"emb{VALUE}" in text
    assert "tensorflow-reader checkpoint" in text


def test_what_was_damaged_is_saved(tf, done):
    text = said(done, "salvage")
    assert f"filled from a donor: tensor 'model/table{VALUE}'" in text
    assert "nothing is lost" in text
    same(restored(tf, "out/i"), done.model.values())


def test_the_python_block_reads_by_our_reader(tf, done, monkeypatch):
    kernel = np.arange(12, dtype=np.float32).reshape(4, 3)
    ckptkit.save("run/model-1000", {"dense/kernel": kernel})
    (code,) = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    read = []
    get_tensor = ckptkit.tf.CheckpointReader.get_tensor
    monkeypatch.setattr(
        ckptkit.tf.CheckpointReader,
        "get_tensor",
        lambda self, name: read.append(get_tensor(self, name)),
    )
    theirs = tf.train.list_variables
    exec(code, {})  # noqa: S102  it is the README's
    same(read, [kernel])
    assert tf.train.list_variables is theirs
    with ckptkit.tf.installed():
        assert tf.train.list_variables is not theirs
        assert tf.train.list_variables("run/model-1000") == [("dense/kernel", [4, 3])]
