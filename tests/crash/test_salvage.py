"""What is salvaged appears whole or not at all, and the damaged checkpoint stays as it is."""

import errno
import os

import numpy as np
import pytest

import ckptkit
from tests.crash.disks import Recording, Stopping
from tests.crash.scene import files
from tests.golden.damage import flip

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture
def damaged(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = tmp_path / "in" / "model"
    tensors = {"a": np.arange(1000), "b": ["some", "text"], "c": np.ones((3, 4), "float32")}
    ckptkit.save(tmp_path / "donor", tensors | {"c": np.zeros((3, 4), "float32")})
    ckptkit.save(path, tensors, layout=ckptkit.Layout(shards=2))
    flip(tmp_path / "in" / "model.data-00001-of-00002", -1)
    return path


def test_nothing_is_left_after_an_error_at_any_call(damaged, tmp_path):
    before = files(damaged.parent)
    disk = Recording()
    ckptkit.salvage(damaged, tmp_path / "whole", tmp_path / "donor", disk=disk)

    for at, call in enumerate(disk.calls):
        stopping = Stopping(at, OSError(errno.EIO, "the disk fails here"))
        with pytest.raises(OSError, match="the disk fails here"):
            ckptkit.salvage(damaged, tmp_path / "out" / "m", tmp_path / "donor", disk=stopping)
        assert os.listdir(tmp_path / "out") == [], call
    assert files(damaged.parent) == before
    assert ckptkit.open(tmp_path / "whole").verify().ok


def test_a_source_that_changes_meanwhile_is_noticed(damaged, tmp_path):
    found = ckptkit.salvage(damaged, tmp_path / "out" / "m", dry_run=True)
    shard = next(damaged.parent.glob("*.data-00000-of-00002"))
    shard.write_bytes(shard.read_bytes() + b"more")

    with pytest.raises(ckptkit.ConflictError, match="changed since"):
        found.plan.run()
    assert os.listdir(tmp_path / "out") == []
