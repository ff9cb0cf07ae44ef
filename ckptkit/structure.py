"""What a checkpoint says of objects: by which paths they reach its tensors.

A format that knows such a thing gives its catalogs a :class:`Structure`. Edits ask it where a path
leads, and what a path is called; what is written of objects beside the tensors is made to agree by
the format, when the edit is laid out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.catalog import Catalog


class Attribute(NamedTuple):
    """A value that an object keeps in the checkpoint.

    Attributes:
        name: What the object calls it; ``VARIABLE_VALUE`` of a variable.
        full_name: What the variable is called in the program; empty where nobody said.
        key: The name that the tensor should have.
        tensors: The names of the tensors: the key; names that go on behind it, of an object with
            several; or nothing, where the checkpoint lacks it.
    """

    name: str
    full_name: str
    key: str
    tensors: tuple[str, ...]


class Slot(NamedTuple):
    """What an optimizer keeps a variable for.

    Attributes:
        optimizer: The path of the optimizer; None where nothing leads there.
        variable: The path of the variable that it is kept for.
        name: What it is kept as, such as ``momentum``.
    """

    optimizer: str | None
    variable: str | None
    name: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a checkpoint.

    Attributes:
        node: Its number.
        path: The shortest path to it, empty for the root; None where none leads there.
        aliases: Other paths to it: by its other parents, each by that one's shortest path.
        more_aliases: How many are not among them, as they are too many.
        attributes: What it keeps.
        slots: What optimizers keep it for; it may be reached by no path then.
    """

    node: int
    path: str | None
    aliases: tuple[str, ...]
    more_aliases: int
    attributes: tuple[Attribute, ...]
    slots: tuple[Slot, ...]


class Line(NamedTuple):
    """A line of a tree of objects.

    Attributes:
        depth: How far in it stands.
        name: The local name; empty for the root.
        variable: For what an optimizer keeps it, if that is why it stands there.
        item: The object, if it stands here; None where it stands elsewhere.
        target: Then the path where it stands.
    """

    depth: int
    name: str
    variable: str | None
    item: StoredObject | None
    target: str | None


class Objects(Protocol):
    """The objects of a checkpoint, to be looked at."""

    def __len__(self) -> int:
        """Return the number of objects."""

    def __iter__(self) -> Iterator[StoredObject]:
        """Iterate over the objects, in the order of their numbers; 0 is the root."""

    def matching(self, glob: str) -> Sequence[StoredObject]:
        """Return the objects to which a path, or a glob of paths, leads by any way."""

    def lines(self) -> Iterator[Line]:
        """Iterate over the tree: every object once, under its shortest path."""


class Structure(Protocol):
    """Objects, and the paths by which they reach tensors. Immutable; goes with a catalog.

    It is asked about the catalog as it is at that moment, after the edits so far.
    """

    def holders(self, catalog: Catalog) -> Sequence[str]:
        """Return the names of the tensors that say all this; edits by wildcard leave them alone."""

    def objects(self, catalog: Catalog) -> Objects:
        """Return the objects, to be looked at.

        Raises:
            CorruptError: What the checkpoint says of them does not read.
        """

    def places(self, catalog: Catalog, path: str) -> Sequence[int]:
        """Return the positions of the tensors of objects that a path, or a glob of them, reaches.

        Every path counts by which an object is reached, not only the one in a tensor's name.

        Raises:
            EditError: The checkpoint says nothing of objects.
        """

    def name_at(self, catalog: Catalog, path: str) -> str:
        """Return the name that the tensor of a new object at a path has.

        Raises:
            EditError: The checkpoint says nothing of objects, or the path is none.
        """

    def moved(self, catalog: Catalog, old: str, new: str) -> Catalog:
        """Return the catalog with an object at another path, and all names that go with it.

        Raises:
            EditError: No object is there, one is at the new path, or names would collide.
        """

    def optimizer_state(self, catalog: Catalog) -> Sequence[int]:
        """Return the positions of the tensors that only optimizers reach.

        Raises:
            EditError: There is no optimizer, or nothing else than its state.
        """

    def check_dropped(self, catalog: Catalog, glob: str, places: Sequence[int]) -> None:
        """Refuse a glob by which weights go that are merely named after an optimizer.

        Args:
            catalog: The tensors.
            glob: What a statement says is to be left out.
            places: The positions that it stands for.

        Raises:
            EditError: Such a weight is among them.
        """
