"""The three jobs that ckptkit was made for, on a small model, checked by TensorFlow itself.

A convolutional network is saved with TensorFlow, edited without it, and restored with it. What
the restored network predicts has to be what a network predicts whose variables were changed in
memory in the same way.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptkit.engine.device import import_tensorflow
from ckptkit.errors import EditError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.engine.plan import Plan, Report

    Array = NDArray[np.float32]

SEED: Final = 20
"""Of the weights and the pictures, so that every run shows the same."""

PICTURES: Final = (32, 16, 16, 1)
"""Shape of what the network looks at: 32 grey pictures of 16 by 16 points."""

CLASSES: Final = 10


@dataclass(frozen=True, slots=True)
class Job:
    """Something to change in a network, said twice: as edits, and to a model in memory.

    Attributes:
        title: What it does, in words.
        edits: Statements of the edit language.
        in_memory: The same for a model.
        folder: Where the result goes, within the folder of the demo.
    """

    title: str
    edits: tuple[str, ...]
    in_memory: Callable[[Any], None]
    folder: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: The job.
        command: The command line that does the same.
        plan: What was to be read and written.
        report: What was.
        moved: Largest absolute change of a prediction that the edit made.
        difference: Largest absolute difference to the predictions of the model in memory.
        equal: Whether all predictions have the same bits.
    """

    job: Job
    command: str
    plan: Plan
    report: Report
    moved: float
    difference: float
    equal: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome, ready for JSON."""
        return {
            "title": self.job.title,
            "edits": list(self.job.edits),
            "command": self.command,
            "plan": self.plan.to_dict(),
            "report": self.report.to_dict(),
            "predictions_moved": self.moved,
            "max_abs_difference": self.difference,
            "equal": self.equal,
        }


def jobs() -> tuple[Job, ...]:
    """Return the three jobs."""
    return (
        Job(
            "halve every kernel and bias of the dense layer",
            ("**/dense/** *= 0.5",),
            _halve_dense,
            "halved",
        ),
        Job(
            "add 0.01 to the first convolution",
            ("**/conv1/** += 0.01",),
            _raise_convolution,
            "raised",
        ),
        Job(
            "scale one output neuron by 1.5",
            ("**/dense/_kernel/**[:, 1] *= 1.5", "**/dense/bias/**[1] *= 1.5"),
            _scale_neuron,
            "scaled",
        ),
    )


def _halve_dense(model: Any) -> None:
    for variable in model.dense.weights:
        variable.assign(variable * 0.5)


def _raise_convolution(model: Any) -> None:
    for variable in model.conv1.weights:
        variable.assign(variable + 0.01)


def _scale_neuron(model: Any) -> None:
    for variable in model.dense.weights:
        values = variable.numpy()
        values[..., 1] *= 1.5
        variable.assign(values)


def make(folder: str) -> str:
    """Save the network in a folder, and return the prefix of the checkpoint.

    Raises:
        EditError: TensorFlow is not installed.
    """
    tf = _tensorflow()
    prefix = os.path.join(folder, "cnn", "model")
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    written: str = tf.train.Checkpoint(model=_network()).write(prefix)
    return written


def run(prefix: str, folder: str) -> Iterator[Outcome]:
    """Do the jobs, one by one, and compare each result with a model that is edited in memory.

    Args:
        prefix: The checkpoint that :func:`make` saved.
        folder: Where the results go.
    """
    import numpy as np

    import ckptkit

    pictures = np.random.default_rng(SEED).random(PICTURES, dtype=np.float32)
    before = _predict(_restored(prefix), pictures)
    for job in jobs():
        destination = os.path.join(folder, job.folder, "model")
        with ckptkit.open(prefix) as checkpoint:
            plan = checkpoint.edit(*job.edits).plan(destination)
        report = plan.run()
        model = _restored(prefix)
        job.in_memory(model)
        expected = _predict(model, pictures)
        found = _predict(_restored(destination), pictures)
        yield Outcome(
            job,
            _command(prefix, destination, job.edits),
            plan,
            report,
            moved=float(np.abs(found - before).max()),
            difference=float(np.abs(found - expected).max()),
            equal=bool(np.array_equal(found.view(np.uint32), expected.view(np.uint32))),
        )


def _command(prefix: str, destination: str, edits: tuple[str, ...]) -> str:
    options = [word for edit in edits for word in ("-e", edit)]
    return shlex.join(["ckptkit", "edit", prefix, destination, *options])


def _tensorflow() -> Any:
    # With oneDNN the same network may predict other last bits on another run.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if importlib.util.find_spec("tensorflow") is None:
        msg = "the demo compares with TensorFlow: pip install 'ckptkit[tensorflow]'"
        raise EditError(msg)
    return import_tensorflow()


def _network() -> Any:
    """Build the network: two convolutions, pooling, one dense layer."""
    tf = _tensorflow()
    keras = tf.keras
    keras.utils.set_random_seed(SEED)

    class Network(keras.Model):  # type: ignore[misc, name-defined]
        """Layers that are attributes give names that people can read."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1 = keras.layers.Conv2D(8, 3, activation="relu", bias_initializer="normal")
            self.conv2 = keras.layers.Conv2D(16, 3, activation="relu", bias_initializer="normal")
            self.pool = keras.layers.GlobalAveragePooling2D()
            self.dense = keras.layers.Dense(CLASSES, bias_initializer="normal")

        def call(self, pictures: Any) -> Any:
            return self.dense(self.pool(self.conv2(self.conv1(pictures))))

    # One processor gives the same bits every time, which a GPU does not promise.
    with tf.device("/cpu:0"):
        network = Network()
        network(tf.zeros(PICTURES))
    return network


def _restored(prefix: str) -> Any:
    tf = _tensorflow()
    network = _network()
    tf.train.Checkpoint(model=network).read(prefix).assert_consumed()
    return network


def _predict(model: Any, pictures: Array) -> Array:
    with _tensorflow().device("/cpu:0"):
        found: Array = model(pictures).numpy()
    return found
