"""State files: what is read of them, and what is written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptkit import CorruptError
from ckptkit.formats.tensorflow.state import STATE_BYTES, State, parse, read_state

WRITTEN = """\
model_checkpoint_path: "m-3"
all_model_checkpoint_paths: "m-2"
all_model_checkpoint_paths: "m-3"
all_model_checkpoint_timestamps: 1700000000.25
all_model_checkpoint_timestamps: 1700000600.0
last_preserved_timestamp: 1699999999.5
"""
READ = State("m-3", ("m-2", "m-3"), (1700000000.25, 1700000600.0), 1699999999.5)

paths = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
times = st.floats(width=64)
states = st.builds(
    State,
    paths,
    st.lists(paths, max_size=4).map(tuple),
    st.lists(times, max_size=4).map(tuple),
    times,
)


def same(one, other):
    """Compare states to the bit: a NaN is itself."""
    return repr(one) == repr(other)


def test_what_tensorflow_writes_is_read_and_written():
    assert parse(WRITTEN.encode()) == READ
    assert READ.render().decode() == WRITTEN


@given(states)
def test_what_is_written_is_read(state):
    assert same(parse(state.render()), state)


@pytest.mark.parametrize(
    "text",
    [
        "model_checkpoint_path:'m'",
        'model_checkpoint_path\n:# why\n"m"# so',
        'model_checkpoint_path: "" "m" \'\'',
        'model_checkpoint_path: "other";model_checkpoint_path: "m",',
        r'model_checkpoint_path: "\155"',
        r'model_checkpoint_path: "\x6d"',
        r'model_checkpoint_path: "\u006d"',
        r'model_checkpoint_path: "\U0000006d"',
    ],
)
def test_text_is_written_in_many_ways(text):
    assert parse(text.encode()).model_checkpoint_path == "m"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-1.5e-3f", -1.5e-3),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e999", math.inf),
        ("infinity", math.inf),
        ("-INF", -math.inf),
        ("inff", math.inf),
    ],
)
def test_numbers_are_written_in_many_ways(text, value):
    assert parse(f"last_preserved_timestamp: {text}".encode()).last_preserved_timestamp == value


def test_lists_may_stand_in_brackets():
    text = b'all_model_checkpoint_timestamps: [] all_model_checkpoint_paths: ["a" "b", "c"],'
    assert parse(text) == State("", ("ab", "c"))


def test_what_is_not_known_is_kept():
    text = """\
