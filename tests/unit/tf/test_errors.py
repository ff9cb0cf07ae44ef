"""Errors by TensorFlow's names, which are its own where it is loaded."""

import copy
import sys
from types import ModuleType

import pytest

from ckptkit.errors import (
    ConflictError,
    CorruptError,
    NeedsRecoveryError,
    TensorNotFoundError,
    UnknownFormatError,
    UnsupportedError,
)
from ckptkit.formats.tensorflow.listing import TooShortError
from ckptkit.tf import errors

LOADED = "tensorflow.python.framework.errors_impl"


class TheirError(Exception):
    """What TensorFlow's errors are like: arguments of their own, and attributes nobody sets."""

    def __init__(self, node_def, op, message, *args):
        raise AssertionError

    @property
    def message(self):
        return self._message


@pytest.fixture
def alone(monkeypatch):
    """No TensorFlow."""
    monkeypatch.delitem(sys.modules, LOADED, raising=False)


@pytest.fixture
def beside(monkeypatch):
    """A module that stands for TensorFlow's errors."""
    module = ModuleType(LOADED)
    module.NotFoundError = type("NotFoundError", (TheirError,), {})
    monkeypatch.setitem(sys.modules, LOADED, module)
    return module


@pytest.mark.parametrize("kind", errors.KINDS.values(), ids=errors.KINDS)
def test_errors_have_what_those_of_tensorflow_have(alone, kind):
    found = errors.error(kind, "why")
    assert type(found) is kind
    assert isinstance(found, errors.OpError)
    assert (str(found), found.message, found.error_code) == ("why", "why", kind.code)
    assert (found.node_def, found.op, found.experimental_payloads) == (None, None, {})
    back = copy.copy(found)
    assert (type(back), back.message) == (kind, "why")


def test_they_are_made_as_those_of_tensorflow_are():
    found = errors.OpError("node", "op", "why", 7, {"a": b"b"})
    assert (found.node_def, found.op, found.error_code) == ("node", "op", 7)
    assert found.experimental_payloads == {"a": b"b"}


def test_where_tensorflow_is_loaded_they_are_its_own(beside):
    found = errors.error(errors.NotFoundError, "why")
    assert isinstance(found, beside.NotFoundError)
    assert isinstance(found, errors.NotFoundError)
    assert (str(found), found.message, found.error_code) == ("why", "why", errors.NOT_FOUND)
    assert type(found) is type(errors.error(errors.NotFoundError, "another"))
    assert type(copy.copy(found)) is type(found)
    # What TensorFlow has no class for, at that moment, is ours alone.
    assert type(errors.error(errors.DataLossError, "why")) is errors.DataLossError


def test_some_are_builtin_errors_as_well(alone):
    for kind, builtin in (
        (errors.OutOfRangeError, IndexError),
        (errors.InvalidArgumentError, ValueError),
        (errors.UnimplementedError, NotImplementedError),
    ):
        with pytest.raises(builtin, match="why"):
            raise errors.error(kind, "why")


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (FileNotFoundError(2, "none", "x"), errors.NotFoundError),
        (PermissionError(13, "no", "x"), errors.PermissionDeniedError),
        (OSError(5, "broken", "x"), errors.UnknownError),
        (TensorNotFoundError("none"), errors.NotFoundError),
        (TooShortError("short"), errors.OutOfRangeError),
        (CorruptError("damaged"), errors.DataLossError),
        (UnknownFormatError("other"), errors.DataLossError),
        (UnsupportedError("not done"), errors.UnimplementedError),
        (ConflictError("ends", offset=3), errors.OutOfRangeError),
        (ConflictError("edited"), errors.FailedPreconditionError),
        (NeedsRecoveryError("cut"), errors.FailedPreconditionError),
    ],
)
def test_every_error_of_ours_has_one_of_theirs(alone, found, kind):
    made = errors.translated(found)
    assert type(made) is kind
    assert made.message
    assert errors.translated(made) is made
