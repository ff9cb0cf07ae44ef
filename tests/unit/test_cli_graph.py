"""``ckptkit ls --graph``: the tree of objects, as its user meets it."""

from __future__ import annotations

import numpy as np
import pytest

import ckptkit
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from ckptkit.language import parse
from tests.unit.formats.graph.graphs import encoded, variable
from tests.unit.listed import loaded

KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = f"model/kernel/.OPTIMIZER_SLOT/optimizer/m{KEY}"
HOSTILE = "red\x1b[31m\n"

NODES = [
    {"edges": [(1, "model"), (2, "optimizer"), (4, "table")]},
    {"edges": [(3, "kernel"), (0, "up")]},
    {"edges": [(3, "0"), (6, "lost")], "slots": [(3, "m", 5)]},
    variable("model/kernel" + KEY, "dense/kernel"),
    {"attributes": [("table", "", "table/.ATTRIBUTES/table")]},
    variable(SLOT, "dense/kernel/m"),
    variable("optimizer/lost" + KEY),
]
TENSORS = {
    "model/kernel" + KEY: np.zeros((2, 3), np.float32),
    SLOT: np.zeros((2, 3), np.float32),
    "table/.ATTRIBUTES/table-keys": np.zeros(2, np.int64),
    "table/.ATTRIBUTES/table-values": np.zeros(2, np.float32),
}


def save(path, nodes=NODES, tensors=TENSORS):
    ckptkit.save(path, {**tensors, GRAPH_KEY: encoded(nodes)})
    return str(path)


@pytest.fixture
def model(tmp_path):
    return save(tmp_path / "model")


def test_the_tree(run, model):
    code, out, err = run("ls", "--graph", model)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "object                 dtype    shape  full name       key",
        "(root)",
        "  model",
        f"    kernel             float32  [2,3]  dense/kernel    model/kernel{KEY}",
        "    up -> (root)",
        "  optimizer",
        "    0 -> model/kernel",
        f"    lost               missing                         optimizer/lost{KEY}",
        f"    m of model/kernel  float32  [2,3]  dense/kernel/m  {SLOT}",
        "  table",
        "    .table-keys        int64    [2]                    table/.ATTRIBUTES/table-keys",
        "    .table-values      float32  [2]                    table/.ATTRIBUTES/table-values",
        f"7 objects; tensorflow checkpoint of 1 shard at {model}",
    ]


def test_patterns_are_paths(run, model):
    code, out, _ = run("ls", "--graph", model, "optimizer/0", "graph:**/m")
    assert code == 0
    assert out.splitlines() == [
        "object                        dtype    shape  full name       key",
        f"model/kernel                  float32  [2,3]  dense/kernel    model/kernel{KEY}",
        "optimizer/0 -> model/kernel",
        f"optimizer: m of model/kernel  float32  [2,3]  dense/kernel/m  {SLOT}",
        f"2 objects; tensorflow checkpoint of 1 shard at {model}",
    ]


@pytest.mark.parametrize("target", ["model/kernel", "mod*/kernel"])
def test_a_path_that_is_taken_for_a_name(run, model, target):
    code, _, err = run("edit", model, f"{model}-new", "-e", f"{target} *= 2")
    assert code == 4
    assert f"'{target}'; as a path of objects it is graph:{target}\n" in err


def test_long_says_where(run, model):
    _, out, _ = run("ls", "--graph", "-l", model, "model/kernel", "table", "optimizer/lost")
    head, kernel, _, _, keys, *_ = out.splitlines()
    assert head.split()[-3:] == ["shard", "offset", "checksum"]
    assert kernel.split()[-3:-1] == ["0", "0"]
    assert kernel.split()[-1].startswith("crc32c:")
    assert keys.split()[-3:-1] == ["0", "48"]


