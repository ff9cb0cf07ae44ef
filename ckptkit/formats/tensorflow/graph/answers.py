"""What an object graph answers: where paths lead, which state is an optimizer's, what moves."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from ckptkit.errors import CorruptError, EditError
from ckptkit.formats.tensorflow.graph.following import changes
from ckptkit.formats.tensorflow.graph.keypaths import (
    KeyPaths,
    last_of,
    names_of,
    parent_of,
    parts_of,
)
from ckptkit.formats.tensorflow.graph.load import load_graph
from ckptkit.formats.tensorflow.graph.moves import Moves, Targets
from ckptkit.formats.tensorflow.graph.objects import (
    ATTRIBUTES,
    SLOT,
    VARIABLE_VALUE,
    ObjectGraph,
    joined,
    read_graph,
    respelled,
)
from ckptkit.formats.tensorflow.graph.optimizers import Optimizers
from ckptkit.formats.tensorflow.graph.regraph import Account, Regraphed, regraph
from ckptkit.formats.tensorflow.graph.revision import Revision
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY
from ckptkit.formats.tensorflow.graph.values import HasValues
from ckptkit.formats.tensorflow.graph.walk import reached, slots_reached
from ckptkit.globs import is_glob
from ckptkit.kernels import Constant
from ckptkit.model import TensorSpec
from ckptkit.naming import renamed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.formats.tensorflow.graph.following import Changes


class Given(NamedTuple):
    """A graph that is not the stored one any more.

    Attributes:
        data: Its bytes.
        account: What was done to the stored one.
    """

    data: bytes
    account: Account


class _Now(NamedTuple):
    """A catalog, and the graph that goes with it.

    Attributes:
        asked: The catalog before names of slot variables were made to agree.
        catalog: The catalog afterwards; positions are the same.
        graph: The graph.
        account: What was done to it.
    """

    asked: Catalog
    catalog: Catalog
    graph: ObjectGraph
    account: Account


class Answers:
    """An object graph, and the catalog that it describes, asked about catalogs made of that one."""

    def __init__(self, base: Catalog, given: Given | None, stored: Catalog) -> None:
        """Hold what :class:`GraphStructure` does."""
        self._base = base
        self._given = given
        self._stored = stored
        self._last: _Now | None = None

    @cached_property
    def _graph(self) -> ObjectGraph:
        return self._read if self._given is None else read_graph(self._given.data)

    @cached_property
    def _read(self) -> ObjectGraph:
        found = load_graph(self._stored)
        if found is None:
            msg = "there is no object graph"
            raise CorruptError(msg, tensor=GRAPH_KEY)
        return found

    # --- the catalog as it is now --------------------------------------------------------------

    def _now(self, catalog: Catalog) -> _Now:
        last = self._last
        if last is not None and last.asked is catalog:
            return last
        if self._replaced(catalog):
            msg = (
                "the object graph itself is edited, so that nothing tells what is in it;"
                " use the names that ls lists"
            )
            raise EditError(msg, tensor=GRAPH_KEY)
        return self._followed(catalog, changes(self._base, catalog))

    def _followed(self, catalog: Catalog, change: Changes | None) -> _Now:
        """Work out the graph that goes with a catalog, and remember it."""
        before = Account() if self._given is None else self._given.account
        found = _Now(catalog, catalog, self._graph, before)
        if change is not None:
            done = regraph(self._graph, self._base.names, change)
            graph = self._graph if done.data is self._graph.data else read_graph(done.data)
            account = before.followed_by(done.account)
            found = _Now(catalog, _with_names(catalog, done.names), graph, account)
        self._last = found
        return found

    def _replaced(self, catalog: Catalog) -> bool:
        if GRAPH_KEY not in catalog or GRAPH_KEY in catalog.single:
            return True
        return catalog.row(GRAPH_KEY) != self._stored.row(GRAPH_KEY)

    def settled(self, catalog: Catalog) -> tuple[Catalog, tuple[str, ...]]:
        """Return a catalog with the graph that goes with it, and notes; itself where it has it."""
        if self._replaced(catalog):
            return catalog, ()
        now = self._last
        if now is None or now.asked is not catalog:
            change = changes(self._base, catalog)
            if change is None and self._given is None:
                return catalog, ()
            now = self._followed(catalog, change)
        if now.graph.data == self._read.data:
            return now.catalog, now.account.notes
        kernel = Constant(TensorSpec("string", ()), elements=(now.graph.data,))
        tensor = now.catalog[GRAPH_KEY].derive(kernel, ())
        return now.catalog.with_tensors({GRAPH_KEY: tensor}), now.account.sentences()

    # --- what edits ask ------------------------------------------------------------------------

    def graph_of(self, catalog: Catalog) -> ObjectGraph:
        """Return the graph that goes with a catalog."""
        return self._now(catalog).graph

    def places(self, catalog: Catalog, path: str) -> Sequence[int]:
        """Return the positions of the tensors of objects that a path or a glob reaches."""
        now = self._now(catalog)
        nodes = {*reached(now.graph, path), *slots_reached(now.graph, path)}
        return _positions(now, nodes)

    def name_at(self, catalog: Catalog, path: str) -> str:
        """Return the name that the tensor of a new object at a path has."""
        path = _checked(path)
        now = self._now(catalog)
        graph, paths = now.graph, KeyPaths(now.graph)
        node = paths.leads_to(path)
        held = () if node is None else graph.attributes_of.get(node, ())
        for at in held:
            if graph.attribute_name[at] == VARIABLE_VALUE:
                if graph.key[at] not in now.catalog:
                    # The graph has a variable there whose tensor was lost.
                    return graph.key[at]
                msg = f"the object at {path!r} has a tensor already: {graph.key[at]!r}"
                raise EditError(msg, tensor=graph.key[at])
        return _canonical(paths, path) + ATTRIBUTES + VARIABLE_VALUE

    def optimizer_state(self, catalog: Catalog) -> Sequence[int]:
        """Return the positions of the tensors that only optimizers reach."""
        now = self._now(catalog)
        found = Optimizers(now.graph)
        if not found.nodes:
            msg = "there is no optimizer in the object graph"
            raise EditError(msg)
        positions = _positions(now, found.state)
        if not positions:
            msg = "the optimizer has no state of its own in this checkpoint"
            raise EditError(msg)
        if len(positions) + 1 == len(catalog):
            msg = "there is nothing but the state of an optimizer in this checkpoint"
            raise EditError(msg)
        return positions

    def check_dropped(self, catalog: Catalog, glob: str, places: Sequence[int]) -> None:
        """Refuse a glob by which weights go that are merely named after an optimizer."""
        now = self._now(catalog)
        found = Optimizers(now.graph)
        if not found.nodes:
            return
        names, misnamed = now.catalog.names, found.misnamed
        lost = [names[at] for at in places if names[at] in misnamed]
        if not lost:
            return
        way = found.way_to(misnamed[lost[0]])
        of_model = f", which the model has as graph:{way}" if way else ""
        what = "1 weight that is" if len(lost) == 1 else f"{len(lost):,} weights that are"
        msg = (
            f"{glob!r} would leave out {what} only named after the optimizer, such as"
            f" {lost[0]!r}{of_model}; drop optimizer state leaves out what only the optimizer has,"
            " and exact names or graph: paths leave out weights"
        )
        raise EditError(msg, tensor=lost[0])

    # --- moving objects ------------------------------------------------------------------------

    def moved(self, catalog: Catalog, old: str, new: str) -> tuple[Catalog, Given]:
        """Return the catalog with an object at another path, and its graph.

        Where the tensors are named after another path, only the last edge of this one goes.
        """
        now = self._now(catalog)
        graph, paths = now.graph, KeyPaths(now.graph)
        given, old = old, respelled(old)
        parent, node = paths.leads_to(parent_of(old)), paths.leads_to(old)
        if not old or parent is None or node is None:
            raise _no_object(given)
        new = _checked(new)
        if new == old:
            msg = f"{old!r} is called that already"
            raise EditError(msg)
        there = paths.leads_to(new)
        if there is not None:
            held = [graph.key[at] for at in graph.attributes_of.get(there, ())]
            what = f", that of {held[0]!r}" if held else ""
            msg = f"{old!r} cannot become {new!r}: an object is there already{what}"
            raise EditError(msg)
        if new.startswith(old + "/"):
            msg = f"{old!r} cannot become {new!r}, which is below it"
            raise EditError(msg)
        edge = paths.edge_at[parent, names_of(last_of(old))[0]]
        target = _canonical(paths, new)
        named = next((path for path, one in paths.edge.items() if one == edge), None)
        after, change = now.catalog, None
        if named is not None:
            prefix, start = named + "/", len(named)
            names = [
                target + name[start:] if name.startswith(prefix) else name
                for name in now.catalog.names
            ]
            after = renamed(now.catalog, names)
            change = changes(now.catalog, after)
        if named is None or change is None:
            done = _edge_moved(paths, edge, target)
        else:
            done = regraph(graph, now.catalog.names, change, (parent_of(named),))
        account = now.account.followed_by(done.account)
        return _with_names(after, done.names), Given(done.data, account)


def _checked(path: str) -> str:
    """Return the path of an object that is to be, spelled as in keys.

    Raises:
        EditError: It is none.
    """
    around = f"/{path}/"
    if "//" in around or SLOT in around or ATTRIBUTES in around:
        msg = f"{path!r} is no path of an object"
        raise EditError(msg)
    return respelled(path)


def _no_object(path: str) -> EditError:
    """Return the error for a path at which there is nothing that could move."""
    if not path:
        msg = "the root of all objects has no name; rename what it has"
    elif SLOT in path:
        msg = f"{path!r} is named after a variable and its optimizer, and goes along with these"
    else:
        a_glob = ", which is one object, not a glob" if is_glob(path) else ""
        msg = f"no object is at {path!r}{a_glob}; ls --graph shows the tree"
    return EditError(msg)


def _edge_moved(paths: KeyPaths, edge: int, target: str) -> Regraphed:
    """Return a graph in which one edge is at another path."""
    revision = Revision(paths.graph)
    moves = Moves(paths, Targets({"": ""}, ()), revision, ())
    moves.take(edge, target)
    if moves.shifted:
        HasValues(paths.graph).revise(revision, (), (), moves.edges())
    return Regraphed(revision.encode(), {}, Account({("edge", ""): moves.count}))


def _with_names(catalog: Catalog, names: Mapping[str, str]) -> Catalog:
    if not names:
        return catalog
    return renamed(catalog, [names.get(name, name) for name in catalog.names])


def _positions(now: _Now, nodes: set[int]) -> list[int]:
    """Return the positions of the tensors of nodes; an attribute may be in several."""
    graph, catalog = now.graph, now.catalog
    names = [
        key for key, node in zip(graph.key, graph.attribute_node, strict=True) if node in nodes
    ]
    found = {catalog.position(name) for name in names if name in catalog}
    if not all(name in catalog for name in names):
        for at, parts in parts_of(graph, catalog.names).items():
            if graph.attribute_node[at] in nodes and graph.key[at] not in catalog:
                found.update(map(catalog.position, parts))
    return sorted(found)


def _canonical(paths: KeyPaths, path: str) -> str:
    """Return a path with what of it is there spelled as keys spell it."""
    names: list[str] = []
    above = path
    while above:
        node = paths.leads_to(above)
        if node is not None and node:
            by_key = next((one for one, found in paths.node.items() if found == node), None)
            found = paths.graph.path(node)
            base = by_key or ("" if found is None else joined(found))
            return "/".join([base, *names]) if base else path
        names.insert(0, last_of(above))
        above = parent_of(above)
    return path
