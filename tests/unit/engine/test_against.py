"""What two readers make of a checkpoint, with a witness that says what it is told to say."""

import numpy as np
import pytest

import ckptkit
from ckptkit.engine import against, witness
from ckptkit.engine.against import compare_readers
from tests.golden.handmade import Bundle, grid

LISTED = {"a": ["float32", [2]], "b": ["int64", []], "w": ["float16", [2, 2]]}


@pytest.fixture
def prefix(tmp_path):
    bundle = Bundle()
    bundle.add(b"a", np.float32([1, 2]))
    bundle.add(b"b", np.array(3, np.int64))
    bundle.add_slices(b"w", np.zeros((2, 2), np.float16), grid((2, 2), [[1], []]))
    return bundle.write(tmp_path / "m")


@pytest.fixture
def say(monkeypatch):
    """Have witnesses say things: the first one the first, and so on; tell where they began."""
    began = []

    def told(*witnesses):
        later = iter(witnesses)

        def lines(prefix, path, first):
            began.append((path != "", first))
            yield from next(later)

        monkeypatch.setattr(against, "lines", lines)
        return began

    return told


def about(*facts, listed=LISTED, first=0):
    """Return what a witness says that reads tensors one after another."""
    yield {"about": "open"}
    yield {"listed": listed}
    for at, fact in enumerate(facts, first):
        yield {"about": at}
        if fact is not None:
            yield fact


SAME = {"same": True}


def found(prefix, **options):
    agreement = compare_readers(prefix, **options)
    return agreement, [(one.severity, one.tensor, one.message) for one in agreement.problems]


def test_they_agree(prefix, say):
    began = say(about(SAME, SAME, SAME))
    steps = []
    agreement, problems = found(prefix, progress=lambda done, total: steps.append((done, total)))
    assert (agreement.ok, problems, agreement.notes) == (True, [], [])
    assert agreement.to_dict() == {"reader": "tensorflow", "tensors": 3, "bytes": 24}
    assert steps == [(8, 24), (16, 24), (24, 24)]
    assert began == [(True, 0)]


def test_values_differ(prefix, say):
    say(about(SAME, {"same": False}, SAME))
    agreement, problems = found(prefix)
    assert problems == [("error", "b", "TensorFlow reads other values")]
    assert (agreement.ok, agreement.tensors) == (False, 3)


def test_what_tensorflow_does_not_do_is_a_warning(prefix, say):
    text = "Dtype half not supported."
    say(about(SAME, {"theirs": "Data type not supported"}, {"theirs": text}))
    agreement, problems = found(prefix)
    assert agreement.ok
    assert problems == [
        ("warning", "b", "TensorFlow reads no tensors of this dtype: Data type not supported"),
        ("warning", "w", f"TensorFlow reads no tensors in slices of this dtype: {text}"),
    ]


def test_what_only_one_reads(prefix, say):
    say(about({"theirs": "Checksum does not match"}, {"ours": "it is damaged"}, SAME))
    agreement, problems = found(prefix)
    assert problems == [
        ("error", "a", "TensorFlow does not read it: Checksum does not match"),
        ("error", "b", "ckptkit does not read it: it is damaged"),
    ]
    assert agreement.tensors == 1


def test_lists_differ(prefix, say):
    listed = {"a": ["float64", [2]], "w": ["float16", [4]], "z": ["int8", []]}
    say(about(SAME, SAME, SAME, listed=listed))
    assert found(prefix)[1] == [
        ("error", "a", "it is float32[2], and TensorFlow says float64[2]"),
        ("error", "b", "TensorFlow does not list it"),
        ("error", "w", "it is float16[2, 2], and TensorFlow says float16[4]"),
        ("error", "z", "TensorFlow alone lists it"),
    ]


def test_names_that_it_cannot_list(prefix, say):
    say([{"about": "open"}, {"unlisted": True}, {"about": 0}, SAME])
    assert found(prefix)[1] == [("warning", None, "TensorFlow lists no names that are not UTF-8")]


def test_it_does_not_open(prefix, say):
    say([{"about": "open"}, {"refused": "too new"}])
    assert found(prefix)[1] == [("error", None, "TensorFlow does not open it: too new")]


