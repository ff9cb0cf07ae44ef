"""Edits of what tensors are called, and of which of them there are."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

from ckptkit.binding import filled, is_template
from ckptkit.deriving import Change, bound
from ckptkit.errors import EditError
from ckptkit.expressions import Current
from ckptkit.globs import OBJECT, is_glob, named, places, quoted, select_groups
from ckptkit.kernels import Expression
from ckptkit.lowering import is_number
from ckptkit.model import Derived, Tensor
from ckptkit.optimizers import state_by_name
from ckptkit.sizes import counted, human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ckptkit.catalog import Catalog


def _compiled(pattern: str, template: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = re.compile(pattern)
            compiled.sub(template, "")
    except (re.error, IndexError, OverflowError, RecursionError) as error:
        msg = f"not a regular expression with its template: {error}"
        raise EditError(msg) from None
    return compiled


def _filler(compiled: re.Pattern[str], template: str) -> str | Callable[[re.Match[str]], str]:
    """Compile a template: before Python 3.12, ``re`` itself expands it anew for every name."""
    parts = re.split(r"\\(?:([1-9])(?![0-9])|g<(\w+)>)", template)
    literals = parts[::3]
    references = [one or other for one, other in zip(parts[1::3], parts[2::3], strict=True)]
    places = [compiled.groupindex.get(name) or int(name) for name in references]
    if not places or 0 in places or any("\\" in literal for literal in literals):
        return template
    chosen = itemgetter(*(place - 1 for place in places))
    form = "%s".join(literal.replace("%", "%%") for literal in literals)
    return lambda match: form % chosen(match.groups(""))


@dataclass(frozen=True)
class Rename:
    r"""``rename REGEX -> TEMPLATE``: what the expression finds in a name becomes the template.

    Attributes:
        pattern: A regular expression of Python, found anywhere in a name.
        template: What goes there; ``\1`` and ``\g<name>`` are groups.
    """

    pattern: str
    template: str

    def __post_init__(self) -> None:
        """Refuse what does not compile."""
        _compiled(self.pattern, self.template)

    def __str__(self) -> str:
        """Return the statement."""
        return f"rename {_side(self.pattern)} -> {_side(self.template)}"

    def apply(self, catalog: Catalog) -> Change:
        """Give the names; rows and tensors stay as they are."""
        compiled = _compiled(self.pattern, self.template)
        old, sub, fill = catalog.names, compiled.sub, _filler(compiled, self.template)
        names = [sub(fill, name) for name in old]
        held = () if catalog.structure is None else catalog.structure.holders(catalog)
        for name in held:
            names[catalog.position(name)] = name
        pairs = [(a, b) for a, b in zip(old, names, strict=True) if a != b]
        if not pairs:
            if any(map(compiled.search, held)) and not any(
                compiled.search(name) for name in old if name not in held
            ):
                msg = f"{self.pattern!r} matches only {held[0]!r}, which cannot have another name"
                raise EditError(msg, tensor=held[0])
            found = any(map(compiled.search, old))
            why = "matches, but every name stays as it is" if found else "matches no name"
            msg = f"{self.pattern!r} {why}"
            raise EditError(msg)
        return Change(renamed(catalog, names), tuple(b for _, b in pairs))


@dataclass(frozen=True)
class RenameObject:
    """``rename graph:PATH -> graph:PATH``: an object goes to another place, with all below it.

    Attributes:
        old: Any path of the object. Where tensors are named after another one, only the last step
            of this path is another afterwards.
        new: The path that it gets, at which no object is.
    """

    old: str
    new: str

    def __str__(self) -> str:
        """Return the statement."""
        return f"rename {_side(OBJECT + self.old)} -> {_side(OBJECT + self.new)}"

    def apply(self, catalog: Catalog) -> Change:
        """Move the object, and name tensors after it."""
        if catalog.structure is None:
            msg = "this checkpoint says nothing of objects: rename by the names that ls lists"
            raise EditError(msg)
        result = catalog.structure.moved(catalog, self.old, self.new)
        pairs = zip(catalog.names, result.names, strict=True)
        touched = tuple(after for before, after in pairs if before != after)
        if touched:
            return Change(result, touched)
        note = "no tensor is named after this path, so that only the object graph is another"
        return Change(result, touched, (note,))


def renamed(catalog: Catalog, names: Sequence[str]) -> Catalog:
    """Return a catalog with other names, in the order of those that it has.

    Raises:
        EditError: A name would be empty, or two would be the same.
    """
    old = catalog.names
    _check_names(old, names)
    single = dict(catalog.single)
    if single:
        pairs = zip(old, names, strict=True)
        moved = [(b, single.pop(a)) for a, b in pairs if a != b and a in single]
        single.update(moved)
    return catalog.replace(names=names, single=single)


def _check_names(old: Sequence[str], new: Sequence[str]) -> None:
    if "" in (unique := set(new)):
        name = old[new.index("")]
        msg = f"{name!r} would have no name left"
        raise EditError(msg, tensor=name)
    if len(unique) == len(new):
        return
    owner: dict[str, str] = {}
    for before, after in zip(old, new, strict=True):
        first = owner.setdefault(after, before)
        if first != before:
            msg = f"{first!r} and {before!r} would both become {after!r}"
            raise EditError(msg, tensor=before)


def _side(text: str) -> str:
    bare = text and text == text.strip() and not text.startswith('"') and "->" not in text
    return text if bare else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _restrict(catalog: Catalog, glob: str, *, keep: bool) -> Change:
    chosen, structure = places(catalog, glob), catalog.structure
    mask = [not keep] * len(catalog)
    for at in chosen:
        mask[at] = keep
    if structure is None:
        return _kept(catalog, mask)
    held = structure.holders(catalog)
    by_wildcard = is_glob(glob) and glob not in catalog
    if keep or by_wildcard:
        for name in held:
            mask[catalog.position(name)] = True
    if by_wildcard and not glob.startswith(OBJECT):
        gone = [at for at, stays in enumerate(mask) if not stays]
        if not keep and not gone:
            msg = f"{glob!r} matches only {held[0]!r}; to leave it out, give its exact name"
            raise EditError(msg, tensor=held[0])
        structure.check_dropped(catalog, glob, gone)
    change = _kept(catalog, mask)
    lost = [name for name in held if name not in change.catalog]
    if not lost:
        return change
    note = (
        f"without {lost[0]!r} no object gets its values: what restores objects leaves them as they"
        " are, and says nothing; only names restore values"
    )
    return Change(change.catalog.with_structure(None), change.touched, (note,))


def _kept(catalog: Catalog, mask: Sequence[bool]) -> Change:
    gone = tuple(name for name, kept in zip(catalog.names, mask, strict=True) if not kept)
    return Change(catalog.kept(mask), gone)


@dataclass(frozen=True)
class Drop:
    """``drop GLOB``: leave tensors out."""

    glob: str

    def __str__(self) -> str:
        """Return the statement."""
        return f"drop {quoted(self.glob)}"

    def apply(self, catalog: Catalog) -> Change:
        """Leave out what matches."""
        return _restrict(catalog, self.glob, keep=False)


@dataclass(frozen=True)
class DropOptimizerState:
    """``drop optimizer state``: leave out the tensors that only optimizers have.

    Where the checkpoint says how objects reach its tensors, they are those that no other object
    reaches; else those that are named as optimizers name theirs.
    """

    def __str__(self) -> str:
        """Return the statement."""
        return "drop optimizer state"

    def apply(self, catalog: Catalog) -> Change:
        """Leave the state out."""
        found: Sequence[int]
        if catalog.structure is None:
            found = state_by_name(catalog)
        else:
            found = catalog.structure.optimizer_state(catalog)
        if not found:
            msg = "no tensor is named as optimizers name their state; drop it by its names"
            raise EditError(msg)
        mask = [True] * len(catalog)
        for at in found:
            mask[at] = False
        nbytes = sum(map(catalog.stored_bytes_at, found))
        what = f"{counted(len(found), 'tensor')} {'goes' if len(found) == 1 else 'go'}"
        change = _kept(catalog, mask)
        return Change(change.catalog, change.touched, (f"{what}, {human_size(nbytes)}",))


@dataclass(frozen=True)
class Keep:
    """``keep GLOB``: leave out all tensors but these."""

    glob: str

    def __str__(self) -> str:
        """Return the statement."""
        return f"keep {quoted(self.glob)}"

    def apply(self, catalog: Catalog) -> Change:
        """Leave out what does not match."""
        return _restrict(catalog, self.glob, keep=True)


@dataclass(frozen=True)
class Copy:
    """``copy NAME -> NAME``: the same tensor under one more name, also from another checkpoint.

    Attributes:
        source: A name or a glob, behind ``NAME:`` of the checkpoint that is bound to that name.
        target: The further name; ``{1}`` is what a group of the glob stands for.
    """

    source: str
    target: str

    def __str__(self) -> str:
        """Return the statement."""
        return f"copy {quoted(self.source)} -> {quoted(self.target)}"

    def apply(self, catalog: Catalog) -> Change:
        """Add names for the stored bytes, or for the tensors that edits made."""
        other, source = bound(catalog, self.source)
        origin = catalog if other is None else other
        chosen = list(select_groups(origin, source))
        made = {
            named(
                catalog, filled(self.target, groups) if is_template(self.target) else self.target
            ): name
            for name, groups in chosen
        }
        if len(made) < (count := len(chosen)):
            msg = f"{count} tensors would all be named {self.target!r}: write {{1}} for a group"
            raise EditError(msg)
        for target in made:
            if target in catalog or not target:
                msg = f"there is a tensor {target!r} already" if target else "no name given"
                raise EditError(msg, tensor=target)
        single, rows = dict(catalog.single), [*catalog.rows]
        places: list[int | None] = []
        for target, name in made.items():
            if other is not None:
                single[target] = _carried(other, name)
                rows.append(-1)
                places.append(None)
                continue
            at = catalog.position(name)
            if name in single:
                single[target] = single[name]
            rows.append(catalog.rows[at])
            places.append(at)
        bulk = catalog.bulk and catalog.bulk.followed_by(places)
        names = [*catalog.names, *made]
        result = catalog.replace(names=names, rows=rows, single=single, bulk=bulk)
        return Change(result, tuple(made))


def _carried(other: Catalog, name: str) -> Tensor:
    """Return a tensor of another checkpoint, to be stored as one piece."""
    tensor = other[name]
    if not is_number(tensor.spec.dtype):
        msg = f"{name!r} ({tensor.spec}): only numbers are copied from another checkpoint"
        raise EditError(msg, tensor=name)
    return Tensor(tensor.spec, Derived(Expression(Current(), tensor.spec.dtype), (tensor,)))
