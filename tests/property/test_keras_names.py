"""The laws of names in Keras files: labels are unique, and lists tell what is there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckptkit import EditError
from ckptkit.formats.keras.hdf5.regrouping import regroup
from ckptkit.formats.keras.naming.families import family_of, names_in
from ckptkit.formats.keras.naming.labels import in_order, labels_of, layers_of
from ckptkit.formats.keras.naming.legacy import attributes_after
from ckptkit.formats.keras.naming.repair import missing_names, names_from_config
from tests.unit.formats.trees import tree_of

PARTS = st.sampled_from([
    *("layers", "vars", "dense", "dense_1", "lstm", "cell", "optimizer", "inner_optimizer"),
    *("model_weights", "optimizer_weights", "layer_0", "kernel:0", "a\\vars", "0", "1", "10"),
])  # fmt: skip
PATHS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
NAMES = st.sampled_from(["dense", "head", "a/b", "*", "\x1b[0m", "", "é", "0"])
VALUES = st.one_of(st.none(), st.integers(), NAMES, st.lists(NAMES, max_size=3).map(tuple))
SPECS = st.tuples(
    st.sampled_from(["float32", "int8", "int64", "bool"]),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NAMES, st.sampled_from(["Dense", "Sequential", "LSTM"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from([
                *("class_name", "config", "layers", "layer", "cell", "cells", "name", "module"),
                *("compile_config", "optimizer", "learning_rate", "use_bias"),
            ]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


def apart(paths):
    """Leave out what would be a dataset and a group."""
    kept = []
    for path in paths:
        if not any(f"{one}/".startswith(f"{path}/") or f"{path}/".startswith(f"{one}/")
                   for one in kept):  # fmt: skip
            kept.append(path)
    return kept


@st.composite
def any_trees(draw):
    paths = apart(draw(st.lists(PATHS, max_size=8)))
    groups = ["", *{path.rpartition("/")[0] for path in paths}]
    keys = st.sampled_from(["name", "layer_names", "layer_names0", "weight_names", "nb_layers"])
    attributes = draw(
        st.dictionaries(st.sampled_from(groups), st.dictionaries(keys, VALUES, max_size=2))
    )
    return tree_of({path: draw(SPECS) for path in paths}, attributes=attributes)


@given(any_trees(), st.one_of(st.none(), st.dictionaries(st.just("x"), st.none()), JSON))
def test_labels_are_one_for_each_and_never_the_name_of_another(tree, config):
    config = config if isinstance(config, dict) else None
    labels = labels_of(tree, config)
    assert len({*labels.values()}) == len(labels)
    assert tree.datasets.keys() >= labels.keys()
    assert all(label == path or label not in tree.datasets for path, label in labels.items())
    assert labels == {} or family_of(tree) is not None
    assert layers_of(tree, labels).keys() == labels.keys()
    assert sorted(in_order(tree)) == sorted(tree.datasets)
    names = names_from_config(tree, config)
    assert tree.groups.keys() >= names.keys()
    assert missing_names([tree, tree]) == {}


LAYERS = ("a", "b", "c/d")
WEIGHTS = st.sampled_from(["w", "x", "a/w", "m/a/w", "m/b/x"])


@st.composite
def legacy_trees(draw):
    root = draw(st.sampled_from(["", "model_weights"]))
    at = f"{root}/" if root else ""
    lists = {layer: apart(draw(st.lists(WEIGHTS, max_size=3, unique=True))) for layer in LAYERS}
    attributes = {f"{at}{layer}": {"weight_names": tuple(names)} for layer, names in lists.items()}
    attributes[root] = {"layer_names": LAYERS}
    paths = [f"{at}{layer}/{name}" for layer, names in lists.items() for name in names]
    groups = [f"{at}{layer}" for layer in LAYERS]
    return root, tree_of(paths, groups=groups, attributes=attributes)


@given(legacy_trees(), st.data())
def test_lists_tell_what_is_there(rooted, data):
    root, tree = rooted
    at = f"{root}/" if root else ""
    old, new = (data.draw(st.sampled_from(["a", "b", "d", "m", "w"])) for _ in range(2))
    first = data.draw(st.booleans())
    paths = {}
    for path in tree.datasets:
        parts = path.split("/")
        changed = [new if part == old else part for part in parts]
        if first and old in parts:
            here = parts.index(old)
            changed = [*parts[:here], new, *parts[here + 1 :]]
        paths[path] = None if data.draw(st.integers(0, 4)) == 0 else "/".join(changed)
    kept = {path: new for path, new in paths.items() if new is not None}
    added = [f"{at}a/new"] if data.draw(st.booleans()) else []
    try:
        found = regroup(tree, paths, attributes=attributes_after(tree, kept, added), added=added)
    except EditError:
        return
    after = {
        new: {**tree.groups[group].attributes, **found.attributes.get(new, {})}
        for group, new in found.groups.items()
    }
    if root not in after:
        assert not found.datasets
        return
    listed = []
    layers = names_in(after[root], "layer_names")
    for layer in layers:
        listed += [f"{at}{layer}/{name}" for name in names_in(after[at + layer], "weight_names")]
    assert sorted(listed) == sorted([*found.datasets.values(), *added])
    assert len({*layers}) == len(layers)
