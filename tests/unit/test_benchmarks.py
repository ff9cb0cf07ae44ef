"""The harness of the benchmarks: what it measures, how it judges, and that it cleans up."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import jobs, keras_editor, keras_files, keras_ls, keras_rename, pipeline, prune
from benchmarks.data import SCALES, Inputs, files, kernel, trained
from benchmarks.measure import Apart, BenchmarkError, call_apart, measure, peak_memory
from benchmarks.report import Result, summary, table, write_json
from benchmarks.trial import (
    MIB,
    Contender,
    Extra,
    Outcome,
    Sample,
    Trial,
    counts,
    faster,
    moves,
    peaks,
    takes,
    within,
)

MAKERS = (
    "large",
    "working",
    "trained",
    "many",
    "vectors",
    "variables",
    "sliced",
    "matrix",
    "square",
    "tiny",
    "keras_weights",
    "keras_model",
)
"""The inputs, which take a while to be made."""


def sleeper(log, name, seconds):
    def job():
        with open(log, "a") as file:
            file.write(f"{name}\n")
        time.sleep(seconds)
        return Extra(laps={"half": seconds / 2}, facts={"things": 3})

    return job


def writer(path, nbytes):
    def job():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as file:
            file.write(bytes(nbytes))

    return job


def hog(mib):
    return lambda: bytearray(os.urandom(1) * (mib * MIB))


def lengthener(path):
    def job():
        with open(path, "a") as file:
            file.write("x")

    return job


def expect(path, content):
    with open(path) as file:
        assert file.read() == content


def empty(path):
    os.truncate(path, 0)


def contents(prefix):
    return [Path(path).read_bytes() for path in files(prefix)]


def refuse():
    msg = "the values are wrong"
    raise ValueError(msg)


def noop():
    return lambda: None


def fail():
    return refuse


def die():
    return partial(os._exit, 7)


def run(*contenders, repeats=2, **fields):
    trial = Trial("a trial", contenders, (), **fields)
    with Apart() as checker:
        found = measure(trial, repeats, checker, lambda text: None)
    return {outcome.name: outcome for outcome in found}


def outcome(name, seconds, peak=0, resting=0, things=0):
    extra = Extra(facts={"things": things})
    return Outcome(name, resting, tuple(Sample(s, peak, extra) for s in seconds))


def test_contenders_take_turns_after_a_warm_up(tmp_path):
    log = tmp_path / "log"
    found = run(
        *(Contender(name, partial(sleeper, str(log), name, 0.01)) for name in "ab"),
        Contender("once", partial(sleeper, str(log), "once", 0.01), most=1),
        loops=2,
    )
    assert log.read_text().split() == ["a", "b", "once", "a", "b", "a", "b"]
    assert [len(found[name].samples) for name in ("a", "b", "once")] == [2, 2, 1]
    assert 0.005 <= found["a"].seconds < 0.5
    assert found["a"].lap("half") == 0.0025
    assert found["a"].fact("things") == 3


def test_outputs_are_removed_between_samples_and_in_the_end(tmp_path):
    path = tmp_path / "out" / "file"
    run(Contender("writer", partial(writer, str(path), 10), makes=str(path)))
    assert not path.exists()


def test_what_a_job_did_to_its_input_is_taken_back_after_the_check(tmp_path):
    path = tmp_path / "file"
    path.touch()
    lengthened = Contender(
        "lengthener",
        partial(lengthener, str(path)),
        check=partial(expect, str(path), "x"),
        after=partial(empty, str(path)),
    )
    reader = Contender("reader", noop, check=partial(expect, str(path), ""))
    run(lengthened, reader)
    assert path.read_text() == ""


def test_peak_memory_is_that_of_the_contender_alone():
    held = bytearray(b"x" * (200 * MIB))
    found = run(Contender("small", noop), Contender("large", partial(hog, 100)))
    assert len(held) > found["small"].peak
    grown = found["large"].peak - found["large"].resting
    assert 95 * MIB < grown < 250 * MIB
    assert call_apart(peak_memory) < 100 * MIB


def test_a_wrong_result_a_failure_and_a_death_are_errors(tmp_path):
    with pytest.raises(BenchmarkError, match="the values are wrong"):
        run(Contender("wrong", noop, check=refuse))
    with pytest.raises(BenchmarkError, match="the values are wrong"):
        run(Contender("failing", fail))
    with pytest.raises(BenchmarkError, match="status 7"):
        run(Contender("dying", die))


def test_targets_judge_medians():
    found = {
        "ours": outcome("ours", [1, 2, 9], peak=500 * MIB, things=1),
        "theirs": outcome("theirs", [20], resting=450 * MIB),
    }
    figures = [
        (faster("ours", "theirs", 10), 10, True),
        (faster("ours", "theirs", 11), 10, False),
        (within("theirs", "ours", 9.9), 10, False),
        (takes("ours", 2000), 2000, True),
        (peaks("ours", 499), 500, False),
        (peaks("ours", 50, above="theirs"), 50, True),
        (counts("ours", "things", 0), 1, False),
        (moves("ours", "things", 1), 1 / MIB, True),
    ]
    for target, value, met in figures:
        assert target.figure(found) == value
        assert target.met(value) is met
        assert (target.headroom(value) >= 1) is met


def test_the_report_marks_what_is_missed_and_keeps_all_samples(tmp_path):
    trial = Trial(
        "a job",
        (),
        (faster("ours", "theirs", 3), faster("ours", "theirs", 30)),
        nbytes=10**9,
        floor="ours",
        incumbent="theirs",
    )
    result = Result("job", trial, (outcome("ours", [1, 2, 3]), outcome("theirs", [20])))
    lines = table(result).splitlines()
    assert lines[2].split() == ["ours", "2.00", "s", "1.00", "s", "-", "3.00", "s",
                                "0.50", "1", "0.1", "0"]  # fmt: skip
    assert lines[-2].endswith("10 x (>= 3 x) met")
    assert lines[-1].endswith("10 x (>= 30 x) MISSED")
    assert summary([result], []) == "1 of 2 targets met, 1 MISSED"
    path = write_json(str(tmp_path), "job", "small", {"cores": "2"}, [result])
    with open(path) as file:
        content = json.load(file)
    ours = content["trials"][0]["contenders"][0]
    assert [sample["seconds"] for sample in ours["samples"]] == [1, 2, 3]


@pytest.mark.parametrize("name", command.NAMES)
def test_every_benchmark_says_who_runs_and_what_is_promised(name, tmp_path, monkeypatch):
    for maker in MAKERS:
        monkeypatch.setattr(Inputs, maker, lambda self, *_: str(tmp_path / "model"))
    inputs = Inputs(str(tmp_path), SCALES["small"])
    for trial in importlib.import_module(f"benchmarks.{name}").trials(inputs):
        names = {contender.name for contender in trial.contenders}
        extra = Extra(facts=defaultdict(float))
        found = {name: Outcome(name, 0, (Sample(1, MIB, extra),)) for name in names}
        assert {trial.floor, trial.incumbent} - {None} <= names
        assert trial.targets
        for target in trial.targets:
            assert isinstance(target.figure(found), float)


def test_inputs_are_what_they_say(tmp_path):
    import ckptkit

    scale = SCALES["small"]
    inputs = Inputs(str(tmp_path), scale)
    with ckptkit.open(inputs.large()) as large:
        assert len(large) == scale.tensors
        assert sum(tensor.nbytes for tensor in large.values()) == inputs.large_bytes
        assert len({tensor.read().tobytes() for tensor in large.values()}) == scale.tensors
    with ckptkit.open(inputs.tiny()) as tiny:
        assert len(tiny) == 20
    with ckptkit.open(inputs.vectors()) as vectors:
        assert len(vectors) == scale.vectors
        assert {tensor.nbytes for tensor in vectors.values()} == {64}


def test_a_copy_that_was_edited_in_place_is_as_before_when_it_is_cut_back(tmp_path):
    inputs = Inputs(str(tmp_path), SCALES["small"])
    large, working = inputs.large(), inputs.working()
    before = contents(working)
    assert contents(large) == before
    extra = jobs.edit(working, None, f"{kernel(1)} *= 0.5", how="append")()
    assert extra.facts[jobs.WRITTEN] > SCALES["small"].tensor_bytes
    assert contents(working) != before
    jobs.cut_back(large, working)
    assert contents(working) == before


def test_two_thirds_of_a_checkpoint_in_training_are_the_optimizer_s(tmp_path):
    import ckptkit

    scale = SCALES["small"]
    inputs = Inputs(str(tmp_path), scale)
    with ckptkit.open(inputs.trained()) as checkpoint:
        assert set(checkpoint) == set(map(trained, range(scale.tensors)))
        dropped = [name for name in checkpoint if "/Adam/" in name]
    assert 2 / 3 <= len(dropped) / scale.tensors < 3 / 4


@pytest.mark.parametrize("statement", ["embedding[100, :1024] *= {}", "embedding[:, 1] *= {}"])
def test_a_patch_is_taken_back_to_the_byte(statement, tmp_path):
    inputs = Inputs(str(tmp_path), SCALES["small"])
    prefix = inputs.matrix(4 * MIB)
    before = contents(prefix)
    extra = jobs.edit(prefix, None, statement.format(0.5), how="patch")()
    assert extra.facts[jobs.READ] < 8192
    assert contents(prefix) != before
    jobs.patch(prefix, statement.format(2))
    assert contents(prefix) == before


def test_keras_files_are_what_they_say_and_edits_of_them_are_taken_back(tmp_path):
    import ckptkit

    inputs = Inputs(str(tmp_path), SCALES["small"])
    model, weights = inputs.keras_model(), inputs.keras_weights()
    for path in (model, weights):
        with ckptkit.open(path) as checkpoint:
            assert dict(checkpoint.shapes()) == keras_files.shapes(SCALES["small"].units)
            assert checkpoint.verify().ok
    before = Path(model).read_bytes()
    kernel = keras_files.kernel(keras_files.EDITED)
    jobs.patch(model, f"{kernel} *= 0.5")
    keras_files.check_archive(model, 0.5)
    with pytest.raises(ValueError, match="not what they should be: dense_3"):
        keras_files.check_archive(model, 1)
    jobs.patch(model, f"{kernel} *= 2")
    assert Path(model).read_bytes() == before
    keras_editor.multiply_dataset(weights, kernel, 0.5)
    keras_files.check_weights(weights, 0.5)


def test_groups_are_renamed_alike_by_all(tmp_path):
    inputs = Inputs(str(tmp_path), SCALES["small"])
    weights = inputs.keras_weights()
    names = {**keras_files.NAMES, **keras_rename.RENAMED}
    moves = [
        (f"layers/{keras_files.NAMES[at]}", f"layers/{name}")
        for at, name in keras_rename.RENAMED.items()
    ]
    jobs.patch(weights, *map(keras_rename.statement, moves))
    keras_files.check_weights(weights, names=names)
    with pytest.raises(ValueError, match="decoder, dense_2, dense_5, encoder"):
        keras_files.check_weights(weights)
    keras_editor.move_groups(weights, [(new, old) for old, new in moves])
    keras_files.check_weights(weights)


def read_some(path, nbytes):
    def job():
        with open(path, "rb", buffering=0) as file:
            return file.read(nbytes)

    return job


def test_bytes_that_are_read_are_counted_exactly(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))
    for nbytes in (0, 1, 9999):
        job = keras_ls.counted(partial(read_some, path, nbytes))
        assert [job().facts[jobs.READ] for _ in range(3)] == [nbytes] * 3


def test_a_listing_of_a_keras_file_reads_no_more_than_its_metadata(tmp_path):
    import ckptkit

    inputs = Inputs(str(tmp_path), SCALES["small"])
    model = inputs.keras_model()
    keras_ls.check(model, SCALES["small"].units)
    job = keras_ls.counted(partial(keras_ls.list_all, model))
    assert job().facts[jobs.READ] <= keras_files.OBJECTS * keras_ls.PAGE
    with ckptkit.open(model) as checkpoint:
        assert len(checkpoint) == 2 * keras_files.LAYERS


@pytest.mark.tensorflow
def test_what_the_editor_of_keras_saves_is_what_we_patch(tmp_path):
    from keras.saving import load_model

    inputs = Inputs(str(tmp_path), SCALES["small"])
    model = inputs.keras_model()
    saved = tmp_path / "out" / "model.weights.h5"
    change = partial(keras_editor.multiply, path=keras_files.kernel(keras_files.EDITED), factor=0.5)
    extra = keras_editor.saver(model, str(saved), change)()
    assert extra.laps[jobs.UNSYNCED] > 0
    keras_files.check_weights(str(saved), 0.5)
    layers = load_model(model).layers
    assert {at: layer.name for at, layer in enumerate(layers)} == keras_files.NAMES


def test_a_stage_alone_moves_every_byte_whatever_is_left_at_the_end(tmp_path):
    nbytes = 2 * pipeline.CHUNK + 100
    path = tmp_path / "out" / "file"
    pipeline.write(str(path), nbytes)()
    written = path.read_bytes()
    assert len(written) == nbytes
    assert np.frombuffer(written, np.float32).tolist() == [1] * (nbytes // 4)
    calls = []
    pipeline._each(lambda pair, start: calls.append((pair, start)), [("a",), ("b",)], nbytes)
    assert sorted(start for _, start in calls) == [0, pipeline.CHUNK, 2 * pipeline.CHUNK]


@pytest.mark.tensorflow
def test_results_that_are_not_exact_are_found(tmp_path):
    import ckptkit

    source = str(tmp_path / "source")
    ckptkit.save(source, {kernel(0): np.arange(1, 9, dtype=np.float32)})
    for number, statement in enumerate(["prune ** -> 50%", "prune ** -> 25%"]):
        target = str(tmp_path / f"pruned-{number}")
        jobs.edit(source, target, statement)()
    prune.check(source, str(tmp_path / "pruned-0"))
    with pytest.raises(ValueError, match="2 of 8 elements are below 3"):
        prune.check(source, str(tmp_path / "pruned-1"))
    jobs.edit(source, str(tmp_path / "half"), "** *= 0.5")()
    jobs.check_values(source, str(tmp_path / "half"), [(kernel(0), 0.5)], 1)
    with pytest.raises(ValueError, match="not what was to be made"):
        jobs.check_values(source, str(tmp_path / "half"), [(kernel(0), 0.25)], 1)


def test_the_list_names_every_benchmark(capsys):
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(command.NAMES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cleans_up(tmp_path, number):
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    arguments = ["open_many", "--scale", "small", "--dir", str(work), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments], stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 30
    while not any(work.glob("*/many-small")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert not list(work.iterdir())
