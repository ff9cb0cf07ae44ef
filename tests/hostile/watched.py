"""Command lines in a process of their own, with an eye on what it opens, imports and starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]

HEADROOM = 1 << 30
"""Bytes of address space that command lines may take besides what the program itself takes."""

STARTS = (
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"),
    *("pickle.find_class", "socket.connect", "socket.getaddrinfo", "subprocess.Popen"),
    *("urllib.Request", "webbrowser.open"),
)
"""Audit events of what no reader of weights has a reason to do."""

FOREIGN = frozenset({"canary", "keras", "tensorflow", "torch", "yaml", "tarfile"})
"""Modules that read models, or that a model may ask for."""


@dataclass(frozen=True)
class Watched:
    """What command lines did.

    Attributes:
        codes: Their exit codes.
        out, err: What each wrote to either stream.
        opened: Paths under the watched folder that were opened.
        started: Audit events that should not be there, in words.
        imported: Modules that should not be there.
    """

    codes: tuple[int, ...]
    out: tuple[str, ...]
    err: tuple[str, ...]
    opened: frozenset[str]
    started: tuple[str, ...]
    imported: frozenset[str]


def watch(lines: Sequence[Sequence[object]], under: Path, folder: Path) -> Watched:
    """Run command lines, one after the other, in a folder, in a process with little memory.

    Args:
        lines: Arguments of each.
        under: What is opened in this folder is listed.
        folder: The current folder; modules that lie in it could be imported.
    """
    given = {"lines": [[*map(str, line)] for line in lines], "under": str(under)}
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.watched"],
        input=json.dumps(given).encode(),
        capture_output=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    return Watched(
        *(tuple(found[key]) for key in ("codes", "out", "err")),
        frozenset(found["opened"]),
        tuple(found["started"]),
        frozenset(found["imported"]),
    )


def main() -> None:
    """Be that process."""
    import contextlib
    import io
    import resource

    # What the program itself needs is there before anybody watches.
    import h5py  # noqa: F401
    import numpy as np  # noqa: F401

    from ckptkit.cli import COMMANDS, main, program

    for name in COMMANDS:
        program.get_command(None, name)  # type: ignore[arg-type]
    given = json.load(sys.stdin)
    opened: set[str] = set()
    started: list[str] = []

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str | bytes):
            path = os.path.abspath(os.fsdecode(args[0]))
            if path.startswith(given["under"] + os.sep):
                opened.add(path)
        elif event in STARTS:
            started.append(f"{event} {args!r}"[:200])

    sys.addaudithook(note)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    codes, outs, errs = [], [], []
    for line in given["lines"]:
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
        ):
            codes.append(main(line))
        outs.append(out.getvalue())
        errs.append(err.getvalue())
    imported = FOREIGN & {name.partition(".")[0] for name in sys.modules}
    json.dump(
        {
            "codes": codes,
            "out": outs,
            "err": errs,
            "opened": sorted(opened),
            "started": started,
            "imported": sorted(imported),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
