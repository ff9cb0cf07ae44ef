"""Findings about the object graph of a bundle: where it and the index do not agree."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow.graph.keypaths import parts_of
from ckptkit.formats.tensorflow.graph.load import decode_graph, find_holder, read_content
from ckptkit.formats.tensorflow.graph.objects import HAS_VALUES, SAYS_VALUES, joined
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from ckptkit.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ckptkit.catalog import Catalog
    from ckptkit.formats import Warn
    from ckptkit.formats.tensorflow.graph.objects import ObjectGraph

    Say = Callable[[str], None]
    Severity = Literal["warning", "error"]

MAX_FINDINGS: Final = 100
"""Findings of one kind are reported up to this number."""

SHOWN: Final = 3
"""Names that a message has."""

LOST: Final = (
    "the object graph has a variable with this key, the index does not: TensorFlow raises"
    " NotFoundError when it restores into that object; MaxShardSizePolicy loses tensors without"
    " elements like this, and new NAME = zeros(shape=[0]) with the right shape adds one"
)
LOOSE: Final = (
    "no variable in the object graph has this key: TensorFlow restores it by its name alone, not"
    " into an object"
)
SHARED: Final = "several variables in the object graph have this key: all are restored from it"


def lint_graph(index: str, catalog: Catalog, warn: Warn) -> None:
    """Report a graph that does not parse, and where it and the index contradict one another.

    A graph whose bytes differ from their checksum is left to those who compare checksums.

    Args:
        index: The path of the index.
        catalog: What a scan of it found.
        warn: Takes the findings.
    """
    try:
        holder = find_holder(catalog)
        if holder is None:
            return
        try:
            content = read_content(holder)
        except CorruptError:
            return
        graph = decode_graph(holder, *content)
    except CorruptError as error:
        path, text = error.path or index, f"{error.message}; TensorFlow does not restore objects"
        warn(path, error.offset, text, tensor=GRAPH_KEY, severity="error")
        return
    _lint_keys(graph, catalog, index, warn)
    extent = holder.piece.extent
    say = partial(warn, extent.path, extent.offset, tensor=GRAPH_KEY)
    _lint_texts(graph, partial(say, severity="error"))
    _lint_paths(graph, say)
    _lint_values(graph, say)


def _lint_keys(graph: ObjectGraph, catalog: Catalog, index: str, warn: Warn) -> None:
    known = graph.attribute_of_key
    lost = [key for key in known if key not in catalog]
    # A registered saver puts tensors of any names into the same bundle.
    named = () if graph.savers else catalog
    loose = [name for name in named if name not in known and name != GRAPH_KEY]
    if lost:
        parts = parts_of(graph, catalog)
        held = {name for names in parts.values() for name in names}
        loose = [name for name in loose if name not in held]
        lost = [key for key in lost if known[key] not in parts]
    for key in lost[:MAX_FINDINGS]:
        warn(index, None, LOST, tensor=key, severity="error")
    _more(len(lost), "further keys of the object graph are not in the index", index, warn, "error")
    for name in loose[:MAX_FINDINGS]:
        warn(index, None, LOOSE, tensor=name)
    _more(len(loose), "further tensors are not in the object graph", index, warn)
    if len(known) < len(graph.key):
        shared = [key for key, count in Counter(graph.key).items() if count > 1]
        for key in shared[:MAX_FINDINGS]:
            warn(index, None, SHARED, tensor=key)
        _more(len(shared), "further keys are those of several variables", index, warn)


def _more(count: int, text: str, index: str, warn: Warn, severity: Severity = "warning") -> None:
    if count > MAX_FINDINGS:
        more = f"{count - MAX_FINDINGS} {text}"
        warn(index, None, more, severity=severity)


def _lint_texts(graph: ObjectGraph, say: Say) -> None:
    columns = (graph.edge_name, graph.attribute_name, graph.full_name, graph.key, graph.slot_name)
    for column in columns:
        try:
            "".join(column).encode()
        except UnicodeEncodeError:
            text = next(text for text in column if not _is_utf8(text))
            say(f"the object graph has a text that is not UTF-8: {text!r}; protobuf refuses it")
            return


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lint_paths(graph: ObjectGraph, say: Say) -> None:
    kept = set(graph.slot_variable)
    tree = graph.tree
    lonely = [node for node in graph.attributes_of if node and tree[node] < 0 and node not in kept]
    if lonely:
        some = _some(graph.key[graph.attributes_of[node][0]] for node in lonely[:MAX_FINDINGS])
        say(f"no path leads to the objects of {counted(len(lonely), 'key')} ({some})")


def _lint_values(graph: ObjectGraph, say: Say) -> None:
    wrong = [
        node
        for node, (flags, holds) in enumerate(zip(graph.flags, graph.holders, strict=True))
        if flags & SAYS_VALUES and bool(flags & HAS_VALUES) != bool(holds)
    ]
    hidden = [node for node in wrong if graph.holders[node]]
    if hidden:
        say(
            f"{_said(len(hidden))} no values, but {_have(len(hidden))} some"
            f" ({_some(_called(graph, node) for node in hidden)}): TensorFlow does not restore them"
            " into what is made later"
        )
    if len(hidden) < len(wrong):
        empty = [node for node in wrong if not graph.holders[node]]
        say(
            f"{_said(len(empty))} values, but {_have(len(empty))} none"
            f" ({_some(_called(graph, node) for node in empty)})"
        )


def _said(count: int) -> str:
    return counted(count, "object") + (" says that it has" if count == 1 else " say that they have")


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _called(graph: ObjectGraph, node: int) -> str:
    path = graph.path(node)
    return f"node {node}" if path is None else joined(path) or "the root"


def _some(names: Iterable[str]) -> str:
    """Return the first few of some names, for messages."""
    found = list(map(repr, islice(names, SHOWN + 1)))
    return ", ".join(found if len(found) <= SHOWN else [*found[:SHOWN], "..."])