# by hand
model_checkpoint_path: "m"  # the best
best { score: 1.5 why: "see # 7" } ;
tags: [1, two, "three"]
[a.b/c.d] <x: -1>
note: "a" 'b'  # seen
all_model_checkpoint_paths: "m"
last { x: 1 } # at the end
"""
    state = parse(text.encode())
    assert state.others == (
        "# by hand",
        "# the best",
        'best { score: 1.5 why: "see # 7" }',
        'tags: [1, two, "three"]',
        "[a.b/c.d] <x: -1>",
        "note: \"a\" 'b'",
        "# seen",
        "last { x: 1 }",
        "# at the end",
    )
    assert state.render().decode().splitlines()[2:] == list(state.others)
    assert parse(state.render()) == state


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ('model_checkpoint_path "m"', 22, "expected ':', found '\"m\"'"),
        ("model_checkpoint_path: m", 23, "expected a string in quotes, found 'm'"),
        ('model_checkpoint_path: "m', 23, "a string in quotes"),
        ('model_checkpoint_path: "m\n"', 23, "a string in quotes"),
        ('model_checkpoint_path: ["m"]', 23, "a string in quotes"),
        (r'model_checkpoint_path: "\777"', 23, "is no byte"),
        (r'model_checkpoint_path: "\xg"', 23, "is no escape"),
        (r'model_checkpoint_path: "\ud800"', 23, "a string"),
        (r'model_checkpoint_path: "\xff"', 23, "a string in UTF-8"),
        ('model_checkpoint_path: "é" ?', 28, "found '?'"),
        ('all_model_checkpoint_paths: ["m",]', 33, "a string in quotes, found ']'"),
        ('all_model_checkpoint_paths: ["m" 1]', 33, "expected ','"),
        ("last_preserved_timestamp: 012", 26, "a number"),
        ("last_preserved_timestamp: 0x1", 26, "a number"),
        ("last_preserved_timestamp:", 25, "a number, found the end"),
        (";", 0, "the name of a field"),
        ("\ufeffx: 1", 0, "the name of a field"),
        ("x", 1, "a colon"),
        ("x: }", 3, "a value"),
        ("x { y: [1} ", 9, "the bracket that closes"),
        ("x " + "{" * 200, 102, "at most 100 brackets"),
        ("x <", 3, "expected '>', which closes a bracket, found the end"),
        ("x: " + "y" * 99 + " ?", 103, "the name of a field, found '?'"),
        ("?" + "y" * 99, 0, "found '?'"),
    ],
)
def test_what_does_not_parse_says_where(text, offset, message):
    with pytest.raises(CorruptError) as told:
        parse(text.encode(), path="there")
    assert (told.value.path, told.value.offset) == ("there", offset)
    assert message in told.value.message


@given(st.binary(max_size=60) | st.text('model_checkpoint_path:"\\x[]{}<>#,;0 \n').map(str.encode))
def test_whatever_it_is_it_is_read_or_damaged(text):
    try:
        state = parse(text)
    except CorruptError as error:
        assert error.offset is None or error.offset <= len(text)
    else:
        assert same(parse(state.render()), state)


@pytest.mark.parametrize("sign", ['"\\', '"', "[", "{", "#", " ", "\\", "x:", 'x:"",', "1"])
def test_a_long_one_takes_no_long_time(sign):
    text = (sign * STATE_BYTES)[:STATE_BYTES].encode()
    try:
        parse(text)
    except CorruptError:
        assert sign not in {"#", " "}
    with pytest.raises(CorruptError, match="at most 1048576 bytes"):
        parse(text + b" ")


def test_what_is_no_file_is_none(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CorruptError, match="a plain file"):
        read_state(str(tmp_path / "folder"))


# --- another latest one ------------------------------------------------------------------------


def test_the_latest_is_appended():
    found = READ.with_latest("m-4", 1700000700.5)
    assert found.model_checkpoint_path == "m-4"
    assert found.all_model_checkpoint_paths == ("m-2", "m-3", "m-4")
    assert found.all_model_checkpoint_timestamps == (1700000000.25, 1700000600.0, 1700000700.5)
    assert found.last_preserved_timestamp == READ.last_preserved_timestamp


def test_one_that_is_there_moves_to_the_end():
    found = READ.with_latest("m-2", 1700000700.0)
    assert found.all_model_checkpoint_paths == ("m-3", "m-2")
    assert found.all_model_checkpoint_timestamps == (1700000600.0, 1700000700.0)
    named = State("/run/m", ("/run/m", "x")).with_latest("m", 1.0, {"/run/m", "./m"})
    assert named == State("m", ("x", "m"))


def test_times_stay_sorted():
    found = READ.with_latest("m-4", 5.0)
    assert found.all_model_checkpoint_timestamps[-1] == 1700000600.0


@pytest.mark.parametrize(
    "state",
    [
        State("a", ("a",)),
        State("a", ("a",), (1.0, 2.0)),
        State("b", ("a",), (1.0,)),
        State(),
    ],
)
def test_there_are_times_only_where_all_have_one(state):
    found = state.with_latest("c", 9.0)
    assert found.all_model_checkpoint_paths[-1] == "c"
    assert found.all_model_checkpoint_timestamps == ()


def test_a_latest_that_the_list_lacks_gets_into_it():
    assert State("b", ("a",)).with_latest("c", 0.0).all_model_checkpoint_paths == ("a", "b", "c")


def test_what_is_not_known_stays():
    assert State("a", others=("x: 1",)).with_latest("b", 0.0).others == ("x: 1",)
