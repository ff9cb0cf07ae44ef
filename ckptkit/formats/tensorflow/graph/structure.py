"""The object graph as a catalog's structure, read when it is first asked for.

Every catalog that is scanned gets one, so that this module imports next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.formats.tensorflow.graph.answers import Answers, Given
    from ckptkit.formats.tensorflow.graph.view import GraphObjects

GRAPH_KEY: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""Name of the tensor that holds the graph."""


class GraphStructure:
    """An object graph, and the catalog that it describes.

    The graph of a catalog that edits made of that one is worked out on demand.
    """

    __slots__ = ("_answers", "_base", "_given", "_stored")

    def __init__(
        self, base: Catalog, given: Given | None = None, stored: Catalog | None = None
    ) -> None:
        """Hold a catalog; nothing is read.

        Args:
            base: The tensors that the graph describes.
            given: The graph; None for the one that is stored with them.
            stored: The catalog with the tensor that a graph is stored in; ``base`` by default.
        """
        self._base = base
        self._given = given
        self._stored = stored or base
        self._answers: Answers | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what the graph is read from, not the graph."""
        return GraphStructure, (self._base, self._given, self._stored)

    @property
    def _asked(self) -> Answers:
        if self._answers is None:
            from ckptkit.formats.tensorflow.graph.answers import Answers

            self._answers = Answers(self._base, self._given, self._stored)
        return self._answers

    def holders(self, catalog: Catalog) -> Sequence[str]:
        """Return the name of the tensor of the graph."""
        return (GRAPH_KEY,) if GRAPH_KEY in catalog else ()

    def objects(self, catalog: Catalog) -> GraphObjects:
        """Return the objects, to be looked at."""
        from ckptkit.formats.tensorflow.graph.view import GraphObjects

        return GraphObjects(self._asked.graph_of(catalog), catalog)

    def places(self, catalog: Catalog, path: str) -> Sequence[int]:
        """Return the positions of the tensors of objects that a path or a glob reaches."""
        return self._asked.places(catalog, path)

    def name_at(self, catalog: Catalog, path: str) -> str:
        """Return the name that the tensor of a new object at a path has."""
        return self._asked.name_at(catalog, path)

    def moved(self, catalog: Catalog, old: str, new: str) -> Catalog:
        """Return the catalog with an object at another path, and all names that go with it."""
        base, given = self._asked.moved(catalog, old, new)
        base = base.with_structure(None)
        return base.with_structure(GraphStructure(base, given, self._stored))

    def optimizer_state(self, catalog: Catalog) -> Sequence[int]:
        """Return the positions of the tensors that only optimizers reach."""
        return self._asked.optimizer_state(catalog)

    def check_dropped(self, catalog: Catalog, glob: str, places: Sequence[int]) -> None:
        """Refuse a glob by which weights go that are merely named after an optimizer."""
        self._asked.check_dropped(catalog, glob, places)

    def settled(self, catalog: Catalog) -> tuple[Catalog, tuple[str, ...]]:
        """Return a catalog with the graph that goes with it, and notes; itself where it has it.

        Raises:
            EditError: Objects would collide, or parts of one would be apart.
            CorruptError: The graph does not read.
        """
        return self._asked.settled(catalog)
