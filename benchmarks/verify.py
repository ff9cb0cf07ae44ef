"""verify: all checksums of a checkpoint."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import jobs
from benchmarks.trial import GIB, Contender, Job, Trial, faster

if TYPE_CHECKING:
    from benchmarks.data import Inputs


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    prefix = inputs.large()
    return [
        Trial(
            f"verify {inputs.large_bytes / GIB:g} GiB",
            (
                Contender("ckptkit", partial(verify, prefix)),
                Contender("one CRC pass", partial(jobs.read_cache, prefix, summed=True)),
                Contender("tensorflow", partial(jobs.read_all, prefix)),
            ),
            (faster("ckptkit", "tensorflow", 2.5),),
            nbytes=inputs.large_bytes,
            floor="one CRC pass",
            incumbent="tensorflow",
            notes=("The CRC pass is one thread's; ckptkit takes one thread a core.",),
        )
    ]


def verify(prefix: str) -> Job:
    """Return the verification, which has to find nothing wrong."""
    import ckptkit

    def job() -> None:
        with ckptkit.open(prefix) as checkpoint:
            verdict = checkpoint.verify()
        if not verdict.ok:
            msg = f"{prefix} is said to be damaged"
            raise ValueError(msg)

    return job
