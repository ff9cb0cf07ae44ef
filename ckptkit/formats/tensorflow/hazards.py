"""What TensorFlow 2.21 does with damage that it does not refuse, in a few words.

A checkpoint from a stranger may be aimed at its reader, so that a finding says more than that
something is wrong where TensorFlow crashes, ends the process, or goes on with wrong values.
"""

from __future__ import annotations

from typing import Final

CRASHES: Final = "TensorFlow crashes on this"
ABORTS: Final = "TensorFlow aborts on this"
OVERREADS: Final = "TensorFlow reads foreign memory, or crashes"
HIDES: Final = "TensorFlow hides what follows"

_TABLES: Final = (
    (" passes ", "TensorFlow takes memory for all of it, or crashes"),
    ("key needs ", "TensorFlow hides what follows, or crashes"),
    ("value needs ", "TensorFlow hides what follows, or crashes"),
    (" with a key of ", HIDES),
    ("not greater than the key before", HIDES),
)
"""What the message about a malformed table has in it, and what to add."""

_PLACES: Final = ("shard is ", "offset is ", "size is ")


def of_table(message: str) -> str:
    """Return a message about an index table, with what TensorFlow does."""
    return next((told(message, what) for words, what in _TABLES if words in message), message)


def of_record(message: str) -> str:
    """Return a message about a record that does not decode, with what TensorFlow does."""
    if message.startswith(_PLACES):
        return message
    if "unknown rank" in message:
        return told(message, "TensorFlow goes by the dimensions that stand beside")
    return told(message, ABORTS)


def told(message: str, what: str) -> str:
    """Return a message with what TensorFlow does."""
    return f"{message}; {what}"
