"""A process that has so much address space and no more."""

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


def run_limited(
    child: str, *arguments: object, budget: int, beside: int, statements: Sequence[str]
) -> None:
    """Run a script that edits within limits, and prints how many bytes it took.

    Args:
        child: The script; its arguments are those given, the two limits, and the statements.
        arguments: What it works on.
        budget: Bytes of staging memory.
        beside: Bytes that it may take besides.
        statements: The edits.
    """
    words = [*arguments, budget, beside, json.dumps(statements)]
    done = subprocess.run(
        [sys.executable, "-c", child, *map(str, words)],
        cwd=ROOT,
        # Arenas of further threads reserve address space that nobody uses.
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= budget + beside
