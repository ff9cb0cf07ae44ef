"""read: all tensors with checksums on, and a few rows of one tensor."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks import jobs
from benchmarks.data import EDITED, ROW, SLICED, files
from benchmarks.trial import GIB, MIB, Contender, Job, Trial, faster

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.data import Inputs

FIRST: Final = 100
ROWS: Final = 4
LOOPS: Final = 20


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    return [_everything(inputs), _rows(inputs)]


def _everything(inputs: Inputs) -> Trial:
    prefix = inputs.large()
    return Trial(
        f"read all tensors of {inputs.large_bytes / GIB:g} GiB, checksums on",
        (
            Contender("ckptkit", partial(read_all, prefix), check=partial(check_all, prefix)),
            Contender("read page cache", partial(jobs.read_cache, prefix, summed=False)),
            Contender("tensorflow", partial(jobs.read_all, prefix)),
        ),
        (faster("ckptkit", "tensorflow", 1.5),),
        nbytes=inputs.large_bytes,
        floor="read page cache",
        incumbent="tensorflow",
    )


def _rows(inputs: Inputs) -> Trial:
    prefix, nbytes = inputs.sliced(), inputs.scale.sliced_bytes
    return Trial(
        f"open, read {ROWS} rows of {nbytes // MIB} MiB",
        (
            Contender(
                "ckptkit rows", partial(read_rows, prefix), check=partial(check_rows, prefix)
            ),
            Contender("pread", partial(read_bytes, prefix)),
            Contender("tensorflow", partial(restore_rows, prefix, nbytes)),
        ),
        (faster("ckptkit rows", "tensorflow", 100),),
        floor="pread",
        incumbent="tensorflow",
        loops=LOOPS,
    )


def read_all(prefix: str) -> Job:
    """Return a loop over all tensors that drops each array."""
    import ckptkit

    def job() -> None:
        with ckptkit.open(prefix) as checkpoint:
            for tensor in checkpoint.values():
                tensor.read()

    return job


def read_rows(prefix: str) -> Job:
    """Return opening a checkpoint and reading rows, some times over."""
    import ckptkit

    def job() -> NDArray[Any]:
        for _ in range(LOOPS):
            with ckptkit.open(prefix) as checkpoint:
                rows = checkpoint[SLICED][FIRST : FIRST + ROWS]
        return rows

    return job


def restore_rows(prefix: str, nbytes: int) -> Job:
    """Return restoring the slice, which opens the checkpoint as well."""
    tf = jobs.tensorflow()
    height = nbytes // 4 // ROW
    spec = f"{height} {ROW} {FIRST},{ROWS}:0,{ROW}"

    def job() -> Any:
        for _ in range(LOOPS):
            (rows,) = tf.raw_ops.RestoreV2(
                prefix=prefix,
                tensor_names=[SLICED],
                shape_and_slices=[spec],
                dtypes=[tf.float32],
            )
        return rows

    return job


def read_bytes(prefix: str) -> Job:
    """Return reading as many bytes of the data file."""
    (data,) = (path for path in files(prefix) if not path.endswith(".index"))

    def job() -> None:
        for _ in range(LOOPS):
            with open(data, "rb", buffering=0) as file:
                file.seek(FIRST * ROW * 4)
                file.read(ROWS * ROW * 4)

    return job


def check_all(prefix: str) -> None:
    """See that a tensor has the values that TensorFlow reads."""
    import ckptkit

    with ckptkit.open(prefix) as checkpoint:
        _compare(checkpoint[EDITED].read(), jobs.tensor(prefix, EDITED))


def check_rows(prefix: str) -> None:
    """See that the rows are those that TensorFlow reads."""
    rows: Any = read_rows(prefix)()
    _compare(rows, jobs.tensor(prefix, SLICED)[FIRST : FIRST + ROWS])


def _compare(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    if ours.dtype != theirs.dtype or ours.tobytes() != theirs.tobytes():
        msg = "ckptkit and TensorFlow read different values"
        raise ValueError(msg)
