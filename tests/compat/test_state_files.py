"""State files: as TensorFlow writes and reads them."""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ckptkit
from ckptkit import CorruptError
from ckptkit.formats.tensorflow.state import State, parse, read_state
from ckptkit.tf import latest_checkpoint
from tests.unit.formats.test_state import same, states

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def text_format(tf):
    """What TensorFlow reads and writes state files with."""
    from google.protobuf import text_format

    return text_format


def message(tf, state):
    return tf.compat.v1.train.generate_checkpoint_state_proto.__globals__["CheckpointState"](
        model_checkpoint_path=state.model_checkpoint_path,
        all_model_checkpoint_paths=state.all_model_checkpoint_paths,
        all_model_checkpoint_timestamps=state.all_model_checkpoint_timestamps,
        last_preserved_timestamp=state.last_preserved_timestamp,
    )


def from_message(found, others=()):
    return State(
        found.model_checkpoint_path,
        tuple(found.all_model_checkpoint_paths),
        tuple(found.all_model_checkpoint_timestamps),
        found.last_preserved_timestamp,
        others,
    )


@given(states)
def test_the_same_bytes_are_written_for_the_same_values(tf, text_format, state):
    written = text_format.MessageToString(message(tf, state)).encode()
    assert state.render() == written
    assert same(parse(written), state)


PARTS = st.sampled_from(
    [
        *("model_checkpoint_path", "all_model_checkpoint_paths", "last_preserved_timestamp"),
        *("all_model_checkpoint_timestamps", ":", ":", "[", "]", ",", ";", " ", "\n", "# so\n"),
        *('"m-1"', "'m 2'", '"\\303\\251"', '"é"', '"\\q\\?"', '"\\x4"', '"\\', '"', "\\", "{"),
        *("1", "-1.5f", "1e5", "inf", "-infinity", "nanf", "012", "+3", "-", ".5", "1_0", "0x1"),
        *("model_checkpoint_path: ", "last_preserved_timestamp: ", "all_model_checkpoint_paths:["),
        *('"\\n\\t\\"\\\'\\\\"', '"\\u00e9"', "'\\U0001F600'", '"\\ud800"', '"\\777"', '"\\xff"'),
    ]
)


@given(st.lists(PARTS, max_size=12).map("".join))
@example('model_checkpoint_path: "\\777"')
def test_what_tensorflow_takes_is_taken_and_nothing_else(tf, text_format, text):
    found = message(tf, State())
    try:
        with warnings.catch_warnings():
            # Python's codec, which decodes for it, minds octal escapes above a byte.
            warnings.simplefilter("ignore", DeprecationWarning)
            text_format.Merge(text, found)
    except text_format.ParseError:
        with suppress(CorruptError):
            # A field that there is none of, TensorFlow does not forgive.
            assert any(not one.startswith("#") for one in parse(text.encode()).others)
    else:
        state = parse(text.encode())
        assert all(one.startswith("#") for one in state.others)
        assert same(state, from_message(found, state.others))


# --- what writes them --------------------------------------------------------------------------


def rewritten(folder):
    """Return a state that was read; what it writes is what was there."""
    state = read_state(str(folder / "checkpoint"))
    assert state.render() == (folder / "checkpoint").read_bytes()
    return state


def test_a_manager_writes_what_we_would(tf, tmp_path):
    checkpoint = tf.train.Checkpoint(v=tf.Variable(1.0))
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=2)
    for _ in range(3):
        manager.save()
    state = rewritten(tmp_path)
    assert state.all_model_checkpoint_paths == ("ckpt-2", "ckpt-3")
    assert state.is_dated
    assert state.last_preserved_timestamp > 0
    assert (
        latest_checkpoint(str(tmp_path))
        == tf.train.latest_checkpoint(str(tmp_path))
        == manager.checkpoints[1]
    )


