"""Texts beside Keras weights that are not what they seem."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import CorruptError, EditError, UnsupportedError
from ckptkit.formats.keras import shardmap
from ckptkit.formats.keras.config import entries
from ckptkit.formats.keras.config.agreement import (
    SpecChange,
    disagreements,
    layers,
    read_config,
    synced,
)
from ckptkit.formats.keras.config.jsontext import MAX_DEPTH, MAX_VALUES
from ckptkit.formats.keras.shardmap import read_map
from ckptkit.model import TensorSpec

START = b'{"class_name": "Sequential", "config": '


def config_refused(content, kind, text, offset=None):
    with pytest.raises(kind) as caught:
        read_config(content, path="m.keras")
    assert text in str(caught.value)
    assert caught.value.path == "m.keras"
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("content", "text", "offset"),
    [
        (b"", "config.json is no JSON", 0),
        (b"\x89HDF\r\n", "no UTF-8", 0),
        (b'{"a": "\xff"}', "no UTF-8", 7),
        (b'\xef\xbb\xbf{"class_name": "Sequential"}', "no JSON", 0),
        ('{"class_name": "é", "config" {}}'.encode(), "no JSON", 30),
        (START + b"{}", "no JSON", 41),
        (START + b"{}} x", "no JSON", 43),
        (b"[]", "is a JSON list", 0),
        (b'"text"', "is a JSON string", 0),
        (b"null", "is a JSON null", 0),
        (b"true", "is a JSON boolean", 0),
        (b"1", "is a JSON number", 0),
        (b"{}", 'the "class_name" and the "config"', 0),
        (b'{"class_name": 3, "config": {}}', "class_name", 0),
        (START + b'{"a": 1, "b": 2, "a": 3}}', "key 'a' more than once", None),
        (START + b"9" * 5000 + b"}", "a number that is none", None),
    ],
)
def test_what_is_no_config(content, text, offset) -> None:
    config_refused(content, CorruptError, text, offset)


@pytest.mark.parametrize("bracket", [b"[", b'{"a":', b'[{"":'])
@pytest.mark.parametrize("closed", [True, False])
def test_nested_beyond_any_model(bracket, closed) -> None:
    depth = 100_000
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"":': b"}]"}[bracket]
    content = START + bracket * depth + b"1" + (closing * depth if closed else b"") + b"}"
    at = MAX_DEPTH - 1
    offset = len(START) + at // 2 * 5 + at % 2 if bracket == b'[{"":' else None
    offset = len(START) + at * len(bracket) if offset is None else offset
    config_refused(content, UnsupportedError, "deeper than 200 levels", offset)


def test_as_deep_as_allowed() -> None:
    depth = MAX_DEPTH - 1
    read_config(START + b"[" * depth + b"]" * depth + b"}")
    # Brackets in a string are none.
    read_config(START + b'"' + b"[" * 1000 + b'\\"]"}')


@pytest.mark.parametrize("value", [b"0,", b"[],", b"{},", b'"",'])
def test_more_values_than_any_model(value) -> None:
    content = START + b"[" + value * MAX_VALUES + b"0]}"
    config_refused(content, UnsupportedError, "more than 2097152 values")


@pytest.mark.parametrize("content", [b'"' + b'\\"' * 300_000, b"\\" * 300_000, b'"\\' * 200_000])
def test_strings_without_an_end_take_no_time(content) -> None:
    with pytest.raises(CorruptError):
        read_config(START + content)


def test_longer_than_any_model(monkeypatch) -> None:
    monkeypatch.setattr(entries, "MAX_BYTES", 50)
    monkeypatch.setattr(shardmap, "MAX_BYTES", 50)
    for read in (read_config, read_map):
        with pytest.raises(UnsupportedError, match="has 51 bytes, and at most 50 are read"):
            read(b" " * 51)


def test_numbers_that_overflow_and_are_none() -> None:
    config = read_config(START + b"[NaN, -Infinity, 1e999, -0, 1e-999]}")
    assert synced(config, []) == config.content


LAYERS = {
    "class_name": "Lambda",
    "module": "os",
    "registered_name": "builtins>exec",
    "config": {
        "name": "system",
        "function": {"class_name": "__lambda__", "config": {"value": "4w"}},
    },
}


def test_nothing_that_a_config_names_is_imported() -> None:
    before = set(sys.modules)
    evil = {**LAYERS, "module": "antigravity", "class_name": "this"}
    pickled = {"class_name": "TorchModuleWrapper", "config": {"name": "t", "module": "gASVIA=="}}
    file = {"class_name": "StringLookup", "config": {"name": "s", "vocabulary": "/etc/passwd"}}
    saved = {"class_name": "TFSMLayer", "config": {"name": "f", "filepath": "/etc"}}
    value = {"class_name": "Model", "config": {"layers": [LAYERS, evil, pickled, file, saved]}}
    config = read_config(json.dumps(value).encode())
    assert [one.name for one in layers(config)] == ["system", "system", "t", "s", "f"]
    spec, other = TensorSpec("float32", (2,)), TensorSpec("float32", (3,))
    found = disagreements(config, [SpecChange(f"{n}/w", spec, other) for n in ("system", "t", "f")])
    assert len(found) == 3
    assert synced(config, found) == config.content
    assert set(sys.modules) == before


def test_names_cannot_hide_in_messages() -> None:
    head = {"name": "a\x1b[2J\n\ud800", "units": 2, "use_bias": False}
    value = {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": head}]}
    config = read_config(json.dumps(value).encode())
    change = SpecChange(
        "a\x1b[2J\n\ud800/kernel", TensorSpec("float32", (1, 2)), TensorSpec("float32", (1, 3))
    )
    (one,) = disagreements(config, [change])
    assert one.text.isprintable()
    assert "\\x1b[2J\\n\\ud800" in one.text
    assert json.loads(synced(config, [one]))["config"][0]["config"] == {**head, "units": 3}


odd = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.text("ab/", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=5,
)
KEYS = (
    "class_name", "config", "layers", "name", "build_config", "input_shape", "dtype", "units",
    "filters", "kernel_size", "groups", "axis", "inbound_nodes", "args", "shape", "layer",
    "output_layers", "data_format", "use_bias", "batch_shape", "keras_history",
)  # fmt: skip


def sound():
    def layer(kind, name, before, shape, **config):
        history = {"shape": shape, "keras_history": [before, 0, 0]}
        tensor = {"class_name": "__keras_tensor__", "config": history}
        return {
            "class_name": kind,
            "name": name,
            "config": {"name": name, "dtype": {"class_name": "DTypePolicy",
                       "config": {"name": "float32"}}, **config},
            "build_config": {"input_shape": shape},
            "inbound_nodes": [{"args": [tensor], "kwargs": {}}],
        }  # fmt: skip

    inner = [
        layer("InputLayer", "in", "", [None, 8, 3], batch_shape=[None, 8, 3]),
        layer("Conv1D", "conv", "in", [None, 8, 3], filters=4, kernel_size=[3], groups=1),
        layer("ReLU", "relu", "conv", [None, 6, 4]),
        layer("BatchNormalization", "bn", "relu", [None, 6, 4], axis=[-1]),
        layer("Dense", "dense", "bn", [None, 6, 4], units=2),
    ]
    dense = layer("Dense", "x", "", [None, 2], units=2)
    outer = [
        layer("Functional", "net", "", [None, 8, 3], layers=inner, output_layers=[["dense", 0, 0]]),
        layer("TimeDistributed", "each", "net", [None, 6, 2], layer=dense),
        layer("LSTM", "lstm", "each", [None, 6, 2], units=2),
    ]
    return {"class_name": "Sequential", "config": {"name": "m", "layers": outer}}


def shape_change(label, before, after):
    return SpecChange(label, TensorSpec("float32", before), TensorSpec("bfloat16", after))


CHANGES = [
    shape_change("net/conv/kernel", (3, 3, 4), (5, 2, 6)),
    shape_change("net/conv/bias", (4,), (6,)),
    shape_change("net/bn/gamma", (4,), (6,)),
    shape_change("net/dense/kernel", (4, 2), (6, 7)),
    shape_change("net/dense/bias", (2,), (7,)),
    shape_change("each/x/kernel", (2, 2), (7, 5)),
    shape_change("each/x/bias", (2,), (5,)),
    shape_change("lstm/lstm_cell/kernel", (2, 8), (5, 12)),
    shape_change("lstm/lstm_cell/recurrent_kernel", (2, 8), (3, 12)),
    shape_change("lstm/lstm_cell/bias", (8,), (12,)),
]


def containers(value):
    if isinstance(value, dict | list):
        yield value
        for one in value.values() if isinstance(value, dict) else value:
            yield from containers(one)


def test_what_is_mutated_is_sound() -> None:
    config = read_config(json.dumps(sound()).encode())
    found = disagreements(config, CHANGES)
    assert {one.layer for one in found if one.fix} == {
        "net/conv", "net/dense", "each/x", "lstm",
    }  # fmt: skip
    again = read_config(synced(config, found))
    assert not [one for one in disagreements(again, CHANGES) if one.fix]


@given(st.data())
def test_any_config_is_read_or_refused(data) -> None:
    value = sound()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from([*containers(value)]))
        new = data.draw(odd | st.sampled_from([*containers(sound())]))
        if isinstance(place, dict):
            place[data.draw(st.sampled_from([*place, *KEYS]))] = new
        elif place and data.draw(st.booleans()):
            place[data.draw(st.integers(0, len(place) - 1))] = new
        else:
            place.append(new)
    try:
        config = read_config(json.dumps(value).encode())
    except CorruptError:
        return
    found = disagreements(config, CHANGES)
    try:
        content = synced(config, found)
    except EditError:
        return
    assert isinstance(json.loads(content), dict)
    if not any(one.fix for one in found):
        assert content == config.content


@given(st.binary(max_size=30), st.integers(0, 200))
def test_any_bytes_are_read_or_refused(noise, at) -> None:
    text = json.dumps(sound()).encode()
    for content in (noise, text[:at], text[:at] + noise + text[at:]):
        for read in (read_config, read_map):
            with contextlib.suppress(CorruptError, UnsupportedError):
                read(content)


# --- maps of shards ---------------------------------------------------------------------------


def shard_map(listed="m_00000.weights.h5", group="/layers/dense/vars", size=1.0):
    return json.dumps({"metadata": {"total_size": size}, "weight_map": {group: listed}}).encode()


def map_refused(content, kind, *texts):
    with pytest.raises(kind) as caught:
        read_map(content, path="m.weights.json")
    assert caught.value.path == "m.weights.json"
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/m.h5", "../m.h5", "..", ".", "", "a/b.h5", "..\\m.h5", "\\\\host\\share\\m.h5",
        "C:m.h5", "c:\\m.h5", "m.h5\0.h5", "./m.h5", "//m.h5", "m.h5/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("listed", [False, True])
def test_shards_elsewhere(name, listed) -> None:
    value = ["m_00000.weights.h5", name] if listed else name
    map_refused(shard_map(value), CorruptError, repr(name), "lie beside it")


@pytest.mark.parametrize("name", ["m.npz", "m", "m.h5.pkl", "m.H5"])
def test_shards_of_another_kind(name) -> None:
    map_refused(shard_map(name), UnsupportedError, name, "only shards that are .h5 files")


@pytest.mark.parametrize("value", [None, 3, {}, [], [1], ["m.h5", None], [["m.h5"]]])
def test_shards_that_are_no_names(value) -> None:
    map_refused(shard_map(value), CorruptError, "a file name or some for '/layers/dense/vars'")


def test_shard_named_twice() -> None:
    map_refused(shard_map(["m.h5", "m.h5"]), CorruptError, "more than once")


@pytest.mark.parametrize("group", ["", "/", "layers/vars", "/a//vars", "/../vars", "/a/./v", "/\0"])
def test_groups_that_are_no_paths(group) -> None:
    map_refused(shard_map(group=group), CorruptError, "no path of a group")


@pytest.mark.parametrize("size", [None, "1", True, -1, float("nan"), float("inf"), 2**70, [1]])
def test_sizes_that_are_none(size) -> None:
    map_refused(shard_map(size=size), CorruptError, "no number of bytes")


@pytest.mark.parametrize(
    "value", [{}, {"metadata": {}}, {"weight_map": {}}, {"metadata": [], "weight_map": {}}]
)
def test_maps_without_their_parts(value) -> None:
    map_refused(json.dumps(value).encode(), CorruptError, '"metadata" and "weight_map"')


def test_map_with_a_group_twice() -> None:
    content = b'{"metadata": {"total_size": 1}, "weight_map": {"/v": "a.h5", "/v": "b.h5"}}'
    map_refused(content, CorruptError, "'/v' more than once")


def test_map_is_no_map() -> None:
    map_refused(b"[]", CorruptError, "the map of shards is a JSON list")
    map_refused(b"\x89HDF\r\n\x1a\n", CorruptError, "no UTF-8")


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(CorruptError) as caught:
        read_map(shard_map("/" + "a" * 100_000))
    assert len(str(caught.value)) < 300
