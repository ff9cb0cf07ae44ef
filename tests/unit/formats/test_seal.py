"""Copies without edits repeat the index, whatever its keys decode to."""

import numpy as np

import ckptkit


def test_long_names_with_much_in_common_are_copied(tmp_path):
    names = [f"{'outer/' * 60}{number:04d}" for number in range(2000)]
    ckptkit.save(tmp_path / "model", {name: np.float32(0) for name in names})
    index = (tmp_path / "model.index").read_bytes()
    assert sum(map(len, names)) > 4 * len(index)

    ckptkit.open(tmp_path / "model").edit().plan(tmp_path / "copy").run()

    assert (tmp_path / "copy.index").read_bytes() == index