def test_saving_a_checkpoint_writes_what_we_would(tf, tmp_path, monkeypatch):
    checkpoint = tf.train.Checkpoint(v=tf.Variable(1.0))
    checkpoint.save(str(tmp_path / "é 'x\""))
    assert rewritten(tmp_path).model_checkpoint_path == "é 'x\"-1"
    monkeypatch.chdir(tmp_path)
    for folder in (".", "", str(tmp_path)):
        assert latest_checkpoint(folder) == tf.train.latest_checkpoint(folder)


@pytest.mark.parametrize("relative", [False, True])
def test_the_first_saver_writes_what_we_would(tf, tmp_path, relative):
    saved_by_v1(tf, tmp_path / "m", save_relative_paths=relative)
    state = rewritten(tmp_path)
    assert state.model_checkpoint_path == ("m-2" if relative else str(tmp_path / "m-2"))
    assert len(state.all_model_checkpoint_paths) == 2
    assert latest_checkpoint(str(tmp_path)) == tf.train.latest_checkpoint(str(tmp_path))


def saved_by_v1(tf, path, **options):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("w", initializer=[1.0, 2.0], use_resource=True)
        saver = tf.compat.v1.train.Saver(**options)
        session.run(tf.compat.v1.global_variables_initializer())
        for step in (1, 2):
            saver.save(session, str(path), global_step=step, write_meta_graph=False)


@given(states.filter(lambda state: state.model_checkpoint_path))
def test_updating_a_state_writes_what_we_would(tf, fresh, unsynced, state):
    folder = fresh()
    times = state.all_model_checkpoint_timestamps
    paths = state.all_model_checkpoint_paths[: len(times)]
    if paths[-1:] != (state.model_checkpoint_path,):
        paths = (*paths, state.model_checkpoint_path)
    times = times if len(times) == len(paths) else ()
    tf.__internal__.train.update_checkpoint_state(
        str(folder),
        state.model_checkpoint_path,
        list(paths),
        all_model_checkpoint_timestamps=list(times) or None,
        last_preserved_timestamp=state.last_preserved_timestamp,
    )
    expected = State(state.model_checkpoint_path, paths, times, state.last_preserved_timestamp)
    assert (folder / "checkpoint").read_bytes() == expected.render()


# --- what reads them ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        'model_checkpoint_path: "m"',
        "model_checkpoint_path: 'gone'",
        'model_checkpoint_path: ""',
        "",
        "nonsense",
        "model_checkpoint_path: m",
        'model_checkpoint_path: "first"',
        'model_checkpoint_path: "sub/../m"',
        'model_checkpoint_path: "{}/m" all_model_checkpoint_paths: "x"',
    ],
)
def test_the_latest_is_what_tensorflow_says(tf, tmp_path, text):
    (tmp_path / "m.index").write_bytes(b"")
    (tmp_path / "first").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "checkpoint").write_text(text.format(tmp_path))
    try:
        expected = tf.train.latest_checkpoint(str(tmp_path))
    except ValueError:
        with pytest.raises(ValueError, match="Invalid checkpoint state"):
            latest_checkpoint(str(tmp_path))
    else:
        assert latest_checkpoint(str(tmp_path)) == expected


# --- what we write, and TensorFlow reads ---------------------------------------------------------


def restored(tf, folder):
    variable = tf.Variable(0.0)
    path = tf.train.latest_checkpoint(str(folder))
    tf.train.Checkpoint(v=variable).restore(path).assert_consumed()
    return variable.numpy().item()


def managed(tf, folder, **options):
    variable = tf.Variable(1.0)
    options = {"max_to_keep": 3, **options}
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=variable), str(folder), **options)
    return variable, manager


def test_what_is_registered_is_the_latest(tf, tmp_path):
    variable, manager = managed(tf, tmp_path)
    manager.save()
    variable.assign(2.0)
    manager.save()
    path = tmp_path / "edited"
    with ckptkit.open(tmp_path) as found:
        found.edit("v/.ATTRIBUTES/VARIABLE_VALUE *= 5").plan(path).run()
    assert restored(tf, tmp_path) == 2.0
    ckptkit.register(path)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(path)
    assert restored(tf, tmp_path) == 10.0
    ckptkit.register(tmp_path / "ckpt-1")
    assert restored(tf, tmp_path) == 1.0


