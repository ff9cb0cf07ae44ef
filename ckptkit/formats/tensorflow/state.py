"""The state file of a folder: text that names its checkpoints, and which of them is the latest.

It is a ``CheckpointState`` in protobuf's text format, as TensorFlow reads and writes it.
"""

from __future__ import annotations

import math
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeVar

from ckptkit.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

Value = TypeVar("Value")

STATE_BYTES: Final = 1 << 20
"""A state file longer than this is none."""

MAX_DEPTH: Final = 100
"""Messages within messages of a field that we do not know."""

LATEST: Final = "model_checkpoint_path"
ALL: Final = "all_model_checkpoint_paths"
TIMES: Final = "all_model_checkpoint_timestamps"
PRESERVED: Final = "last_preserved_timestamp"

_SKIPPED: Final = re.compile(r"(?:\s|#[^\n]*)*+")
_COMMENT: Final = re.compile(r"#[^\n]*")
_TOKEN: Final = re.compile(
    r"""[a-zA-Z_][0-9a-zA-Z_+-]*"""
    r"""|(?:[0-9+-]|\.[0-9])[0-9a-zA-Z_.+-]*"""
    r"""|"[^"\n\\]*(?:\\.[^"\n\\]*)*+"|'[^'\n\\]*(?:\\.[^'\n\\]*)*+'"""
)
_ESCAPE: Final = re.compile(
    r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))"
)
_PLAIN: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_NUMBER_BASE: Final = re.compile(r"-?0[0-9]")
_INFINITY: Final = re.compile(r"-?inf(?:inity)?f?", re.IGNORECASE)
_NAN: Final = re.compile(r"nanf?", re.IGNORECASE)
_CLOSES: Final = {"{": "}", "<": ">", "[": "]"}

_ESCAPED: Final = {
    **{code: f"\\{code:03o}" for code in (*range(32), 127)},
    **{ord(one): f"\\{text}" for one, text in zip("\t\n\r\"'\\", "tnr\"'\\", strict=True)},
}


@dataclass(frozen=True, slots=True)
class State:
    """What a state file says. Paths are as they stand there: relative to its folder, or absolute.

    Attributes:
        model_checkpoint_path: The latest checkpoint; empty for none.
        all_model_checkpoint_paths: All of them, oldest first.
        all_model_checkpoint_timestamps: When each was made, in seconds since 1970; may be none.
        last_preserved_timestamp: When the latest was made that is kept for good; 0 for none.
        others: Fields that we do not know, and comments, as they stand there.
    """

    model_checkpoint_path: str = ""
    all_model_checkpoint_paths: tuple[str, ...] = ()
    all_model_checkpoint_timestamps: tuple[float, ...] = ()
    last_preserved_timestamp: float = 0.0
    others: tuple[str, ...] = ()

    @property
    def is_dated(self) -> bool:
        """Whether every checkpoint has a time."""
        times = self.all_model_checkpoint_timestamps
        return bool(times) and len(times) == len(self.all_model_checkpoint_paths)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Fields that we do not know, for which TensorFlow ignores all of the file."""
        return tuple(one for one in self.others if not one.startswith("#"))

    def entries(self) -> Iterator[tuple[str, float | None]]:
        """Yield every path and its time; the latest one as well where the list lacks it."""
        paths = self.all_model_checkpoint_paths
        yield from zip(
            paths,
            self.all_model_checkpoint_timestamps if self.is_dated else (None,) * len(paths),
            strict=True,
        )
        if self.model_checkpoint_path and self.model_checkpoint_path not in paths:
            yield self.model_checkpoint_path, None

    def with_latest(self, path: str, time: float, known_as: Collection[str] = ()) -> State:
        """Return the state with another latest checkpoint, which is the last of the list as well.

        Args:
            path: The checkpoint.
            time: When it was made. It counts where the others have times, and is no earlier than
                theirs: the list is sorted.
            known_as: What else it is called in the list; it is there once afterwards.
        """
        rest = [entry for entry in self.entries() if entry[0] not in {path, *known_as}]
        dated = all(at is not None for _, at in rest) and (self.is_dated or not rest)
        dated = dated and bool(self.all_model_checkpoint_timestamps)
        times = [at for _, at in rest if at is not None] if dated else []
        return replace(
            self,
            model_checkpoint_path=path,
            all_model_checkpoint_paths=(*(name for name, _ in rest), path),
            all_model_checkpoint_timestamps=(*times, max([time, *times])) if dated else (),
        )

    def render(self) -> bytes:
        """Return the text, as TensorFlow writes it; what we do not know comes last."""
        lines = [_string(LATEST, self.model_checkpoint_path)] if self.model_checkpoint_path else []
        lines += [_string(ALL, path) for path in self.all_model_checkpoint_paths]
        lines += [f"{TIMES}: {time!r}" for time in self.all_model_checkpoint_timestamps]
        preserved = self.last_preserved_timestamp
        if preserved or math.copysign(1, preserved) < 0:
            lines.append(f"{PRESERVED}: {preserved!r}")
        return "".join(f"{line}\n" for line in (*lines, *self.others)).encode()


def read_state(path: str) -> State:
    """Read a state file.

    Raises:
        CorruptError: It is none; see :func:`parse`.
        OSError: It cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        # What is no plain file may have no end, or not even a beginning.
        msg = "a state file is a plain file"
        raise CorruptError(msg, path=path)
    with open(path, "rb") as file:
        return parse(file.read(STATE_BYTES + 1), path=path)


