"""The errors that ckptkit raises, and the exit code that each one stands for.

A message says what was expected, what was found, where, and what to do. ``OSError`` is never
wrapped: a full disk is a full disk.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class CkptError(Exception):
    """Base of every error that ckptkit raises on purpose.

    Attributes:
        path: The file that the error is about, if one is.
        tensor: The name of the tensor that the error is about, if one is.
        offset: Byte offset in ``path``, or column in the text of an edit.
    """

    exit_code: ClassVar[int] = 3

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
    ) -> None:
        """Keep the message and the place that it is about."""
        super().__init__(message)
        self.message = message
        self.path = path
        self.tensor = tensor
        self.offset = offset

    def __str__(self) -> str:
        """Return ``path: tensor 'name': at byte N: message``, as far as they are known."""
        place = [self.path] if self.path is not None else []
        if self.tensor is not None:
            place.append(f"tensor {self.tensor!r}")
        if self.offset is not None:
            place.append(f"at byte {self.offset}")
        return ": ".join([*place, self.message])


class FormatError(CkptError, ValueError):
    """A file does not hold what its format asks for."""


class CorruptError(FormatError):
    """A file breaks its own format: bounds, checksums, or contradictions."""


class UnsupportedError(FormatError):
    """A file is sound, but asks for something that ckptkit does not do."""


class UnknownFormatError(FormatError):
    """No format claims the path."""


class TensorNotFoundError(CkptError, KeyError):
    """A checkpoint has no tensor of that name."""

    exit_code = 4

    @classmethod
    def among(
        cls, name: str, names: Iterable[str], *, path: str | None = None
    ) -> TensorNotFoundError:
        """Make the error, naming the nearest of ``names``."""
        near = difflib.get_close_matches(name, list(names)[:100_000], n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        return cls(f"no such tensor{hint}", path=path, tensor=name)


class EditError(CkptError, ValueError):
    """An edit does not parse, matches nothing, does not fit, or is refused."""

    exit_code = 4

    def __str__(self) -> str:
        """Return the message; the place is a column of the statement, and is in it already."""
        return self.message if self.path is None else f"{self.path}: {self.message}"


class ConflictError(CkptError):
    """The file changed since it was scanned, is hard-linked, or is locked."""

    exit_code = 5


class NeedsRecoveryError(CkptError):
    """A journal lies beside the checkpoint: an in-place edit was interrupted."""

    exit_code = 5
