"""An error names what is damaged, not what was being made of it."""

import numpy as np
import pytest

import ckptkit


def test_a_damaged_input_is_named(tmp_path):
    tensors = {"a": np.ones(3, "float32"), "b": np.ones(3, "float32")}
    ckptkit.save(tmp_path / "model", tensors)
    shard = tmp_path / "model.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")

    with pytest.raises(ckptkit.CorruptError) as caught:
        ckptkit.open(tmp_path / "model").edit('a += t("b")').plan(tmp_path / "out").run()

    assert (caught.value.tensor, caught.value.offset) == ("b", 12)