def test_a_manager_goes_on_with_what_was_registered(tf, tmp_path):
    _, manager = managed(tf, tmp_path)
    manager.save()
    with ckptkit.open(tmp_path) as found:
        found.edit("v/.ATTRIBUTES/VARIABLE_VALUE = 7").plan(tmp_path / "edited").run()
    ckptkit.register(tmp_path / "edited")
    variable, manager = managed(tf, tmp_path, max_to_keep=2)
    assert manager.checkpoints == [str(tmp_path / "ckpt-1"), str(tmp_path / "edited")]
    assert manager.restore_or_initialize() == str(tmp_path / "edited")
    assert variable.numpy() == 7.0
    manager.save(checkpoint_number=9)
    assert [one.path for one in ckptkit.checkpoints(tmp_path)] == [
        str(tmp_path / "edited"),
        str(tmp_path / "ckpt-9"),
    ]


@pytest.mark.parametrize("both", [False, True])
def test_a_folder_of_the_first_saver_is_repaired_after_a_move(tf, tmp_path, both):
    saved_by_v1(tf, tmp_path / "old" / "m")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    if not both:
        shutil.rmtree(tmp_path / "old")
    # With the old folder still there, TensorFlow would take what lies in that one.
    expected = str(tmp_path / "old" / "m-2") if both else None
    assert tf.train.latest_checkpoint(str(tmp_path / "new")) == expected
    with pytest.raises(CorruptError, match="ckptkit register --repair"):
        ckptkit.open(tmp_path / "new")
    ckptkit.repair_state(tmp_path / "new")
    assert tf.train.latest_checkpoint(str(tmp_path / "new")) == str(tmp_path / "new" / "m-2")
    assert tf.train.get_checkpoint_state(str(tmp_path / "new")).all_model_checkpoint_paths == [
        str(tmp_path / "new" / "m-1"),
        str(tmp_path / "new" / "m-2"),
    ]
    assert ckptkit.open(tmp_path / "new")["w"].read().tolist() == [1.0, 2.0]
    shutil.move(tmp_path / "new", tmp_path / "newer")
    assert tf.train.latest_checkpoint(str(tmp_path / "newer")) == str(tmp_path / "newer" / "m-2")


@pytest.mark.parametrize("sharded", [False, True])
def test_checkpoints_of_the_first_format_are_registered(tf, tmp_path, sharded):
    path = tmp_path / "old" / "m"
    path.parent.mkdir()
    saved_by_v1(tf, path, write_version=tf.compat.v1.train.SaverDef.V1, sharded=sharded)
    end = "-?????-of-00001" if sharded else ""
    assert rewritten(tmp_path / "old").model_checkpoint_path == f"{path}-2{end}"
    found = ckptkit.checkpoints(tmp_path / "old")
    assert [one.path for one in found] == [f"{path}-1{end}", f"{path}-2{end}"]
    assert [(one.format, one.tensors, one.error) for one in found] == [
        ("tensorflow-v1", 1, None)
    ] * 2
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert {one.error for one in ckptkit.checkpoints(tmp_path / "new")} == {
        "registered, but not in this folder",
        None,
    }
    assert ckptkit.repair_state(tmp_path / "new").latest == f"m-2{end}"
    ckptkit.register(f"{tmp_path}/new/m-1{end}")
    assert rewritten(tmp_path / "new").all_model_checkpoint_paths == (f"m-2{end}", f"m-1{end}")
    expected = str(tmp_path / f"new/m-1{end}")
    assert tf.train.latest_checkpoint(str(tmp_path / "new")) == expected
    assert latest_checkpoint(str(tmp_path / "new")) == expected
    with ckptkit.open(tmp_path / "new") as found:
        assert found["w"].read().tolist() == [1.0, 2.0]
