"""Targets: the names of tensors, or globs over them, as they are written in a statement."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ckptkit.errors import CkptError, EditError, TensorNotFoundError
from ckptkit.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.catalog import Catalog

WILDCARDS: Final = frozenset("*?")

EVERYTHING: Final = "**"
"""The glob that every name matches."""


LABEL: Final = "layer:"
"""What a target begins with that is about labels, ``LAYER/WEIGHT``, and not about names."""


OBJECT: Final = "graph:"
"""What a target begins with that is a path of objects, or a glob of such, and not a name."""

PREFIXES: Final = (LABEL, OBJECT)
"""What a target begins with that is no name."""


@lru_cache(maxsize=256)
def glob_pattern(glob: str) -> re.Pattern[str]:
    """Translate a glob: ``*`` and ``?`` stay within a segment, ``**`` goes across.

    ``**/`` stands for any number of leading segments, none included. What parentheses around
    wildcards stand for is a group.
    """
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if _GROUPED.search(glob):
        tokens |= {"(": "(", ")": ")"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|[()])", glob)
    pattern = "".join(tokens.get(part, re.escape(part)) for part in parts)
    try:
        return re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        msg = f"{glob!r} is no glob: {error}"
        raise EditError(msg) from None


_GROUPED: Final = re.compile(r"\([^()]*[*?][^()]*\)")


def is_glob(target: str) -> bool:
    """Tell whether a target has wildcards; without, it is the name of one tensor."""
    return not WILDCARDS.isdisjoint(target)


def is_indirect(catalog: Catalog, target: str) -> bool:
    """Tell whether a target is about a label or a path of objects, and is not a name itself."""
    return target.startswith(PREFIXES) and target not in catalog


def select(catalog: Catalog, target: str) -> Sequence[str]:
    """Return the names that a glob or an exact name stands for, at least one.

    Raises:
        EditError: There is none.
    """
    found, names = places(catalog, target), catalog.names
    return names if len(found) == len(names) else [names[at] for at in found]


def places(catalog: Catalog, target: str) -> Sequence[int]:
    """Return the positions of the names that a glob or an exact name stands for, at least one.

    Raises:
        EditError: There is none.
    """
    if target.startswith(OBJECT) and target not in catalog:
        return _of_objects(catalog, target)
    listed, sought = _listed(catalog, target)
    if not is_glob(sought):
        found: Sequence[int] = [at for at, text in enumerate(listed or ()) if text == sought]
        if listed is None and sought in catalog:
            found = [catalog.position(sought)]
    elif sought == EVERYTHING and listed is None:
        found = range(len(catalog))
    else:
        matches = glob_pattern(sought).fullmatch
        texts = catalog.names if listed is None else listed
        found = [at for at, text in enumerate(texts) if text and matches(text)]
    if not found:
        raise no_match(catalog, target)
    return found


def _of_objects(catalog: Catalog, target: str) -> Sequence[int]:
    """Return the positions of the tensors of objects, at least one.

    Raises:
        EditError: There is none, or the checkpoint says nothing of objects.
    """
    if catalog.structure is None:
        msg = f"{target!r}: this checkpoint says nothing of objects; use the names that ls lists"
        raise EditError(msg, tensor=target)
    found = catalog.structure.places(catalog, target[len(OBJECT) :])
    if not found:
        msg = f"no object with a tensor is at {target!r}{_below(catalog, target)}"
        raise EditError(msg, tensor=target)
    return found


def _below(catalog: Catalog, target: str) -> str:
    """Return where there are tensors, if not at the path of an object."""
    deeper = f"{target}/**" if target != OBJECT else f"{OBJECT}**"
    known = catalog.structure
    count = (
        0 if known is None or is_glob(target) else len(known.places(catalog, deeper[len(OBJECT) :]))
    )
    if not count:
        return "; ls --graph shows the tree"
    return f"; below it {'is' if count == 1 else 'are'} {counted(count, 'tensor')}: {deeper}"


def named(catalog: Catalog, name: str) -> str:
    """Return the name that a new tensor has, which may be given by the path of an object.

    Raises:
        EditError: The checkpoint says nothing of objects, or the path is none for a new one.
    """
    if not name.startswith(OBJECT) or name in catalog:
        return name
    if catalog.structure is None:
        msg = f"{name!r}: this checkpoint says nothing of objects; give a name as ls lists them"
        raise EditError(msg, tensor=name)
    return catalog.structure.name_at(catalog, name[len(OBJECT) :])


def _listed(catalog: Catalog, target: str) -> tuple[Sequence[str] | None, str]:
    """Return the labels that a target is about, None where it is about names, and the rest of it.

    Raises:
        EditError: There are no labels.
    """
    if not target.startswith(LABEL) or target in catalog:
        return None, target
    labels = catalog.labels
    if not any(labels):
        msg = f"{target!r}: this checkpoint says nothing of layers; use the names that ls lists"
        raise EditError(msg, tensor=target)
    return labels, target[len(LABEL) :]


def select_groups(catalog: Catalog, target: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the names that a target stands for, each with itself and what its groups stand for.

    Raises:
        EditError: There is none.
    """
    listed, sought = _listed(catalog, target)
    pattern = glob_pattern(sought) if is_glob(sought) else None
    for at in places(catalog, target):
        name = catalog.names[at]
        text = name if listed is None else listed[at]
        found = pattern.fullmatch(text) if pattern is not None else None
        yield name, (name, *(group or "" for group in found.groups())) if found else (name,)


def no_match(catalog: Catalog, target: str) -> EditError:
    """Return the error for a target that stands for nothing, with the nearest names."""
    listed, sought = _listed(catalog, target)
    names = catalog.names if listed is None else listed
    _, _, hint = TensorNotFoundError.among(sought, names).message.partition(";")
    if listed is None and _is_path(catalog, target):
        hint = f" as a path of objects it is {OBJECT}{target}"
    what = f"no tensor matches {target!r}" if is_glob(target) else f"no tensor {target!r}"
    return EditError(f"{what};{hint}" if hint else what, tensor=target)


def _is_path(catalog: Catalog, target: str) -> bool:
    """Tell whether a target would stand for tensors as a path of objects."""
    try:
        return catalog.structure is not None and bool(catalog.structure.places(catalog, target))
    except CkptError:
        return False


VERBS: Final = (
    *("rename", "drop", "keep", "copy", "new", "cast", "clip", "repair", "noise", "prune"),
    *("quantize", "dequantize", "transpose", "reshape", "take", "pad", "resize", "split"),
    *("concat", "stack", "unstack", "lora", "foldbn", "repartition"),
)
"""What a statement may begin with besides a target."""

_BARE: Final = re.compile(rf'(?!->|(?:{"|".join(VERBS)})$)[^\s"\[\]=,]+')


def quoted(name: str) -> str:
    """Return a target as it is written in a statement, in double quotes where it needs them."""
    if _BARE.fullmatch(name):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
