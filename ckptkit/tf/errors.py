"""The errors of TensorFlow, by its names, without TensorFlow.

Where TensorFlow is loaded, what is raised is one of its own errors as well, so that
``except tf.errors.NotFoundError`` catches it. Some are a builtin error besides, as that is what
TensorFlow's reader raises instead: ``IndexError`` where a file is too short, ``ValueError`` and
``NotImplementedError`` where it cannot join slices.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ckptkit.errors import (
    ConflictError,
    CorruptError,
    FormatError,
    NeedsRecoveryError,
    TensorNotFoundError,
    UnsupportedError,
)
from ckptkit.formats.tensorflow.listing import TooShortError

if TYPE_CHECKING:
    from collections.abc import Callable

UNKNOWN: Final = 2
INVALID_ARGUMENT: Final = 3
NOT_FOUND: Final = 5
PERMISSION_DENIED: Final = 7
FAILED_PRECONDITION: Final = 9
OUT_OF_RANGE: Final = 11
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
DATA_LOSS: Final = 15

_THEIRS: Final = "tensorflow.python.framework.errors_impl"


class OpError(Exception):
    """Base of the errors, as ``tf.errors.OpError``."""

    code: ClassVar[int] = UNKNOWN

    def __init__(
        self, node_def: object, op: object, message: str, error_code: int | None = None, *args: Any
    ) -> None:
        """Take what TensorFlow's errors take; of all but the last class the code is its own."""
        # Which classes come next depends on whether TensorFlow is there; they have no say.
        Exception.__init__(self, message)
        self._node_def = node_def
        self._op = op
        self._message = message
        self._error_code = self.code if error_code is None else error_code
        self._experimental_payloads: dict[Any, Any] = args[0] if args else {}

    @property
    def message(self) -> str:
        """What went wrong."""
        return self._message

    @property
    def error_code(self) -> int:
        """Which kind of error it is, by TensorFlow's numbers."""
        return self._error_code

    @property
    def node_def(self) -> object:
        """Of the operation that failed; always None here."""
        return self._node_def

    @property
    def op(self) -> object:
        """The operation that failed; always None here."""
        return self._op

    @property
    def experimental_payloads(self) -> dict[Any, Any]:
        """Details; always none here."""
        return self._experimental_payloads

    def __str__(self) -> str:
        """Return the message."""
        return self._message

    def __reduce__(self) -> tuple[Callable[..., OpError], tuple[Any, ...]]:
        """Become an error of the same kind wherever it is unpickled."""
        return _again, (type(self).__name__, self.message)


class NotFoundError(OpError):
    """There is no checkpoint, no file, or no tensor of that name."""

    code = NOT_FOUND


class DataLossError(OpError):
    """A file is damaged, or none of its kind."""

    code = DATA_LOSS


class InvalidArgumentError(OpError, ValueError):
    """An argument cannot be right."""

    code = INVALID_ARGUMENT


class OutOfRangeError(OpError, IndexError):
    """A file is shorter than its index says."""

    code = OUT_OF_RANGE


class UnimplementedError(OpError, NotImplementedError):
    """It is sound, and not done."""

    code = UNIMPLEMENTED


class InternalError(OpError):
    """A value has no form in NumPy."""

    code = INTERNAL


class PermissionDeniedError(OpError):
    """A file may not be read."""

    code = PERMISSION_DENIED


class FailedPreconditionError(OpError):
    """An edit in place of the checkpoint is going on, or was cut short."""

    code = FAILED_PRECONDITION


class UnknownError(OpError):
    """The system refuses for another reason."""


KINDS: Final[dict[str, type[OpError]]] = {
    one.__name__: one
    for one in (
        OpError,
        NotFoundError,
        DataLossError,
        InvalidArgumentError,
        OutOfRangeError,
        UnimplementedError,
        InternalError,
        PermissionDeniedError,
        FailedPreconditionError,
        UnknownError,
    )
}
"""The classes by name."""


def error(kind: type[OpError], message: str) -> OpError:
    """Return an error of a kind, which is TensorFlow's own as well where that is loaded."""
    theirs = getattr(sys.modules.get(_THEIRS), kind.__name__, None)
    made = kind if theirs is None else _both(kind, theirs)
    return made(None, None, message)


_BOTH: Final[dict[tuple[type[OpError], type[Exception]], type[OpError]]] = {}


def _both(ours: type[OpError], theirs: type[Exception]) -> type[OpError]:
    """Return a class that is ours and TensorFlow's."""
    known = _BOTH.get((ours, theirs))
    if known is None:
        names = {"__module__": ours.__module__, "__doc__": ours.__doc__}
        known = _BOTH[ours, theirs] = type(ours.__name__, (ours, theirs), names)
    return known


def _again(kind: str, message: str) -> OpError:
    return error(KINDS[kind], message)


def translated(found: Exception) -> OpError:
    """Return what TensorFlow would raise in place of an error of ours or of the system."""
    if isinstance(found, OpError):
        return found
    if isinstance(found, OSError):
        return error(_of_system(found), f"{found.filename}; {found.strerror}")
    return error(_of_ours(found), str(found))


def _of_system(found: OSError) -> type[OpError]:
    if isinstance(found, FileNotFoundError):
        return NotFoundError
    return PermissionDeniedError if isinstance(found, PermissionError) else UnknownError


def _of_ours(found: Exception) -> type[OpError]:
    if isinstance(found, TensorNotFoundError):
        return NotFoundError
    if isinstance(found, TooShortError):
        return OutOfRangeError
    if isinstance(found, NeedsRecoveryError):
        return FailedPreconditionError
    if isinstance(found, ConflictError):
        # The one conflict that a reader meets that holds no lock: the file ends too early.
        return FailedPreconditionError if found.offset is None else OutOfRangeError
    if isinstance(found, UnsupportedError):
        return UnimplementedError
    return DataLossError if isinstance(found, CorruptError | FormatError) else UnknownError
