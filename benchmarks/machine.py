"""The machine that figures come from, in words."""

from __future__ import annotations

import datetime as dt
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from benchmarks.trial import GIB

PACKAGES: Final = ("ckptkit", "tensorflow", "keras", "h5py", "numpy")


def describe(folder: str) -> dict[str, str]:
    """Return what figures depend on.

    Args:
        folder: Where the benchmarks put their files.
    """
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{len(os.sched_getaffinity(0))} cores of {_processor()}",
        "memory": f"{_memory() / GIB:.0f} GiB",
        "file system": _file_system(folder),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def sentence(machine: dict[str, str]) -> str:
    """Return the description in one line."""
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", *PACKAGES))
    hardware = ", ".join(machine[name] for name in ("processor", "memory", "file system", "kernel"))
    return f"{machine['date']}: {hardware}; {versions}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            found = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:
        found = []
    return found[0] if found else platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _file_system(folder: str) -> str:
    """Return the type of the file system that is mounted closest above a folder."""
    folder = os.path.realpath(folder)
    best, kind = "", "unknown"
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, found, *_ = line.split()
            inside = folder == point or folder.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, found
    return kind


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
