"""Files of Keras that do not change, read and copied with no Keras at hand."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from pathlib import Path

import pytest

import ckptkit
from tests.golden.make import FILES
from tests.golden.make_keras import LISTING

TENSORS = defaultdict(dict)
for line in LISTING.read_text().splitlines():
    file, name, *described = json.loads(line)
    TENSORS[file][name] = described


@pytest.mark.parametrize("file", TENSORS)
def test_every_file(file):
    with ckptkit.open(FILES / file) as found:
        assert sorted(found) == sorted(TENSORS[file])
        for name, (dtype, shape, crc) in TENSORS[file].items():
            assert (found[name].dtype, list(found[name].shape)) == (dtype, shape), name
            assert zlib.crc32(found[name].read().tobytes()) == crc, name
        assert found.verify().ok


@pytest.mark.parametrize("file", TENSORS)
def test_a_copy_has_the_same_tensors(tmp_path, file):
    with ckptkit.open(FILES / file) as found:
        found.edit().plan(tmp_path / file).run(device="numpy")
        with ckptkit.open(tmp_path / file) as copied:
            assert list(copied) == list(found)
            for name in found:
                assert copied[name].spec == found[name].spec, name
                assert copied[name].read().tobytes() == found[name].read().tobytes(), name
            assert copied.verify().ok


@pytest.mark.parametrize(
    "file", [name for name in TENSORS if name.endswith((".weights.h5", ".keras"))]
)
def test_a_copy_is_the_same_bytes(tmp_path, file):
    with ckptkit.open(FILES / file) as found:
        found.edit().plan(tmp_path / file).run(device="numpy")
    assert (tmp_path / file).read_bytes() == Path(FILES / file).read_bytes()
