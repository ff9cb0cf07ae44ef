"""Targets: the names of tensors, or globs over them, as they are written in a statement."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ckptkit.errors import EditError, TensorNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptkit.catalog import Catalog

WILDCARDS: Final = frozenset("*?")


@lru_cache(maxsize=256)
def glob_pattern(glob: str) -> re.Pattern[str]:
    """Translate a glob: ``*`` and ``?`` stay within a segment, ``**`` goes across.

    ``**/`` stands for any number of leading segments, none included.
    """
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(tokens.get(part, re.escape(part)) for part in parts), re.DOTALL)


def is_glob(target: str) -> bool:
    """Tell whether a target has wildcards; without, it is the name of one tensor."""
    return not WILDCARDS.isdisjoint(target)


def select(catalog: Catalog, target: str) -> Sequence[str]:
    """Return the names that a glob or an exact name stands for, at least one.

    Raises:
        EditError: There is none.
    """
    if is_glob(target):
        matches = glob_pattern(target).fullmatch
        names = [name for name in catalog.names if matches(name)]
    else:
        names = [target] if target in catalog else []
    if not names:
        raise no_match(catalog, target)
    return names


def no_match(catalog: Catalog, target: str) -> EditError:
    """Return the error for a target that stands for nothing, with the nearest names."""
    _, _, hint = TensorNotFoundError.among(target, catalog.names).message.partition(";")
    what = f"no tensor matches {target!r}" if is_glob(target) else f"no tensor {target!r}"
    return EditError(f"{what};{hint}" if hint else what, tensor=target)


_BARE: Final = re.compile(r'(?!->|(?:rename|drop|keep|cast|copy)$)[^\s"\[\]=]+')


def quoted(name: str) -> str:
    """Return a target as it is written in a statement, in double quotes where it needs them."""
    if _BARE.fullmatch(name):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
