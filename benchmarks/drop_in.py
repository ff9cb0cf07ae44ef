"""drop_in: list variables, load each of them, by TensorFlow's names for that."""

from __future__ import annotations

import importlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks import jobs
from benchmarks.cold_start import program
from benchmarks.trial import Contender, Extra, Job, Trial, faster

if TYPE_CHECKING:
    from benchmarks.data import Inputs

OURS: Final = "ckptkit.tf"
THEIRS: Final = "tensorflow"
READER: Final = "one reader"
LISTED: Final = "listed"
"""The lap of a job after which names and shapes are there."""

SCRIPT: Final = """
import sys
{imports}
name, _ = train.list_variables(sys.argv[1])[0]
train.load_variable(sys.argv[1], name)
"""
IMPORTS: Final = {
    OURS: "import ckptkit.tf as train",
    THEIRS: "import tensorflow as tf; train = tf.train",
}


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    prefix, count = inputs.variables(), inputs.scale.variables
    return [_warm(prefix, count), _reader(prefix, count), _cold(prefix, count)]


def _warm(prefix: str, count: int) -> Trial:
    return Trial(
        f"list_variables, then load_variable of each of {count:,} tensors",
        (
            Contender(OURS, partial(load_each, OURS, prefix), check=partial(check, prefix)),
            Contender(THEIRS, partial(load_each, THEIRS, prefix), most=1),
        ),
        (faster(OURS, THEIRS, 3),),
        incumbent=THEIRS,
        notes=("load_variable opens a checkpoint with every call; TensorFlow is imported before.",),
    )


def _reader(prefix: str, count: int) -> Trial:
    ours, theirs = f"{OURS}, {READER}", f"{THEIRS}, {READER}"
    return Trial(
        f"load_checkpoint, then get_tensor of each of {count:,} tensors",
        (
            Contender(ours, partial(get_each, OURS, prefix)),
            Contender(theirs, partial(get_each, THEIRS, prefix)),
        ),
        (faster(ours, theirs, 1),),
        incumbent=theirs,
        rounds=4,
        notes=("The index is one that was read before, as in the trial above.",),
    )


def _cold(prefix: str, count: int) -> Trial:
    ours, theirs = (f"{name}, whole process" for name in (OURS, THEIRS))
    scripts = {name: SCRIPT.format(imports=text) for name, text in IMPORTS.items()}
    return Trial(
        f"import, list_variables of {count:,} tensors, load_variable of one, whole process",
        (
            Contender(ours, partial(program, ["-c", scripts[OURS], prefix]), outside=True),
            Contender(theirs, partial(program, ["-c", scripts[THEIRS], prefix]), outside=True),
            Contender("import numpy", partial(program, ["-c", "import numpy"]), outside=True),
        ),
        (faster(ours, theirs, 3),),
        floor="import numpy",
        incumbent=theirs,
    )


def functions(who: str) -> Any:
    """Return the module that has the functions."""
    return importlib.import_module("ckptkit.tf") if who == OURS else jobs.tensorflow().train


def load_each(who: str, prefix: str) -> Job:
    """Return listing variables, and loading them one by one."""
    train = functions(who)

    def job() -> Extra:
        began = time.perf_counter()
        names = [name for name, _ in train.list_variables(prefix)]
        listed = time.perf_counter() - began
        for name in names:
            train.load_variable(prefix, name)
        return Extra(laps={LISTED: listed})

    return job


def get_each(who: str, prefix: str) -> Job:
    """Return the same with one reader."""
    train = functions(who)

    def job() -> None:
        reader = train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)

    return job


def check(prefix: str) -> None:
    """See that both give the same, to the order of the map and the bits of the values.

    Raises:
        ValueError: They do not.
    """
    ours, theirs = functions(OURS), functions(THEIRS)
    one, other = ours.load_checkpoint(prefix), theirs.load_checkpoint(prefix)
    names = list(one.get_variable_to_shape_map())
    values = ((one.get_tensor(name), other.get_tensor(name)) for name in names)
    agree = (
        ours.list_variables(prefix) == theirs.list_variables(prefix)
        and names == list(other.get_variable_to_shape_map())
        and all(mine.tobytes() == their.tobytes() for mine, their in values)
    )
    if not agree:
        msg = f"ckptkit.tf and TensorFlow read {prefix} differently"
        raise ValueError(msg)
