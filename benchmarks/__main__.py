"""``python -m benchmarks``: run benchmarks, print ratios and whether promises are kept."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NoReturn

from benchmarks.data import SCALES, Inputs
from benchmarks.machine import describe, sentence
from benchmarks.measure import Apart, BenchmarkError, measure
from benchmarks.plot import write_plot
from benchmarks.report import Result, summary, table, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES: Final = (
    "cold_start",
    "open_many",
    "rename_many",
    "read",
    "verify",
    "edit_one",
    "edit_all",
    "many_small",
    "cast_all",
    "normalise",
    "prune",
    "pipeline",
    "link_one",
    "append_one",
    "patch_column",
    "patch_slice",
    "drop_optimizer",
    "graph_rename",
    "keras_patch",
    "keras_copy",
    "keras_rename",
    "keras_ls",
    "drop_in",
)
"""The benchmarks, which are modules beside this one, in the order in which they run."""

INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for.

    Returns:
        0 when everything ran, whether or not targets are met; 1 when a benchmark failed.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        for name in NAMES:
            print(f"{name:<14}  {_first_line(name)}")
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted; everything is cleaned up", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME",
                        help="a benchmark; all by default")  # fmt: skip
    parser.add_argument("--scale", choices=SCALES, default="full", help="size of the inputs")
    parser.add_argument("--repeats", type=int, help="samples of each contender")
    parser.add_argument("--out", default="benchmarks/out", help="folder for JSON and plot")
    parser.add_argument("--dir", default=".", help="where to put inputs and outputs meanwhile")
    parser.add_argument("--keep", action="store_true", help="keep the inputs, and say where")
    parser.add_argument("--list", action="store_true", help="name the benchmarks")
    return parser


def _first_line(name: str) -> str:
    text = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
    return text.partition(": ")[2].partition("\n")[0]


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _run(options: argparse.Namespace) -> int:
    scale = SCALES[options.scale]
    machine = describe(options.dir)
    print(sentence(machine))
    if scale.name != "full":
        print(f"Inputs are {scale.name}; targets are meant for --scale full.")
    results: list[Result] = []
    failed: list[str] = []
    os.makedirs(options.out, exist_ok=True)
    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix=".benchmarks-", dir=options.dir)
        if not options.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        checker = stack.enter_context(Apart())
        inputs = Inputs(os.path.abspath(folder), scale)
        for name in options.names or NAMES:
            try:
                found = run_one(name, inputs, options.repeats or scale.repeats, checker)
            except BenchmarkError as error:
                _say("")
                print(f"\n{name}: FAILED\n{error}")
                failed.append(name)
                continue
            results += found
            write_json(options.out, name, scale.name, machine, found)
        if options.keep:
            print(f"\ninputs are kept in {folder}")
    _finish(options.out, sentence(machine), results, failed)
    return 1 if failed else 0


def run_one(name: str, inputs: Inputs, repeats: int, checker: Apart) -> list[Result]:
    """Run a benchmark, and print its tables.

    Raises:
        BenchmarkError: A contender failed, or gave a wrong result.
    """
    module = importlib.import_module(f"benchmarks.{name}")
    _say(f"{name}: making inputs")
    results = []
    for trial in module.trials(inputs):
        outcomes = measure(trial, repeats, checker, lambda text: _say(f"{name}: {text}"))
        results.append(Result(name, trial, outcomes))
        _say("")
        print(f"\n{table(results[-1])}", flush=True)
    return results


def _finish(out: str, title: str, results: Sequence[Result], failed: Sequence[str]) -> None:
    if results:
        plot = write_plot(out, title, results)
        print(f"\nJSON in {out}; {f'plot in {plot}' if plot else 'no plot without matplotlib'}")
    print(summary(results, failed))


def _say(text: str) -> None:
    """Show what runs now, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
