"""Edits of TensorFlow checkpoints that tests cut short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import ckptkit
from ckptkit import _native
from ckptkit.formats.tensorflow.graph.load import load_graph
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from tests.crash.scene import PIECES, Scene, edit, undone
from tests.golden.handmade import Bundle, grid
from tests.oracle.varint import put_number
from tests.unit.formats.graph.graphs import encoded, variable

if TYPE_CHECKING:
    from pathlib import Path


def values(seed: int = 1) -> dict[str, Any]:
    """Return tensors: some long enough for several pieces, and text."""
    rng = np.random.default_rng(seed)
    return {
        "w": rng.standard_normal((40, 24)).astype("float32"),
        "b": np.arange(60, dtype="float32"),
        "v": rng.standard_normal((30, 20)).astype("float32"),
        "text": ["some", "text"],
    }


# --- what is there before ----------------------------------------------------------------------


def plain(folder: Path) -> None:
    """Make a checkpoint of two shards."""
    ckptkit.save(folder / "m", values(), layout=ckptkit.Layout(shards=2))


def with_dead_bytes(folder: Path) -> None:
    """Make a checkpoint that was appended to."""
    plain(folder)
    edit("w += 1", "b += 1", how="append")(folder, None)


def sliced(folder: Path, *, big_endian: bool = False) -> None:
    """Make a checkpoint with a tensor in slices, which lie in two shards."""
    bundle = Bundle(shards=2, big_endian=big_endian)
    tensors = values()
    bundle.add_slices(b"w", tensors["w"], grid((40, 24), ([11, 30], [7])), shards=(0, 1))
    bundle.add(b"b", tensors["b"])
    bundle.write(folder / "m")


def many(folder: Path) -> None:
    """Make a checkpoint of many small tensors: checksums are most of what a journal holds."""
    ckptkit.save(folder / "m", {f"t/{n:03d}": np.uint8([n]) for n in range(90)})


def big_endian(folder: Path) -> None:
    """Make one with its bytes the other way round."""
    sliced(folder, big_endian=True)


def linked(folder: Path) -> None:
    """Make a checkpoint that shares its shards with another one."""
    ckptkit.save(folder / "old", values(), layout=ckptkit.Layout(shards=2))
    edit("rename ^text$ -> words", name="old", to="m", how="link")(folder, None)


def with_donor(folder: Path) -> None:
    """Make a checkpoint and another one, with its bytes the other way round, beside it."""
    plain(folder)
    bundle = Bundle(big_endian=True)
    bundle.add(b"w", values(seed=2)["w"].astype("float64"))
    bundle.write(folder / "donor")


def saved_model(folder: Path) -> None:
    """Make a SavedModel with a fingerprint whose hash is that of the index."""
    inner = folder / "m" / "variables"
    inner.mkdir(parents=True)
    (folder / "m" / "saved_model.pb").write_bytes(b"\x08\x01")
    ckptkit.save(inner / "variables", values(), layout=ckptkit.Layout(shards=2))
    index = _native.fingerprint64((inner / "variables.index").read_bytes())
    fingerprint = put_number(1, 7) + put_number(5, index) + put_number(6, 3)
    (folder / "m" / "fingerprint.pb").write_bytes(fingerprint)


def objects(folder: Path) -> None:
    """Make a checkpoint with an object graph, in which an optimizer keeps a slot variable."""
    nodes = [
        {"edges": [(1, "net"), (2, "optimizer")], "values": True},
        {"edges": [(3, "w"), (4, "b")], "values": True},
        {"edges": [(5, "iter")], "slots": [(3, "m", 6)], "values": True},
        variable(value_of("net/w")),
        variable(value_of("net/b")),
        variable(value_of("optimizer/iter")),
        variable(value_of("net/w/.OPTIMIZER_SLOT/optimizer/m")),
    ]
    tensors = values()
    held = {
        value_of("net/w"): tensors["w"],
        value_of("net/b"): tensors["b"],
        value_of("optimizer/iter"): np.int64(7),
        value_of("net/w/.OPTIMIZER_SLOT/optimizer/m"): tensors["v"],
        GRAPH_KEY: encoded(nodes),
    }
    ckptkit.save(folder / "m", held, layout=ckptkit.Layout(shards=2))


def value_of(path: str) -> str:
    """Return the key of a variable."""
    return f"{path}/.ATTRIBUTES/VARIABLE_VALUE"


def goes_with_its_graph(path: Path) -> None:
    """Fail unless the graph of a checkpoint has the keys of its tensors, and verifies."""
    with ckptkit.open(path) as found:
        graph = load_graph(found.catalog)
        assert graph is not None
        assert sorted(graph.key) == sorted(name for name in found if name != GRAPH_KEY)
        assert not [one for one in found.verify().problems if one.tensor == GRAPH_KEY]


# --- what is done ------------------------------------------------------------------------------

LITTLE = ("w[:, 1] *= 2", "b[3] = 7")
MUCH = ("w *= 2", "b += 1", "v[:, 2:17] *= 0.5")
MEASURED = ("w = x / norm(x)", "b = (x - mean(x)) / std(x)", "v[:, 2:17] += 0.1 * normal()")
GIVEN = ('w = 0.5 * x + 0.5 * cast(t("donor:w"), float32)', 'b[3] = norm(t("donor:w"))')
GROWING = ("cast w -> bfloat16", "copy b -> twin", "v[0] = 3")
STATELESS = ("drop optimizer state", "rename graph:net -> graph:model", "graph:model/b[3] = 7")
RENAMED = ("rename ^net/ -> model/", "new graph:model/c = ones(shape=[3])")
THREE, ONE = ckptkit.Layout(shards=3), ckptkit.Layout(shards=1)

TENSORFLOW = {
    "patch": Scene(plain, edit(*LITTLE, how="patch")),
    "patch in pieces": Scene(plain, edit(*MUCH, how="patch"), pieces=PIECES),
    "patch in pieces, late": Scene(plain, edit(*MUCH, how="patch"), pieces=PIECES, late=True),
    "patch with undo": Scene(plain, edit(*LITTLE, how="patch", keep_undo=True)),
    "patch in pieces with undo": Scene(
        plain, edit(*MUCH[:2], how="patch", keep_undo=True), pieces=PIECES
    ),
    "patch of slices": Scene(sliced, edit("w[5:35, 3:9] *= 2", "b[3] = 7", how="patch")),
    "patch of slices in pieces": Scene(sliced, edit("w *= 2", how="patch"), pieces=PIECES),
    "patch of big-endian": Scene(big_endian, edit("w[5:35, 3:9] *= 2", "b[3] = 7", how="patch")),
    "patch by statistics": Scene(plain, edit(*MEASURED, how="patch")),
    "patch by statistics in pieces": Scene(plain, edit(*MEASURED, how="patch"), pieces=PIECES),
    "patch by statistics with undo": Scene(
        plain, edit(*MEASURED, how="patch", keep_undo=True), pieces=PIECES
    ),
    "append by statistics": Scene(plain, edit(*MEASURED, how="append")),
    "patch from a donor": Scene(with_donor, edit(*GIVEN, donor="donor", how="patch")),
    "patch from a donor in pieces": Scene(
        with_donor, edit(*GIVEN, donor="donor", how="patch"), pieces=PIECES
    ),
    "append": Scene(plain, edit(*GROWING, how="append")),
    "append with undo": Scene(plain, edit(*GROWING, how="append", keep_undo=True)),
    "append of names": Scene(plain, edit("rename ^w$ -> u", "drop text", how="append")),
    "append of objects": Scene(objects, edit(*STATELESS, how="append"), sound=goes_with_its_graph),
    "append of objects with undo": Scene(
        objects, edit(*RENAMED, how="append", keep_undo=True), sound=goes_with_its_graph
    ),
    "undo of append of objects": undone(
        objects, edit(*STATELESS, how="append", keep_undo=True), sound=goes_with_its_graph
    ),
    "patch by paths of objects": Scene(
        objects,
        edit("graph:net/w *= 2", "graph:net/w/.OPTIMIZER_SLOT/*/m += 1", how="patch"),
        pieces=PIECES,
        sound=goes_with_its_graph,
    ),
    "compact of objects": Scene(objects, edit(*RENAMED, how="copy"), sound=goes_with_its_graph),
    "compact": Scene(with_dead_bytes, edit("v *= 2", how="copy")),
    "compact to more shards": Scene(plain, edit(layout=THREE)),
    "compact to fewer shards": Scene(with_dead_bytes, edit(layout=ONE, how="copy")),
    "link": Scene(plain, edit(*LITTLE, to="new", how="link"), new="new", index="new.index"),
    "broken links, patch": Scene(linked, edit(*LITTLE, how="patch", break_links=True)),
    "broken links, append": Scene(linked, edit(*LITTLE, how="append", break_links=True)),
    "compact beside a link": Scene(linked, edit("b *= 2", how="copy")),
    "undo of patch": undone(plain, edit(*LITTLE, how="patch", keep_undo=True)),
    "undo of patch in pieces": undone(
        plain, edit(*MUCH[:2], how="patch", keep_undo=True), pieces=PIECES
    ),
    "undo of append": undone(plain, edit(*GROWING, how="append", keep_undo=True)),
    "undo of the second": undone(
        plain,
        edit(*GROWING, how="append", keep_undo=True),
        edit("w[3] = 1", how="patch", keep_undo=True),
    ),
    "model, patch": Scene(saved_model, edit(*LITTLE, how="patch")),
    "model, patch in pieces": Scene(saved_model, edit(*MUCH, how="patch"), pieces=PIECES),
    "model, append": Scene(saved_model, edit("w *= 2", how="append")),
    "model, compact": Scene(saved_model, edit("v *= 2", how="copy", layout=ONE)),
    "model, patch with undo": Scene(saved_model, edit(*LITTLE, how="patch", keep_undo=True)),
    "model, undo of patch": undone(saved_model, edit(*LITTLE, how="patch", keep_undo=True)),
    "model, undo of append": undone(saved_model, edit("w *= 2", how="append", keep_undo=True)),
}

MANY = Scene(many, edit("** *= 2", how="patch"), pieces=(24, 50))
"""Many calls, each about very little."""