def parse(text: bytes, *, path: str | None = None) -> State:
    """Read the text of a state file, by the rules of protobuf's text format.

    Of a field that there is one of, the last one counts, as TensorFlow has it.

    Args:
        text: The content.
        path: Of the file, for errors.

    Raises:
        CorruptError: It does not parse, or is too long; ``offset`` says at which byte.
    """
    if len(text) > STATE_BYTES:
        msg = f"a state file has at most {STATE_BYTES} bytes"
        raise CorruptError(msg, path=path)
    try:
        return _Parser(text.decode(), path).state()
    except UnicodeDecodeError as error:
        msg = f"a state file is text in UTF-8, and this is none: {error.reason}"
        raise CorruptError(msg, path=path, offset=error.start) from None


def _string(name: str, value: str) -> str:
    return f'{name}: "{value.translate(_ESCAPED)}"'


class _Token(NamedTuple):
    """A word, a number, a quoted string, or one sign; empty at the end."""

    text: str
    start: int

    def is_quoted(self) -> bool:
        return len(self.text) > 1 and self.text[0] in "\"'"

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class _Parser:
    """Reads fields one by one; there is always one token ahead."""

    def __init__(self, text: str, path: str | None) -> None:
        self._text = text
        self._path = path
        self._others: list[str] = []
        self._end = 0
        self._next = _Token("", 0)
        self._keeps = True
        self._advance()

    def state(self) -> State:
        """Read everything."""
        latest, preserved = "", 0.0
        paths: list[str] = []
        times: list[float] = []
        while self._next.text:
            name = self._next
            if name.text == LATEST:
                latest = self._field(self._quoted, repeated=False)[-1]
            elif name.text == ALL:
                paths += self._field(self._quoted, repeated=True)
            elif name.text == TIMES:
                times += self._field(self._number, repeated=True)
            elif name.text == PRESERVED:
                preserved = self._field(self._number, repeated=False)[-1]
            else:
                self._unknown()
            if self._next.text in {",", ";"}:
                self._advance()
        return State(latest, tuple(paths), tuple(times), preserved, tuple(self._others))

    def _advance(self) -> _Token:
        """Step to the next token, and return the one before it."""
        before = self._next
        self._end = before.end
        start = self._end
        skipped = _SKIPPED.match(self._text, start)
        if skipped is not None:
            start = skipped.end()
            if self._keeps:
                self._note_comments(skipped[0])
        found = _TOKEN.match(self._text, start)
        self._next = _Token(found[0] if found else self._text[start : start + 1], start)
        return before

    def _note_comments(self, skipped: str) -> None:
        self._others += [one.rstrip() for one in _COMMENT.findall(skipped)]

    def _field(self, value: Callable[[], Value], *, repeated: bool) -> list[Value]:
        """Read a field that we know."""
        self._advance()
        self._take(":")
        if not repeated or self._next.text != "[":
            return [value()]
        self._advance()
        values: list[Value] = []
        if self._next.text != "]":
            values.append(value())
            while self._next.text != "]":
                self._take(",")
                values.append(value())
        self._advance()
        return values

    def _unknown(self) -> None:
        """Keep a field that we do not know, as it stands there."""
        start = self._next.start
        self._keeps = False
        if self._next.text == "[":
            self._balanced()
        elif re.match(r"\w", self._next.text):
            self._advance()
        else:
            self._refuse("the name of a field")
        colon = self._next.text == ":"
        if colon:
            self._advance()
        if self._next.text in _CLOSES:
            self._balanced()
        elif not colon:
            self._refuse("a colon")
        elif self._next.is_quoted():
            while self._next.is_quoted():
                self._quoted()
        elif re.match(r"[\w.+-]", self._next.text):
            self._advance()
        else:
            self._refuse("a value")
        self._keeps = True
        self._others.append(self._text[start : self._end])
        # The step to what follows went over comments that are not a part of the field.
        self._note_comments(self._text[self._end : self._next.start])

    def _balanced(self) -> None:
        """Step over what is between brackets."""
        open_: list[str] = []
        while True:
            token = self._next.text
            if token in _CLOSES:
                open_.append(_CLOSES[token])
            elif token in {"}", ">", "]"} and token != open_.pop():
                self._refuse("the bracket that closes the latest one")
            if not token:
                self._refuse(f"{open_[-1]!r}, which closes a bracket")
            if len(open_) > MAX_DEPTH:
                self._refuse(f"at most {MAX_DEPTH} brackets in one another")
            self._advance()
            if not open_:
                return

    def _take(self, sign: str) -> None:
        if self._next.text != sign:
            self._refuse(repr(sign))
        self._advance()

    def _quoted(self) -> str:
        """Read strings that stand in a row as one."""
        if not self._next.is_quoted():
            self._refuse("a string in quotes")
        start = self._next.start
        whole = bytearray()
        while self._next.is_quoted():
            try:
                whole += _unescaped(self._next.text[1:-1])
            except ValueError as error:
                self._refuse(f"a string: {error}")
            self._advance()
        try:
            return whole.decode()
        except UnicodeDecodeError:
            self._next = _Token(self._text[start : self._end], start)
            self._refuse("a string in UTF-8")

    def _number(self) -> float:
        text = self._next.text
        try:
            value = _float(text)
        except ValueError:
            self._refuse("a number")
        self._advance()
        return value

    def _refuse(self, expected: str) -> NoReturn:
        start, found = self._next.start, self._next.text
        shown = f"{found[:20]!r}{'...' if len(found) > 20 else ''}" if found else "the end"
        msg = f"the state file does not parse: expected {expected}, found {shown}"
        offset = len(self._text[:start].encode())
        raise CorruptError(msg, path=self._path, offset=offset)


def _float(text: str) -> float:
    """Read a number as protobuf's Python code does, which takes more than others would."""
    if _NUMBER_BASE.match(text):
        raise ValueError
    if _INFINITY.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if _NAN.fullmatch(text):
        return math.nan
    try:
        return float(text)
    except ValueError:
        return float(text.rstrip("fF"))


def _unescaped(text: str) -> bytes:
    """Undo the escapes of a string; an unknown one stands for itself."""

    def one(match: re.Match[str]) -> str:
        octal, byte, short, long, other = match.groups()
        if octal or byte:
            value = int(octal, 8) if octal else int(byte, 16)
            if value > 0xFF:
                msg = f"{match[0]} is no byte"
                raise ValueError(msg)
            return chr(value)
        if short or long:
            # What ends up in a file name is bytes.
            return chr(int(short or long, 16)).encode().decode("latin-1")
        if other in _PLAIN:
            return chr(_PLAIN[other])
        if other in "xuUN":
            msg = f"{match[0]} is no escape"
            raise ValueError(msg)
        return other if other in "\\\"'" else match[0]

    return _ESCAPE.sub(one, text.encode().decode("latin-1")).encode("latin-1")