def test_json(as_json, model):
    found = as_json("ls", "--graph", model)
    assert (found["format"], found["path"]) == ("tensorflow", model)
    by_node = {}
    for one in found["objects"]:
        by_node.setdefault(one["node"], []).append(one)
    assert by_node[3] == [
        {
            "node": 3,
            "path": "model/kernel",
            "aliases": ["optimizer/0"],
            "slots": [],
            "attribute": "VARIABLE_VALUE",
            "full_name": "dense/kernel",
            "key": "model/kernel" + KEY,
            "dtype": "float32",
            "shape": [2, 3],
        }
    ]
    assert by_node[1][0]["key"] is None
    assert [one["key"] for one in by_node[4]] == [*TENSORS][2:]
    (slot,) = by_node[5]
    assert slot["path"] is None
    assert slot["slots"] == [{"optimizer": "optimizer", "variable": "model/kernel", "name": "m"}]
    (lost,) = by_node[6]
    assert (lost["key"], lost["dtype"]) == ("optimizer/lost" + KEY, None)
    chosen = as_json("ls", "--graph", model, "optimizer/*")["objects"]
    assert [one["node"] for one in chosen] == [3, 6]


def test_what_leads_nowhere_is_an_error(run, model):
    code, _, err = run("ls", "--graph", model, "model/none")
    assert code == 4
    assert "no path like 'model/none' leads to an object" in err


def test_without_objects_it_says_so(run, tmp_path):
    ckptkit.save(tmp_path / "plain", {"w": np.zeros(2)})
    code, out, err = run("ls", "--graph", tmp_path / "plain")
    assert (code, out) == (4, "")
    assert "says nothing of objects; ls without --graph lists its tensors" in err


def test_a_graph_that_does_not_parse_is_an_error(run, tmp_path):
    ckptkit.save(tmp_path / "bad", {GRAPH_KEY: b"\x0a\x05"})
    code, out, err = run("ls", "--graph", tmp_path / "bad")
    assert (code, out) == (3, "")
    assert f"tensor '{GRAPH_KEY}'" in err
    assert "does not parse" in err


def test_an_empty_graph_has_no_lines(run, as_json, tmp_path):
    path = save(tmp_path / "empty", [], {})
    assert as_json("ls", "--graph", path)["objects"] == []
    assert run("ls", "--graph", path)[1].splitlines()[-1].startswith("0 objects;")


def test_names_cannot_drive_a_terminal(run, as_json, tmp_path):
    nodes = [{"edges": [(1, HOSTILE)]}, variable(HOSTILE, HOSTILE)]
    path = save(tmp_path / "odd", nodes, {HOSTILE: np.zeros(2)})
    for line in ([], ["*"]):
        _, out, _ = run("ls", "--graph", path, *line)
        assert "red\\x1b[31m\\x0a" in out
        assert all(character.isprintable() or character == "\n" for character in out)
    assert as_json("ls", "--graph", path)["objects"][1]["full_name"] == HOSTILE


def test_it_goes_not_with_all(run, tmp_path):
    code, _, err = run("ls", "--all", "--graph", tmp_path)
    assert code == 2
    assert "nor --graph" in err


def test_what_imports_slowly_is_not_needed(model):
    assert not {"tensorflow", "h5py", "numpy", "rich"} & loaded("ls", "--graph", model)


def test_a_library_looks_at_the_same(model):
    with ckptkit.open(model) as checkpoint:
        (item,) = checkpoint.graph.matching("optimizer/0")
        assert (len(checkpoint.graph), item.path, item.aliases) == (
            *(7, "model/kernel", ("optimizer/0",)),
        )
        assert [one.key for one in item.attributes] == ["model/kernel" + KEY]


def test_the_page_on_tensorflow(run):
    code, out, _ = run("help", "tensorflow")
    assert code == 0
    statements = [line[2:].partition("   ")[0] for line in out.splitlines() if line[:2] == "  "]
    assert len(statements) == 9
    for statement in statements:
        parse(statement)
    for word in ("--graph", "register", "salvage", "--donor", "--against", "SavedModels"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 100
