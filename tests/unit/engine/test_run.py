"""Running plans: executors, threads and chunks all give the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ckptkit
from ckptkit import EditError
from ckptkit.engine import program, queue, run, work
from tests.golden.handmade import Bundle, grid

EDITS = (
    "layer/* *= 0.5",
    'layer/3[1, :] = t("row")',
    "cast layer/1 -> bfloat16",
    "sliced += 1",
    "sliced[2:5] *= x",
    "drop gone",
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Make many steps of little work."""
    monkeypatch.setattr(run, "MAX_CHUNK", 1000)
    monkeypatch.setattr(queue, "COPY", 2000)
    monkeypatch.setattr(work, "COPY", 2000)
    monkeypatch.setattr(program, "BLOCK", 700)


@pytest.fixture
def source(tmp_path):
    """A bundle of two shards: dense layers, slices, text."""
    rng, bundle = np.random.default_rng(5), Bundle(2)
    for number in range(5):
        values = rng.standard_normal((17, 40 + number), np.float32)
        bundle.add(f"layer/{number}".encode(), values, shard=number % 2)
    bundle.add(b"row", rng.standard_normal(43).astype(np.float32))
    bundle.add(b"gone", np.zeros(3000))
    bundle.add(b"kept", np.arange(5000), shard=1)
    whole = rng.standard_normal((9, 11))
    bundle.add_slices(b"sliced", whole, grid((9, 11), [[4], [3]]), shards=(0, 1))
    bundle.add(b"text", np.array([b"a", b"bb"], object))
    with ckptkit.open(bundle.write(tmp_path / "m")) as found:
        yield found


def contents(prefix):
    folder, name = os.path.split(prefix)
    found = sorted(file for file in os.listdir(folder) if file.startswith(f"{name}."))
    return [Path(folder, file).read_bytes() for file in found]


@pytest.fixture
def expected(source, tmp_path):
    """The bytes that everybody has to give."""
    source.edit(*EDITS).plan(tmp_path / "expected").run(device="numpy")
    return contents(tmp_path / "expected")


class Pickling(Executor):
    """Runs a job at once, after a trip through pickle, as if on another machine."""

    def submit(self, function, /, *args):
        future: Future = Future()
        try:
            copied = pickle.loads(pickle.dumps((function, args)))  # noqa: S301
            result = copied[0](*copied[1])
            future.set_result(pickle.loads(pickle.dumps(result)))  # noqa: S301
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_of_our_own(source, expected, tmp_path, monkeypatch, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(threads)))
    source.edit(*EDITS).plan(tmp_path / "n").run(device="numpy")
    assert contents(tmp_path / "n") == expected


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_of_the_caller(source, expected, tmp_path, threads):
    with ThreadPoolExecutor(threads) as executor:
        plan = source.edit(*EDITS).plan(tmp_path / "n")
        plan.run(device="numpy", executor=executor)
        assert executor.submit(int, "7").result() == 7
    assert contents(tmp_path / "n") == expected


def test_processes(source, expected, tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        plan = source.edit(*EDITS).plan(tmp_path / "n")
        report = plan.run(device="numpy", executor=executor)
    assert contents(tmp_path / "n") == expected
    assert (report.bytes_read, report.bytes_written) == (plan.bytes_read, plan.bytes_written)


def test_steps_and_results_survive_pickling(source, expected, tmp_path):
    source.edit(*EDITS).plan(tmp_path / "n").run(device="numpy", executor=Pickling())
    assert contents(tmp_path / "n") == expected


@pytest.mark.parametrize("memory", [32 << 20, 1 << 30])
def test_any_memory(source, expected, tmp_path, memory):
    source.edit(*EDITS).plan(tmp_path / "n").run(device="numpy", memory=memory)
    assert contents(tmp_path / "n") == expected


def test_too_little_memory_is_refused(source, tmp_path):
    with pytest.raises(EditError, match="bytes of memory are too few"):
        source.edit(*EDITS).plan(tmp_path / "n").run(memory=1000)
    assert not list(tmp_path.glob("n.*"))


def test_progress_rises_to_the_whole(source, tmp_path):
    seen = []
    plan = source.edit(*EDITS).plan(tmp_path / "n")
    plan.run(device="numpy", progress=lambda done, total: seen.append((done, total)))
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}
    assert len(seen) > 20


def test_an_error_in_a_step_stops_the_run_and_leaves_nothing(source, tmp_path):
    def broken(_):
        msg = "the function of the user fails"
        raise ValueError(msg)

    before = sorted(os.listdir(tmp_path))
    plan = source.edit(ckptkit.Map("layer/*", broken)).plan(tmp_path / "n")
    with pytest.raises(ValueError, match="of the user fails"):
        plan.run(device="numpy")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_plan_runs_once_and_then_the_destination_exists(source, tmp_path):
    plan = source.edit(*EDITS).plan(tmp_path / "n")
    plan.run(device="numpy")
    with pytest.raises(ckptkit.CkptError):
        plan.run(device="numpy")
    assert ckptkit.open(tmp_path / "n")["kept"].read().sum() == np.arange(5000).sum()


def test_nothing_stays_in_the_table_of_workers(source, tmp_path):
    before = dict(run._WORKERS)
    source.edit(*EDITS).plan(tmp_path / "n").run(device="numpy")
    assert before == run._WORKERS


def test_a_region_of_one_slice_reads_only_what_it_touches(source, tmp_path):
    """The other slices are carried over, and so need not be checked."""
    plan = source.edit("sliced[0, 0] = 1").plan(tmp_path / "n")
    assert plan.bytes_read <= 4 * 3 * 8
    assert not plan.work.checks
    plan.run(device="numpy")


def test_an_edit_of_one_tensor_reads_only_that_tensor(source, tmp_path):
    plan = source.edit("layer/2 *= 2").plan(tmp_path / "n")
    assert plan.bytes_read == plan.bytes_computed == source["layer/2"].nbytes


def test_other_tensors_are_checked_once_where_blocks_read_parts_of_them(source, tmp_path):
    plan = source.edit('layer/3[1:4] = t("row")', 'layer/3[6] += t("row")').plan(tmp_path / "n")
    assert [check.piece.extent.length for check in plan.work.checks] == [source["row"].nbytes]
