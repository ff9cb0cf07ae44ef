"""Object graphs of real checkpoints: read as TensorFlow reads them, and without a finding."""

from __future__ import annotations

import numpy as np
import pytest

import ckptkit
from ckptkit.formats.tensorflow.graph.load import load_graph
from ckptkit.formats.tensorflow.graph.objects import joined
from ckptkit.formats.tensorflow.graph.revision import Revision
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY

pytestmark = pytest.mark.tensorflow


def module(tf, folder):
    """Lists, dictionaries, odd names, shared variables, cycles."""
    root = tf.Module()
    root.w = tf.Variable([1.0, 2.0], name="w")
    root.many = [tf.Variable(1.0), root.w, {"a.b": tf.Variable(2), "c/d": tf.Variable(b"text")}]
    root.itself = root
    return tf.train.Checkpoint(root=root, step=tf.Variable(3)).save(folder)


def root_variable(tf, folder):
    """A checkpoint whose root is a variable."""
    return tf.train.Checkpoint(root=tf.Variable(1.0)).write(folder)


def keras3(tf, folder):
    """A model whose optimizer holds the weights."""
    import keras

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="d1")])
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 3)), np.zeros((2, 2)), verbose=0)
    return tf.train.Checkpoint(model=model).save(folder)


def legacy(tf, folder):
    """A model with slot variables."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), name="d1")])
    model.compile(tf_keras.optimizers.legacy.Adam(), "mse")
    model.fit(np.zeros((2, 3)), np.zeros((2, 2)), verbose=0)
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(folder)


def weights(tf, folder):
    """What tf_keras writes without a checkpoint object."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.GRU(2, input_shape=(3, 1))])
    model.compile("sgd", "mse")
    model.fit(np.zeros((2, 3, 1)), np.zeros((2, 2)), verbose=0)
    model.save_weights(folder)
    return folder


def tables(tf, folder):
    """Objects with several tensors, and objects of Python."""

    class Counter(tf.train.experimental.PythonState):
        def serialize(self):
            return "7"

        def deserialize(self, value):
            del value

    table = tf.lookup.experimental.DenseHashTable(tf.int64, tf.float32, -1.0, 0, -1)
    table.insert([1, 2], [3.0, 4.0])
    mutable = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
    mutable.insert(["a"], [1])
    data = iter(tf.data.Dataset.range(3))
    generator = tf.random.Generator.from_seed(1)
    return tf.train.Checkpoint(
        table=table, mutable=mutable, counter=Counter(), data=data, generator=generator
    ).save(folder)


def saved_model(tf, folder):
    """A SavedModel."""
    root = tf.Module()
    root.w = tf.Variable([1.0, 2.0])
    root.f = tf.function(lambda x: x * root.w, input_signature=[tf.TensorSpec([2])])
    tf.saved_model.save(root, folder)
    return folder


def registered(tf, folder):
    """An object whose tensors a registered saver names as it likes."""
    from tensorflow.python.saved_model import registration

    class Part(tf.Module):
        pass

    def save_fn(trackables, file_prefix):
        del trackables
        tf.raw_ops.SaveV2(
            prefix=file_prefix,
            tensor_names=["of/its/own"],
            shape_and_slices=[""],
            tensors=[tf.constant([1.0])],
        )
        return file_prefix

    part = Part()
    registration.register_checkpoint_saver(
        package="ckptkit",
        name="Own",
        predicate=lambda one: one is part,
        save_fn=save_fn,
        restore_fn=lambda trackables, merged_prefix: None,
    )
    return tf.train.Checkpoint(part=part, w=tf.Variable(1.0)).save(folder)


REAL = [module, root_variable, keras3, legacy, weights, tables, saved_model, registered]


@pytest.fixture(scope="module")
def real(tf, tmp_path_factory):
    """Each checkpoint, made once."""
    made = {}

    def get(make):
        if make not in made:
            made[make] = make(tf, str(tmp_path_factory.mktemp("real") / "m"))
        return made[make]

    return get


def proto_of(data):
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    return TrackableObjectGraph.FromString(data)


@pytest.mark.parametrize("make", REAL)
def test_real_checkpoints_have_no_finding(real, make):
    verdict = ckptkit.open(real(make)).verify()
    assert verdict.problems == ()
    assert verdict.ok


def test_saved_models_by_others_have_no_finding(corpus):
    found = sorted(corpus.rglob("variables.index"))
    assert found
    for path in found:
        assert ckptkit.open(path).verify().problems == ()


