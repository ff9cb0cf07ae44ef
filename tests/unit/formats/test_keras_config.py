"""What config.json says, and where weights are not as it says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import EditError
from ckptkit.formats.keras.config.agreement import (
    SpecChange,
    disagreements,
    layers,
    read_config,
    synced,
)
from ckptkit.formats.keras.config.jsontext import replaced
from ckptkit.model import TensorSpec

# --- what is said -----------------------------------------------------------------------------


def entry(name, class_name, shape=None, **config):
    built = {"build_config": {"input_shape": shape}} if shape else {}
    return {"class_name": class_name, "config": {"name": name, **config}, **built}


def model_of(*listed, class_name="Sequential", **more):
    value = {"class_name": class_name, "config": {"name": "m", "layers": [*listed]}, **more}
    return read_config(json.dumps(value).encode())


def changed(label, before, after, dtype="float32", to="float32"):
    return SpecChange(
        label,
        None if before is None else TensorSpec(dtype, before),
        None if after is None else TensorSpec(to, after),
    )


HEAD = entry("head", "Dense", [None, 3], units=2, dtype="float32")


def test_a_kernel_alone_is_no_reason_to_change_units() -> None:
    config = model_of(HEAD)
    (one,) = disagreements(config, [changed("head/kernel", (3, 2), (3, 5))])
    assert (one.layer, one.field, one.found, one.wanted, one.fix) == ("head", "units", 2, 5, None)
    assert one.text == (
        "config.json: layer 'head' has units 2, and its kernel is float32[3, 5]: "
        "it should be 5, but bias of it is left as for 2"
    )
    assert synced(config, [one]) == config.content


def test_weights_that_want_different_values() -> None:
    both = [changed("head/kernel", (3, 2), (3, 5)), changed("head/bias", (2,), (6,))]
    (one,) = disagreements(model_of(HEAD), both)
    assert one.fix is None
    assert "no one value goes with that" in one.text


def test_a_follower_that_was_not_changed_is_named() -> None:
    after = entry("next", "Dense", [None, 2], units=7)
    both = [changed("head/kernel", (3, 2), (3, 5)), changed("head/bias", (2,), (5,))]
    config = model_of(HEAD, entry("between", "ReLU", [None, 2]), after)
    one, two = disagreements(config, both)
    assert one.fix == {
        ("config", "layers", 0, "config", "units"): 5,
        ("config", "layers", 1, "build_config", "input_shape", 1): 5,
    }
    assert two.text == (
        "config.json: layer 'next' has build_config.input_shape[1] 2, and layer 'head' before it "
        "gives 5: the weights of 'next' have to go with that"
    )
    assert two.fix is None


def test_a_model_without_bias_and_a_legacy_name() -> None:
    config = model_of(entry("head", "Dense", [None, 3], units=2, use_bias=False))
    (one,) = disagreements(config, [changed("m/head/kernel:0", (3, 2), (3, 4))])
    assert one.fix == {("config", "layers", 0, "config", "units"): 4}


def test_numbers_stand_for_weights() -> None:
    both = [changed("head/0", (3, 2), (3, 5)), changed("head/1", (2,), (5,))]
    (one,) = disagreements(model_of(HEAD), both)
    assert one.wanted == 5
    assert one.fix


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ((2,), None, "is a Dense, and bias of it is gone or renamed"),
        (None, (2,), "is a Dense, and gets bias"),
    ],
)
def test_weights_that_come_and_go(before, after, text) -> None:
    (one,) = disagreements(model_of(HEAD), [changed("head/bias", before, after)])
    assert text in one.text
    assert one.fix is None


def test_what_is_not_told() -> None:
    einsum = entry("q", "EinsumDense", equation="ab,bc->ac", output_shape=[None, 4])
    config = model_of(einsum, entry("mine", "MyLayer"), entry("mha", "MultiHeadAttention"))
    found = disagreements(
        config,
        [
            changed("q/kernel", (3, 4), (3, 5)),
            changed("mine/w", (3,), (4,)),
            changed("mha/query/kernel", (3, 2, 4), (3, 2, 5)),
            changed("elsewhere/w", (3,), (4,)),
            changed(None, (3,), (4,)),
            changed("mine/same", (3,), (3,)),
        ],
    )
    assert [one.field for one in found] == [
        "equation and output_shape",
        "the config of MyLayer",
        "num_heads, key_dim and output_shape",
    ]
    assert all(one.fix is None for one in found)
    assert "query/kernel is float32[3, 2, 5]" in found[2].text


def test_a_weight_of_another_rank_is_not_told() -> None:
    (one,) = disagreements(model_of(HEAD), [changed("head/kernel", (3, 2), (3, 2, 1))])
    assert one.fix is None
    assert "tells the shapes of its weights by the config of Dense" in one.text


def test_an_uneven_number_of_gates() -> None:
    lstm = entry("lstm", "LSTM", [None, 5, 6], units=3)
    weights = {"kernel": (6, 12), "recurrent_kernel": (3, 12), "bias": (12,)}
    found = disagreements(
        model_of(lstm),
        [changed(f"lstm/lstm_cell/{k}", v, (*v[:-1], 13)) for k, v in weights.items()],
    )
    assert [one.wanted for one in found] == [None]


@pytest.mark.parametrize(
    ("policy", "name", "casts"),
    [
        ("float32", "float32", True),
        ("mixed_bfloat16", "mixed_bfloat16", True),
        ({"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}, "mixed_float16", True),
        ({"class_name": "Policy", "config": {"name": "float32"}}, "float32", True),
        ("bfloat16", "bfloat16", False),
    ],
)
def test_dtype_policies(policy, name, casts) -> None:
    config = model_of(entry("head", "Dense", [None, 3], units=2, dtype=policy))
    both = [
        changed("head/kernel", (3, 2), (3, 2), to="bfloat16"),
        changed("head/bias", (2,), (2,), to="bfloat16"),
    ]
    found = disagreements(config, both)
    assert bool(found) is casts
    if casts:
        assert found[0].text == (
            f"config.json says {name} for layer 'head', whose kernel and bias are bfloat16 now; "
            "Keras casts on load"
        )
        written = json.loads(synced(config, found))["config"]["layers"][0]["config"]["dtype"]
        if isinstance(policy, dict):
            assert written == {**policy, "config": {"name": "bfloat16"}}
        else:
            assert written == "bfloat16"
    # One weight of two is no reason to change the policy of both.
    assert all(one.fix is None for one in disagreements(config, both[:1]))


@pytest.mark.parametrize("to", ["int8", "float8_e4m3fn"])
def test_dtypes_that_no_policy_has(to) -> None:
    (one,) = disagreements(model_of(HEAD), [changed("head/kernel", (3, 2), (3, 2), to=to)])
    assert one.fix is None
    assert "no dtype for weights of a layer" in one.text


def test_quantized_layers_are_only_warned_of() -> None:
    policy = {"class_name": "Int4DTypePolicy", "config": {"mode": "int4/128"}}
    config = model_of(entry("head", "Dense", [None, 3], units=2, dtype=policy))
    (one,) = disagreements(config, [changed("head/kernel", (3, 1), (3, 2), "int8", "int8")])
    assert (one.field, one.found, one.fix) == ("dtype", "Int4DTypePolicy", None)


def test_layers_that_do_not_fit_each_other() -> None:
    config = model_of(HEAD, entry("norm", "LayerNormalization", [None, 2], axis=-1))
    found = disagreements(
        config,
        [
            changed("head/kernel", (3, 2), (3, 5)),
            changed("head/bias", (2,), (5,)),
            changed("norm/gamma", (2,), (6,)),
            changed("norm/beta", (2,), (6,)),
        ],
    )
    assert any("before it gives 5" in one.text for one in found)


def test_two_values_for_one_field_are_refused() -> None:
    config = model_of(HEAD)
    one, two = (
        disagreements(
            config, [changed("head/kernel", (3, 2), (3, n)), changed("head/bias", (2,), (n,))]
        )[0]
        for n in (4, 5)
    )
    with pytest.raises(EditError, match="'head' goes with 4, and layer 'head' with 5"):
        synced(config, [one, two])


# --- layers -----------------------------------------------------------------------------------


def test_layers_of_old_models() -> None:
    old = {"class_name": "Sequential", "config": [entry("a", "Dense"), entry("b", "Dense")]}
    found = [*layers(read_config(json.dumps(old).encode(), what="model_config"))]
    assert [one.path for one in found] == [("config", 0), ("config", 1)]
    inner = entry("i", "Functional", layers=[entry("x", "Dense")])
    assert [one.owner for one in layers(model_of(inner))] == ["", "i/"]


def test_cells_in_a_list() -> None:
    cells = [entry("one", "GRUCell", units=2), entry("two", "GRUCell", units=3)]
    rnn = entry("rnn", "RNN", cell=entry("stack", "StackedRNNCells", cells=cells))
    config = model_of(rnn)
    assert [one.owner for one in layers(config)] == ["", "rnn/", "rnn/stack/", "rnn/stack/"]
    changes = [
        changed("rnn/stack/two/kernel", (2, 9), (2, 12)),
        changed("rnn/stack/two/recurrent_kernel", (3, 9), (4, 12)),
        changed("rnn/stack/two/bias", (9,), (12,)),
    ]
    (one,) = disagreements(config, changes)
    assert (one.layer, one.wanted) == ("rnn/stack/two", 4)


def test_old_functional_models() -> None:
    listed = [
        {**entry("in", "InputLayer", batch_input_shape=[None, 3]), "inbound_nodes": []},
        {**HEAD, "inbound_nodes": [[["in", 0, 0, {}]]]},
        {**entry("act", "ReLU", [None, 2]), "inbound_nodes": [[["head", 0, 0, {}]]]},
    ]
    config = model_of(*listed, class_name="Functional")
    changes = [changed("head/kernel", (3, 2), (4, 5)), changed("head/bias", (2,), (5,))]
    fixes = [one.fix for one in disagreements(config, changes)]
    here = ("config", "layers")
    assert fixes == [
        {
            (*here, 1, "build_config", "input_shape", 1): 4,
            (*here, 0, "config", "batch_input_shape", 1): 4,
        },
        {(*here, 1, "config", "units"): 5, (*here, 2, "build_config", "input_shape", 1): 5},
    ]


# --- text -------------------------------------------------------------------------------------


def test_everything_else_is_verbatim() -> None:
    content = (
        '{ "class_name":"Sequential",\n "config" : {"layers": [{"class_name": "Dense", '
        '"build_config": {"input_shape": [null, 3]}, '
        '"config": {"name": "h\u00e9\\u00e9\\"[", "units" :2, "x": '
        "[1E-07, -0, NaN, 123456789012345678901234567890, 0.10, 1e400], "
        '"use_bias": false}}]}}\t'
    ).encode()
    config = read_config(content)
    label = 'h\u00e9\u00e9"[/kernel'
    found = disagreements(config, [changed(label, (3, 2), (3, 4))])
    assert synced(config, found) == content.replace(b'"units" :2', b'"units" :4')


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def places(value, path=()):
    yield path, value
    items = value.items() if isinstance(value, dict) else []
    items = enumerate(value) if isinstance(value, list) else items
    for key, one in items:
        yield from places(one, (*path, key))


@given(values, values, st.data(), st.booleans())
def test_replacing_a_value_is_replacing_it_in_the_text(value, new, data, ascii_):
    content = json.dumps(value, ensure_ascii=ascii_, indent=data.draw(st.sampled_from([None, 1])))
    path, _ = data.draw(st.sampled_from([*places(value)]))
    found = json.loads(replaced(content.encode("utf-8", "surrogatepass"), {path: new}))
    expected = json.loads(json.dumps(value))
    if not path:
        assert found == new
        return
    inner = expected
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    assert found == expected