def test_it_crashes_when_it_opens(prefix, say):
    say([{"about": "open"}, {"died": 6, "status": -6}])
    problem = ("error", None, "TensorFlow crashed (signal 6) when it opened the checkpoint")
    assert found(prefix)[1] == [problem]


def test_where_it_crashes_another_goes_on(prefix, say):
    crash = {"died": 11, "status": -11}
    began = say(about(SAME, crash), about(SAME, first=2))
    agreement, problems = found(prefix)
    assert problems == [("error", "b", "TensorFlow crashed (signal 11) when it read this tensor")]
    assert (agreement.tensors, began) == (2, [(True, 0), (True, 2)])


def test_where_it_crashes_at_the_last_nobody_goes_on(prefix, say):
    began = say(about(SAME, SAME, {"died": None, "status": 1}))
    problem = ("error", "w", "TensorFlow crashed (status 1) when it read this tensor")
    assert found(prefix)[1] == [problem]
    assert len(began) == 1


def test_after_some_crashes_it_is_asked_no_more(prefix, say, monkeypatch):
    monkeypatch.setattr(against, "CRASHES", 2)
    crash = {"died": 11, "status": -11}
    say(about(crash), about(crash, first=1))
    agreement, problems = found(prefix)
    assert [one[1] for one in problems] == ["a", "b"]
    assert agreement.notes == ["TensorFlow crashed 2 times; not compared: 1 tensor"]


@pytest.fixture
def damaged(prefix):
    with open(f"{prefix}.index", "r+b") as file:
        file.write(b"\xff")
    return prefix


def test_of_what_we_refuse_it_is_told_what_tensorflow_does(damaged, say):
    say([{"about": "open"}, {"refused": "bad block"}])
    agreement, problems = found(damaged)
    assert (problems, agreement.notes) == ([], ["TensorFlow refuses it as well: bad block"])
    began = say(about({"theirs": "no"}, {"died": 11, "status": -11}))
    agreement, problems = found(damaged)
    assert agreement.notes == ["TensorFlow opens what ckptkit refuses, and lists 3 tensors"]
    assert problems == [("error", "b", "TensorFlow crashed (signal 11) when it read this tensor")]
    assert began[-1] == (False, 0)
    say([{"about": "open"}, {"died": 6, "status": -6}])
    assert "when it opened the checkpoint" in found(damaged)[1][0][2]


def test_it_is_for_checkpoints_of_tensorflow(tmp_path):
    ckptkit.save(
        tmp_path / "m.weights.h5", {"layers/dense/vars/0": np.float32([1])}, format="keras"
    )
    with pytest.raises(ckptkit.UnsupportedError, match="reads no keras checkpoints"):
        compare_readers(tmp_path / "m.weights.h5")
    with pytest.raises(FileNotFoundError):
        compare_readers(tmp_path / "none")


def test_without_tensorflow_it_is_said_what_is_missing(prefix, monkeypatch, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ModuleNotFoundError(name='tensorflow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ckptkit.UnsupportedError, match=r"pip install ckptkit\[tensorflow\]"):
        [*witness.lines(prefix, prefix, 0)]


def test_no_module_beside_the_checkpoint_is_imported(prefix, monkeypatch, tmp_path):
    """Who looks at a stranger's checkpoint may well do so in its folder."""
    for name in ("tensorflow", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('canary', 'w')")
    away = tmp_path / "away"
    away.mkdir()
    (away / "tensorflow.py").write_text("raise ModuleNotFoundError(name='tensorflow')")
    monkeypatch.setenv("PYTHONPATH", str(away))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ckptkit.UnsupportedError, match="pip install"):
        [*witness.lines(prefix, prefix, 0)]
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("one", "other", "bits", "same"),
    [
        (np.float32([0.0]), np.float32([-0.0]), 32, False),
        (np.float32([np.nan]), np.float32([np.nan]), 32, True),
        (np.uint8([0xF3]), np.uint8([0x03]), 4, True),
        (np.uint8([0xF3]), np.uint8([0x02]), 4, False),
        (np.uint8([7, 0]), np.uint8([1, 0]), 1, True),
        (np.uint8([7]), np.uint8([0]), 1, False),
    ],
)
def test_bits_that_count(one, other, bits, same):
    assert (witness._bits(one, bits) == witness._bits(other, bits)) is same
