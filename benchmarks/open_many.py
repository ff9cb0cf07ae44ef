"""open_many: open an index of a million tensors, list names, shapes and dtypes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import jobs
from benchmarks.data import files
from benchmarks.trial import Contender, Job, Trial, faster, peaks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.data import Inputs

    Listing = tuple[list[str], Mapping[str, Any], Mapping[str, Any]]


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    prefix = inputs.many()
    return [
        Trial(
            f"names, shapes and dtypes of {inputs.scale.many:,} tensors",
            (
                Contender("ckptkit", partial(list_all, prefix), check=partial(check, prefix)),
                Contender("read index", partial(read_index, prefix)),
                Contender("tensorflow", partial(list_maps, prefix)),
            ),
            (faster("ckptkit", "tensorflow", 10), peaks("ckptkit", 600)),
            floor="read index",
            incumbent="tensorflow",
        )
    ]


def list_all(prefix: str) -> Callable[[], Listing]:
    """Return a listing as Python objects: all names, and by them all shapes and all dtypes."""
    import ckptkit

    def job() -> Listing:
        with ckptkit.open(prefix) as checkpoint:
            return list(checkpoint), checkpoint.shapes(), checkpoint.dtypes()

    return job


def list_maps(prefix: str) -> Callable[[], Listing]:
    """Return the same with TensorFlow's two maps."""
    tf = jobs.tensorflow()

    def job() -> Listing:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
        return list(shapes), shapes, reader.get_variable_to_dtype_map()

    return job


def read_index(prefix: str) -> Job:
    """Return a read of the bytes of the index."""
    (index,) = (path for path in files(prefix) if path.endswith(".index"))

    def job() -> bytes:
        with open(index, "rb") as file:
            return file.read()

    return job


def check(prefix: str) -> None:
    """See that both listings agree.

    Raises:
        ValueError: They do not.
    """
    names, shapes, dtypes = list_all(prefix)()
    _, their_shapes, their_dtypes = list_maps(prefix)()
    agree = (
        sorted(names) == sorted(their_shapes)
        and {name: list(shape) for name, shape in shapes.items()} == their_shapes
        and dtypes == {name: dtype.name for name, dtype in their_dtypes.items()}
    )
    if not agree:
        msg = f"ckptkit and TensorFlow list {prefix} differently"
        raise ValueError(msg)
