"""Object graphs that do not read, or that say other things than the index does."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

import ckptkit
from ckptkit import CorruptError, UnsupportedError
from ckptkit.engine.check import verify_path
from ckptkit.formats.tensorflow.graph import lint, load
from ckptkit.formats.tensorflow.graph.load import load_graph
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from tests.hostile.forge import STRING, header, record, write
from tests.oracle import strings
from tests.unit.formats.graph.graphs import encoded, variable

if TYPE_CHECKING:
    from pathlib import Path

KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
ROOT = {"edges": [(1, "w")], "values": True}
GRAPH = encoded([ROOT, variable("w" + KEY)])
VALUE = struct.pack("<f", 1.0)


def bundle(folder, graph=GRAPH, names=("w" + KEY,), *, payload=None, **told):
    """Write a bundle with a graph, and a scalar under each name."""
    big = told.pop("endianness", 0) == 1
    stored, crc = strings.encode([graph], big_endian=big)
    stored = stored if payload is None else payload
    told = {"dims": (), "dtype": STRING, "crc": crc, "offset": 4 * len(names), **told}
    records = {name: record(VALUE, (), offset=4 * at) for at, name in enumerate(names)}
    records[GRAPH_KEY] = record(stored, **told)
    listed = sorted((name.encode("utf-8", "surrogateescape"), one) for name, one in records.items())
    return write(folder, [header(endianness=int(big)), *listed], VALUE * len(names) + stored)


def graph_of(path):
    return load_graph(ckptkit.open(path).catalog)


def findings(path: str) -> list[tuple[str, str | None, str]]:
    return [(one.severity, one.tensor, one.message) for one in verify_path(path).problems]


def test_a_sound_graph_is_read_and_has_no_finding(tmp_path: Path) -> None:
    for endianness in (0, 1):
        path = bundle(tmp_path, endianness=endianness)
        graph = graph_of(path)
        assert (len(graph), graph.key, graph.data) == (2, ["w" + KEY], GRAPH)
        assert findings(path) == []


def test_where_there_is_no_graph(tmp_path: Path) -> None:
    path = write(tmp_path, [header(), (b"w", record(VALUE, ()))], VALUE)
    assert graph_of(path) is None
    assert ckptkit.open(path).graph is None
    assert findings(path) == []


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"dims": (1,)}, "the object graph is a stored string[], this is string[1]"),
        ({"dims": (16,), "dtype": 4, "payload": bytes(16)}, "this is uint8[16]"),
    ],
)
def test_a_tensor_that_is_no_graph(tmp_path: Path, told: dict[str, object], message: str) -> None:
    path = bundle(tmp_path, **told)
    with pytest.raises(CorruptError) as caught:
        graph_of(path)
    assert message in caught.value.message
    assert caught.value.tensor == GRAPH_KEY
    found = [one for one in findings(path) if one[1] == GRAPH_KEY and message in one[2]]
    assert [one[0] for one in found] == ["error"]


@pytest.mark.parametrize("graph", [b"\x0a\x05", b"\x0a\x04\x0a\x02\x08\x01", b"\x0b"])
def test_a_graph_that_does_not_parse(tmp_path: Path, graph: bytes) -> None:
    path = bundle(tmp_path, graph)
    with pytest.raises(CorruptError, match="the object graph does not parse") as caught:
        graph_of(path)
    assert caught.value.tensor == GRAPH_KEY
    assert caught.value.path == f"{path}.data-00000-of-00001"
    # A value, the length of the string and the checksum of that come before.
    assert 4 + 5 <= caught.value.offset <= 4 + 5 + len(graph)
    with pytest.raises(CorruptError, match="does not parse"):
        len(ckptkit.open(path).graph)
    severity, tensor, message = findings(path)[0]
    assert (severity, tensor) == ("error", GRAPH_KEY)
    assert message.endswith("TensorFlow does not restore objects")


def test_damage_below_is_told_once(tmp_path: Path) -> None:
    stored, _ = strings.encode([GRAPH])
    for payload in (stored[:-1] + b"\xff", b"\x7f" + stored[1:]):
        path = bundle(tmp_path, payload=payload)
        with pytest.raises(CorruptError) as caught:
            graph_of(path)
        assert (caught.value.tensor, caught.value.offset is not None) == (GRAPH_KEY, True)
        ((severity, tensor, _),) = findings(path)
        assert (severity, tensor) == ("error", GRAPH_KEY)


def test_a_graph_that_is_too_long_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle(tmp_path)
    monkeypatch.setattr(load, "MAX_BYTES", 20)
    monkeypatch.setattr(load, "read_content", None)
    with pytest.raises(CorruptError, match="has at most 20 bytes"):
        graph_of(path)
    assert findings(path)[0][:2] == ("error", GRAPH_KEY)


def test_a_key_that_the_index_lacks(tmp_path: Path) -> None:
    path = bundle(tmp_path, encoded([ROOT, variable("lost" + KEY)]))
    lost, loose = findings(path)
    assert lost[:2] == ("error", "lost" + KEY)
    assert "NotFoundError" in lost[2]
    assert "MaxShardSizePolicy" in lost[2]
    assert loose[:2] == ("warning", "w" + KEY)
    assert "by its name alone" in loose[2]


def test_keys_of_an_object_with_several_tensors(tmp_path: Path) -> None:
    table = {"attributes": [("table", "", "t/.ATTRIBUTES/table")], "values": True}
    graph = encoded([{"edges": [(1, "t")], "values": True}, table])
    names = ("t/.ATTRIBUTES/table-keys", "t/.ATTRIBUTES/table-values")
    assert findings(bundle(tmp_path, graph, names)) == []
    assert [one[1] for one in findings(bundle(tmp_path, graph, ("t/table-keys",)))] == [
        *("t/.ATTRIBUTES/table", "t/table-keys")
    ]


def test_a_key_of_two_variables(tmp_path: Path) -> None:
    root = {"edges": [(1, "w"), (2, "v")], "values": True}
    graph = encoded([root, variable("w" + KEY), variable("w" + KEY)])
    ((severity, tensor, message),) = findings(bundle(tmp_path, graph))
    assert (severity, tensor) == ("warning", "w" + KEY)
    assert "several variables" in message


def test_an_object_that_no_path_reaches(tmp_path: Path) -> None:
    graph = encoded([{"values": False}, variable("w" + KEY)])
    ((severity, tensor, message),) = findings(bundle(tmp_path, graph))
    assert (severity, tensor) == ("warning", GRAPH_KEY)
    assert message == f"no path leads to the objects of 1 key ('w{KEY}')"


def test_what_is_said_of_values(tmp_path: Path) -> None:
    hidden = encoded([ROOT | {"values": False}, variable("w" + KEY)])
    ((severity, tensor, message),) = findings(bundle(tmp_path, hidden))
    assert (severity, tensor) == ("warning", GRAPH_KEY)
    assert message.startswith("1 object says that it has no values, but has some ('the root')")
    root = {"edges": [(1, "w"), (2, "e.")], "values": True}
    empty = encoded([root, variable("w" + KEY), {"values": True}])
    ((severity, _, message),) = findings(bundle(tmp_path, empty))
    assert message == "1 object says that it has values, but has none ('e..')"
    silent = encoded([{"edges": [(1, "w")]}, variable("w" + KEY)])
    assert findings(bundle(tmp_path, silent)) == []
    saved = encoded([root, variable("w" + KEY), {"values": True, "saver": "s"}])
    assert findings(bundle(tmp_path, saved)) == []


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    graph = encoded([{"edges": [(1, "\udcff")], "values": True}, variable("w" + KEY)])
    ((severity, tensor, message),) = findings(bundle(tmp_path, graph))
    assert (severity, tensor) == ("error", GRAPH_KEY)
    assert "not UTF-8: '\\udcff'" in message


def test_findings_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint, "MAX_FINDINGS", 2)
    root = {"edges": [(at, str(at)) for at in range(1, 10)], "values": True}
    graph = encoded([root, *(variable(f"{at // 2}" + KEY) for at in range(1, 10))])
    found = findings(bundle(tmp_path, graph, tuple("abcde")))
    told = [message for _, tensor, message in found if tensor is None]
    assert told == [
        "3 further keys of the object graph are not in the index",
        "3 further tensors are not in the object graph",
        "2 further keys are those of several variables",
    ]
    assert len(found) == 9


def test_keys_that_are_nested_without_end_take_no_memory(tmp_path: Path) -> None:
    # All paths on the way to this key have a hundred thousand million characters.
    deep = "a/" * 400_000 + "b" + KEY
    nodes = [ROOT, variable("w" + KEY), variable(deep)]
    with ckptkit.open(bundle(tmp_path, encoded(nodes))) as found:
        draft = found.edit("rename ^w/ -> v/")
        with pytest.raises(UnsupportedError, match="nested deeper"):
            draft.plan(tmp_path / "out")


def test_a_path_of_thousands_of_names(tmp_path: Path) -> None:
    path = "/".join(["a"] * 3000)
    with ckptkit.open(bundle(tmp_path)) as found:
        found.edit(f"new graph:{path} = 1").plan(tmp_path / "new").run()
        found.edit(f"rename ^w/ -> {path}/").plan(tmp_path / "renamed").run()
    for name in ("new", "renamed"):
        assert path + KEY in graph_of(tmp_path / name).key
