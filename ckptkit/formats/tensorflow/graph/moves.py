"""Moving objects: edges of a graph that go to other places, without a collision."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from ckptkit.errors import EditError
from ckptkit.formats.tensorflow.graph.keypaths import last_of, names_of, parent_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ckptkit.formats.tensorflow.graph.keypaths import KeyPaths
    from ckptkit.formats.tensorflow.graph.revision import Revision


class Targets(NamedTuple):
    """Where objects go.

    Attributes:
        placed: The path afterwards of every path that keys go by and that leads somewhere.
        moving: The paths of which that is another one than the path above goes to.
    """

    placed: Mapping[str, str]
    moving: Sequence[str]


def targets(paths: KeyPaths, wanted: Mapping[int, str], pinned: Collection[str]) -> Targets:
    """Return for every path in keys where its object goes, such that as few as possible move.

    An object goes where its own tensors go. One without moves where all below it goes there with
    it; where what is below it disagrees, it stays if one of them stays, and else goes with those
    that keep their last component.

    Args:
        paths: The paths.
        wanted: For attributes, by number, the path that their key has afterwards.
        pinned: Paths of objects that stay.
    """
    own = _of_attributes(paths, wanted)
    opinions: dict[str, str | set[str]] = {path: path for path in pinned}
    known, chosen = opinions.get, dict[str, str]()
    for path in reversed(paths.order):
        found = own.get(path) or known(path)
        if found is None or not path:
            continue
        if isinstance(found, set):
            found = _choice(path, found)
        if found:
            chosen[path] = found
            above, target = path.rpartition("/")[0], found.rpartition("/")[0]
            found = known(above)
            if found is None:
                opinions[above] = target
            elif found != target:
                opinions[above] = _both(found, target)
    return _placed(paths, chosen)


def _of_attributes(paths: KeyPaths, wanted: Mapping[int, str]) -> dict[str, str | set[str]]:
    opinions: dict[str, str | set[str]] = {}
    heads, known = paths.heads, opinions.get
    for attribute, path in wanted.items():
        head = heads[attribute]
        if head is not None:
            found = known(head)
            if found is None:
                opinions[head] = path
            elif found != path:
                opinions[head] = _both(found, path)
    return opinions


def _both(found: str | set[str], target: str) -> set[str]:
    return {found, target} if isinstance(found, str) else found | {target}


def _choice(path: str, found: set[str]) -> str | None:
    if path in found:
        return path
    kept = [target for target in found if last_of(target) == last_of(path)]
    return kept[0] if len(kept) == 1 else None


def _placed(paths: KeyPaths, chosen: Mapping[str, str]) -> Targets:
    """Fill in the paths that have no wish of their own: they go where the one above goes."""
    placed, moving, edges = {"": ""}, [], paths.edge
    for path in paths.order:
        if path in edges:
            above, _, name = path.rpartition("/")
            stays = placed[above]
            stays = f"{stays}/{name}" if stays else name
            found = placed[path] = chosen.get(path, stays)
            if found != stays:
                moving.append(path)
    return Targets(placed, moving)


class _Place(NamedTuple):
    """The node that an edge is to leave, None if it is to be made, and its local name.

    An edge may leave that node already, and be called otherwise.
    """

    parent: int | None
    name: str
    in_place: bool


class Moves:
    """Edges on their way to other places.

    Attributes:
        count: How many edges were changed.
        shifted: Whether objects have other parents than before.
        joined: Paths of objects that stay, while what is below them goes to another one.
    """

    def __init__(
        self,
        paths: KeyPaths,
        where: Targets,
        revision: Revision,
        living: Collection[int],
    ) -> None:
        """Take out of their places all edges that change.

        Args:
            paths: The paths in keys.
            where: Where objects go; see :func:`targets`.
            revision: Takes the changes.
            living: The nodes that have tensors of their own afterwards.
        """
        self._paths = paths
        self._graph = paths.graph
        self._placed = where.placed
        self._revision = revision
        self._living = living
        self._leaving: set[int] = set()
        self._lost: set[int] = set()
        self._made: dict[tuple[int, str], int] = {}
        self._moved: set[int] = set()
        self._found: dict[str, int] = {"": 0}
        self._waiting: dict[int, list[str]] = {}
        self.count = 0
        self.shifted = False
        self.joined: set[str] = set()
        for path in where.moving:
            # Two paths may have their last step in common, which goes to one place only.
            if paths.edge[path] not in self._leaving:
                self._leave(path, where.placed[path])

    def _leave(self, path: str, target: str) -> None:
        self._leaving.add(self._paths.edge[path])
        if not self._stays_below(path):
            self._lost.add(self._paths.edge[path])
        self._waiting.setdefault(target.count("/"), []).append(path)

    def run(self) -> None:
        """Put all edges at their new places, those near the root first.

        Raises:
            EditError: Something is at the place already.
        """
        while self._waiting:
            moving = self._waiting.pop(min(self._waiting))
            # What has tensors of its own takes its place before what can be taken apart.
            moving.sort(key=lambda path: self._paths.node[path] not in self._living)
            places = [(path, self._place(path)) for path in moving]
            # What joins something that is there keeps its own place, which others must see.
            for path, place in [one for one in places if not self._joined(*one)]:
                self._put(path, place)

    def take(self, edge: int, target: str) -> None:
        """Take one edge to a path at which nothing is, whatever keys are named after."""
        graph, name = self._graph, names_of(last_of(target))[0]
        above = parent_of(target)
        self.count += 1
        if self.find(above) == graph.edge_parent[edge]:
            self._revision.rename_edge(edge, name)
            return
        parent, child = self.make(above), graph.edge_child[edge]
        self._leaving.add(edge)
        self._made[parent, name] = child
        self._revision.drop_edge(edge)
        self._revision.add_edge(parent, child, name)
        self.shifted = True

    def at(self, node: int, name: str) -> int | None:
        """Return the child of a node as it is by now."""
        made = self._made.get((node, name))
        if made is not None:
            return made
        edge = self._paths.edge_at.get((node, name))
        return None if edge is None or edge in self._leaving else self._graph.edge_child[edge]

    def find(self, path: str) -> int | None:
        """Return the node that a path leads to by now, if any."""
        found = self._found.get(path)
        if found is not None:
            return found
        node: int | None = 0 if len(self._graph) else None
        for name in names_of(path):
            if node is not None:
                node = self.at(node, name)
        return node

    def make(self, path: str) -> int:
        """Return the node that a path leads to, after making what of the path is not there."""
        known, missing, one = self._found, list[str](), path
        while one not in known:
            missing.append(one)
            one = parent_of(one)
        node = known[one]
        for one in reversed(missing):
            name = names_of(last_of(one))[0]
            there = self.at(node, name)
            node = known[one] = self.new(node, name) if there is None else there
        return node

    def new(self, parent: int, name: str) -> int:
        """Make an object below another one."""
        node = self._revision.add_node()
        self._made[parent, name] = node
        self._revision.add_edge(parent, node, name)
        self.count += 1
        return node

    def edges(self) -> list[tuple[int, int]]:
        """Return parent and child of every edge as it is by now."""
        graph = self._graph
        stays = [
            pair
            for edge, pair in enumerate(zip(graph.edge_parent, graph.edge_child, strict=True))
            if edge not in self._leaving
        ]
        return [*stays, *((parent, child) for (parent, _), child in self._made.items())]

    def _place(self, path: str) -> _Place:
        """Return where an edge is to be."""
        above, _, name = self._placed[path].rpartition("/")
        name = names_of(name)[0] if "." in name else name
        if self._stays_below(path):
            return _Place(self._paths.node[path.rpartition("/")[0]], name, in_place=True)
        return _Place(self.find(above), name, in_place=False)

    def _stays_below(self, path: str) -> bool:
        """Tell whether an edge leaves the same object afterwards, under another name."""
        origin, above = path.rpartition("/")[0], self._placed[path].rpartition("/")[0]
        return self._placed[origin] == above and origin not in self.joined

    def _joined(self, path: str, place: _Place) -> bool:
        """Let what is below an object go one by one, if another one is at its place already."""
        parent, name, _ = place
        there = None if parent is None else self.at(parent, name)
        if there is None or not self._taken(path, there):
            return False
        self._join(path, there)
        return True

    def _taken(self, path: str, there: int) -> bool:
        if there == self._paths.node[path]:
            return False
        return there in self._moved or self._lives(there)

    def _join(self, path: str, there: int) -> None:
        node = self._paths.node[path]
        below = list(self._below(path))
        if node in self._living or not below:
            raise self._collision(path, there)
        edge, graph = self._paths.edge[path], self._graph
        if (graph.edge_parent[edge], graph.edge_name[edge]) in self._made:
            self._revision.drop_edge(edge)
            self.shifted = True
        else:
            self._leaving.discard(edge)
            self._lost.discard(edge)
        self._found[self._placed[path]] = there
        self.joined.add(path)
        for one in below:
            if self._paths.edge[one] not in self._leaving:
                self._leave(one, self._placed[one])
            self._lost.add(self._paths.edge[one])

    def _below(self, path: str) -> Iterator[str]:
        order, start = self._paths.order, path + "/"
        for at in range(bisect_left(order, start), len(order)):
            one = order[at]
            if not one.startswith(start):
                return
            if one in self._paths.edge and "/" not in one[len(start) :]:
                yield one

    def _put(self, path: str, place: _Place) -> None:
        edge, node = self._paths.edge[path], self._paths.node[path]
        parent, name, in_place = place
        target = self._placed[path]
        if parent is None:
            parent = self.make(parent_of(target))
        there = self.at(parent, name)
        if there is not None and self._taken(path, there):
            self._join(path, there)
            return
        self.count += 1
        if there == node:
            self._revision.drop_edge(edge)
            self.shifted = True
            return
        if there is not None:
            # Nothing is left below it: it was left out, or went elsewhere.
            old = self._paths.edge_at[parent, name]
            self._leaving.add(old)
            self._lost.add(old)
            self._revision.drop_edge(old)
            self.shifted = True
        self._made[parent, name] = node
        self._moved.add(node)
        self._found[target] = node
        if in_place:
            self._revision.rename_edge(edge, name)
        else:
            self.shifted = True
            self._revision.drop_edge(edge)
            self._revision.add_edge(parent, node, name)

    def _lives(self, node: int) -> bool:
        """Tell whether tensors are left at or below a node, by the edges that stay."""
        graph, seen, stack = self._graph, {node}, [node]
        while stack:
            one = stack.pop()
            if one in self._living or one >= len(graph):
                return True
            for edge in graph.edges_of.get(one, ()):
                child = graph.edge_child[edge]
                if edge not in self._lost and child not in seen:
                    seen.add(child)
                    stack.append(child)
        return False

    def _collision(self, path: str, there: int) -> EditError:
        graph, target = self._graph, self._placed[path]
        held = [] if there >= len(graph) else graph.attributes_of.get(there, [])
        what = f"the object of {graph.key[held[0]]!r}" if held else "an object with tensors"
        msg = f"{path!r} cannot become {target!r}: {what} is there already, by another path"
        return EditError(msg, tensor=path)