@pytest.mark.parametrize("make", REAL)
def test_graphs_are_read_as_tensorflow_reads_them(tf, real, make):
    checkpoint = ckptkit.open(real(make))
    graph = load_graph(checkpoint.catalog)
    reader = tf.train.load_checkpoint(
        real(make) + "/variables/variables" if make is saved_model else real(make)
    )
    data = reader.get_tensor(GRAPH_KEY)
    assert graph.data == data
    proto = proto_of(data)
    assert len(graph) == len(proto.nodes)
    for number, node in enumerate(proto.nodes):
        children = [
            (graph.edge_child[at], graph.edge_name[at]) for at in graph.edges_of.get(number, ())
        ]
        assert children == [(one.node_id, one.local_name) for one in node.children]
        attributes = [
            (graph.attribute_name[at], graph.full_name[at], graph.key[at])
            for at in graph.attributes_of.get(number, ())
        ]
        assert attributes == [
            (one.name, one.full_name, one.checkpoint_key) for one in node.attributes
        ]
        slots = [
            (graph.slot_original[at], graph.slot_name[at], graph.slot_variable[at])
            for at in graph.slots_of.get(number, ())
        ]
        assert slots == [
            (one.original_variable_node_id, one.slot_name, one.slot_variable_node_id)
            for one in node.slot_variables
        ]
        assert node.has_checkpoint_values.value == bool(graph.holders[number])
        assert node.HasField("registered_saver") == (number in graph.savers)


@pytest.mark.parametrize("make", REAL)
def test_keys_are_named_after_the_tree(real, make):
    graph = load_graph(ckptkit.open(real(make)).catalog)
    for at, node in enumerate(graph.attribute_node):
        path = graph.path(node)
        if path is not None:
            assert graph.key[at].startswith(joined(path) + "/.ATTRIBUTES/")


@pytest.mark.parametrize("make", REAL)
def test_revisions_are_what_tensorflow_would_encode(real, make):
    graph = load_graph(ckptkit.open(real(make)).catalog)
    proto = proto_of(graph.data)
    revision = Revision(graph)
    assert revision.encode() is graph.data
    for at, (key, full_name) in enumerate(zip(graph.key, graph.full_name, strict=True)):
        revision.set_attribute(at, key=key, full_name=full_name)
    for edge, name in enumerate(graph.edge_name):
        revision.rename_edge(edge, name)
    for node in range(len(graph)):
        revision.set_has_values(node, value=bool(graph.holders[node]))
    assert revision.changed
    assert revision.encode() == graph.data
    for at, key in enumerate(graph.key):
        revision.set_attribute(at, key="moved/" + key)
    for edge, name in enumerate(graph.edge_name):
        revision.rename_edge(edge, name + "!")
    node = revision.add_node()
    revision.add_edge(0, node, "more")
    revision.add_attribute(node, "VARIABLE_VALUE", "more", "more/key")
    revision.add_slot(0, node, "m", node)
    revision.set_has_values(node, value=True)
    for one in proto.nodes:
        for attribute in one.attributes:
            attribute.checkpoint_key = "moved/" + attribute.checkpoint_key
        for child in one.children:
            child.local_name += "!"
    proto.nodes[0].children.add(node_id=node, local_name="more")
    proto.nodes[0].slot_variables.add(
        original_variable_node_id=node, slot_name="m", slot_variable_node_id=node
    )
    proto.nodes.add().attributes.add(
        name="VARIABLE_VALUE", full_name="more", checkpoint_key="more/key"
    )
    proto.nodes[node].has_checkpoint_values.value = True
    assert revision.encode() == proto.SerializeToString(deterministic=True)


@pytest.mark.parametrize("make", REAL)
def test_every_tensor_is_in_the_tree_once(real, make):
    checkpoint = ckptkit.open(real(make))
    shown = [
        tensor
        for line in checkpoint.graph.lines()
        if line.item
        for attribute in line.item.attributes
        for tensor in attribute.tensors
    ]
    assert sorted(shown) == sorted(set(checkpoint) - {GRAPH_KEY, "of/its/own"})
    assert all(len(checkpoint.graph.matching(item.path)) for item in checkpoint.graph if item.path)


def test_what_a_policy_of_shards_loses_is_told(tf, tmp_path):
    empty, full = tf.Variable(tf.zeros((0, 3))), tf.Variable([1.0, 2.0])
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(1 << 20)
    )
    path = tf.train.Checkpoint(empty=empty, full=full).write(str(tmp_path / "m"), options)
    (problem,) = ckptkit.open(path).verify().problems
    assert (problem.severity, problem.tensor) == (*("error", "empty/.ATTRIBUTES/VARIABLE_VALUE"),)
    fresh = tf.train.Checkpoint(empty=tf.Variable(tf.zeros((0, 3))), full=tf.Variable([0.0, 0.0]))
    with pytest.raises(tf.errors.NotFoundError):
        fresh.read(path)
