"""patch_slice: 4 KiB inside tensors of several sizes where they are, journal and sync included."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import jobs
from benchmarks.data import ROW, SLICED, files
from benchmarks.trial import GIB, MIB, Contender, Trial, takes, within

if TYPE_CHECKING:
    from benchmarks.data import Inputs
    from benchmarks.trial import Job

WIDTH: Final = 1024
"""Elements that change: 4 KiB."""


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    sizes = inputs.scale.patched
    names = [_name(nbytes) for nbytes in sizes]
    floor = "pread, pwrite, fsync"
    return [
        Trial(
            f"multiply {WIDTH * 4 // 1024} KiB of a tensor in place, patch",
            (
                *(_ckptkit(inputs, nbytes) for nbytes in sizes),
                Contender(floor, partial(rewrite_slice, inputs.matrix(sizes[-1]), sizes[-1])),
            ),
            (*(takes(name, 50) for name in names), within(names[-1], names[0], 2)),
            floor=floor,
            rounds=4,
            notes=("pwrite writes what is there, without a journal.",),
        )
    ]


def _name(nbytes: int) -> str:
    return f"of {nbytes // GIB} GiB" if nbytes >= GIB else f"of {nbytes // MIB} MiB"


def _ckptkit(inputs: Inputs, nbytes: int) -> Contender:
    prefix = inputs.matrix(nbytes)
    part = f"{SLICED}[{_middle(nbytes)}, :{WIDTH}]"
    return Contender(
        _name(nbytes),
        partial(jobs.edit, prefix, None, f"{part} *= 0.5", how="patch"),
        check=partial(check, prefix, nbytes),
        after=partial(jobs.patch, prefix, f"{part} *= 2"),
    )


def _middle(nbytes: int) -> int:
    """Return the row that is changed."""
    return nbytes // 4 // ROW // 2


def rewrite_slice(prefix: str, nbytes: int) -> Job:
    """Return a write of the same bytes."""
    (data,) = (path for path in files(prefix) if not path.endswith(".index"))
    return jobs.rewrite_runs(data, WIDTH * 4, [_middle(nbytes) * ROW * 4])


def check(prefix: str, nbytes: int) -> None:
    """See that TensorFlow reads what NumPy computes, and that the checksum holds.

    Raises:
        ValueError: It does not.
    """
    import numpy as np

    tf = jobs.tensorflow()
    height, row = nbytes // 4 // ROW, _middle(nbytes)
    (found,) = tf.raw_ops.RestoreV2(
        prefix=prefix,
        tensor_names=[SLICED],
        shape_and_slices=[f"{height} {ROW} {row - 1},3:0,{ROW}"],
        dtypes=[tf.float32],
    )
    first = (row - 1) * ROW
    expected = np.arange(first, first + 3 * ROW).astype(np.float32).reshape(3, ROW)
    expected[1, :WIDTH] *= np.float32(0.5)
    if not np.array_equal(expected, found):
        msg = f"the rows of {prefix} are not what they should be"
        raise ValueError(msg)
    jobs.check_sound(prefix)
