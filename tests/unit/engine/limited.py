"""A process that edits in so much address space and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[3]

BUDGET = 32 << 20
"""Bytes of staging memory."""

BESIDE = 64 << 20
"""Bytes of address space besides: stacks, tables, windows, what libraries keep."""


def run_limited(
    source: Path, tiny: Path, target: Path, statements: Sequence[str], how: str = "copy"
) -> None:
    """Edit a checkpoint within limits, and see that it took no more.

    Args:
        source: The checkpoint, which is verified first.
        tiny: One alike, whose edit shows what the program itself takes.
        target: Where the result goes, unless it is edited in place.
        statements: The edits.
        how: The way of writing, behind ``in place,`` where it is in place.
    """
    given = [*map(str, (source, tiny, target)), how, *statements]
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.engine.limited"],
        input=json.dumps(given),
        cwd=ROOT,
        # Arenas of further threads reserve address space that nobody uses.
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= BUDGET + BESIDE


def main() -> None:
    """Be that process."""
    import resource

    import numpy as np

    import ckptkit

    source, tiny, target, how, *statements = json.load(sys.stdin)

    def held(what: str) -> int:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(what))

    def run(path: str, to: str | None) -> None:
        to = None if how.startswith("in place") else to
        with ckptkit.open(path) as found:
            assert found.verify().ok
            plan = found.edit(*statements).plan(to, how.removeprefix("in place, "))
            plan.run(device="numpy", memory=BUDGET)

    # Libraries take what they keep for good.
    np.ones((300, 300), np.float32) @ np.ones((300, 300), np.float32)
    folder, name = os.path.split(target)
    run(tiny, os.path.join(folder, f"tiny-{name}"))
    base = held("VmSize")
    most = base + BUDGET + BESIDE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    run(source, target)
    sys.stdout.write(str(held("VmPeak") - base))


if __name__ == "__main__":
    main()
