"""A copy of a stranger's checkpoint is clean or refused: the facts page on bad input, row by row.

For every defect: what ``ckptkit verify`` says, and that ``ckptkit edit SRC DST`` ends with 3, or
gives a checkpoint that verifies without a finding and that TensorFlow reads as we read the source.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

import ckptkit
from ckptkit.cli import main
from tests.golden.handmade import as_bytes
from tests.hostile import forge
from tests.hostile.defects import DEFECTS, SOUND
from tests.hostile.forge import PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def findings(path: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """Return what verify finds, by the command line."""
    main(["verify", path, "--json"])
    found: list[dict[str, str]] = json.loads(capsys.readouterr().out)["problems"]
    return found


@pytest.fixture(scope="module")
def tensorflow() -> Iterator[Callable[[str], dict[str, object]]]:
    """Read checkpoints by TensorFlow, in a process of its own: a crash is no crash of ours."""
    pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    stdin, stdout = worker.stdin, worker.stdout

    def read(prefix: str) -> dict[str, object]:
        stdin.write(json.dumps(prefix) + "\n")
        stdin.flush()
        found: dict[str, object] = json.loads(stdout.readline())
        return found

    yield read
    worker.communicate(timeout=60)


WORKER: Final = """
import json, sys
import tensorflow as tf

for line in sys.stdin:
    prefix = json.loads(line)
    dtypes = tf.train.load_checkpoint(prefix).get_variable_to_dtype_map()
    values = tf.raw_ops.RestoreV2(
        prefix=prefix,
        tensor_names=list(dtypes),
        shape_and_slices=[""] * len(dtypes),
        dtypes=list(dtypes.values()),
    ) if dtypes else []
    found = {
        name: [str(value.dtype.name), value.shape.as_list(), value.numpy().tobytes().hex()]
        for name, value in zip(dtypes, values)
    }
    print(json.dumps(found), flush=True)
"""


@pytest.mark.parametrize("name", DEFECTS)
def test_what_verify_says(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    defect = DEFECTS[name]
    found = findings(defect.forge(tmp_path), capsys)
    told = "; ".join(one["message"] for one in found)
    assert all(part in told for part in defect.says), told
    severe = any(one["severity"] == "error" for one in found)
    assert severe is defect.refused


@pytest.mark.parametrize("name", DEFECTS)
def test_a_copy_is_clean_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    defect = DEFECTS[name]
    path = defect.forge(tmp_path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    code = main(["edit", path, str(tmp_path / "copy")])
    said = capsys.readouterr()
    if defect.refused:
        assert code == 3, said
        assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
        return
    assert code == 0, said
    assert all(part in said.out for part in defect.says)
    assert findings(str(tmp_path / "copy"), capsys) == []
    with ckptkit.open(path) as old, ckptkit.open(tmp_path / "copy") as new:
        assert list(old) == list(new)
        for one in old:
            assert old[one].spec == new[one].spec
            assert as_bytes(old[one].read()) == as_bytes(new[one].read())
            assert len(old.catalog[one].boxes) == len(new.catalog[one].boxes)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", [name for name, one in DEFECTS.items() if not one.refused])
def test_tensorflow_reads_a_clean_copy(
    tensorflow: Callable[[str], dict[str, object]], tmp_path: Path, name: str
) -> None:
    path = DEFECTS[name].forge(tmp_path)
    assert main(["edit", path, str(tmp_path / "copy"), "--quiet"]) == 0
    with ckptkit.open(path) as old:
        ours = {one: [old[one].dtype, [*old[one].shape], _hex(old[one].read())] for one in old}
    assert tensorflow(str(tmp_path / "copy")) == ours


def _hex(values: np.ndarray) -> str:
    raw = as_bytes(values)
    assert isinstance(raw, bytes)
    # In memory an int4 has its sign in all bits.
    return np.ascontiguousarray(values).tobytes().hex() if values.dtype == "int4" else raw.hex()


@pytest.mark.parametrize("how", ["auto", "copy"])
def test_a_sound_checkpoint_is_copied_byte_for_byte(tmp_path: Path, how: str) -> None:
    path = forge.write(tmp_path, SOUND, PAYLOAD)
    assert main(["edit", path, str(tmp_path / "copy"), "--how", how]) == 0
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"copy{suffix}").read_bytes() == (
            tmp_path / f"model{suffix}"
        ).read_bytes()


def test_a_copy_says_what_verifying_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = DEFECTS["bytes of no tensor"].forge(tmp_path)
    assert main(["edit", path, str(tmp_path / "copy"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verified"]["ok"]
    (problem,) = found["verified"]["problems"]
    assert "belong to no tensor" in problem["message"]
    assert found["report"]["how"] == "copy"


def test_a_copy_says_that_it_was_verified_and_offers_no_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = forge.write(tmp_path, SOUND, PAYLOAD)
    assert main(["edit", path, str(tmp_path / "copy")]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{path}: ok, ")
    assert "no problems\n" in told
    assert "link" not in told
