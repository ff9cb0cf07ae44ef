"""Whatever the bytes of a checkpoint are, readers by TensorFlow's names agree, or refuse it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
import ckptkit.tf as train
from ckptkit.tf.errors import InternalError, OpError
from tests.golden.handmade import as_bytes
from tests.oracle import hashed
from tests.property.test_mutations import (
    DAMAGES,
    INDEX,
    Sample,
    apply,
    by_tensorflow,
    handmade,
    resealed,
    sample,
    saved,
    with_damaged_record,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("sound")
    made = [make(folder) for make in (saved, handmade, by_tensorflow)]
    return [sample(prefix) for prefix in made if prefix is not None]


def is_refused(prefix: Path) -> bool:
    """Tell whether we do not open a checkpoint, or carry a dtype along that nobody reads."""
    try:
        checkpoint = ckptkit.open(prefix)
    except ckptkit.CkptError:
        return True
    return any(dtype.startswith("dtype ") for dtype in checkpoint.dtypes().values())


def judge(prefix: Path) -> None:
    """Require that a reader agrees with ours in what both read, and else raises its own errors."""
    try:
        reader = train.load_checkpoint(prefix)
        listed = train.list_variables(prefix)
    except OpError:
        assert is_refused(prefix)
        return
    names = [name for name, _ in listed]
    keys = {name.encode("utf-8", "surrogateescape"): name for name in names}
    assert [*reader.get_variable_to_shape_map()] == [
        keys[key] for key in hashed.order(sorted(keys))
    ]
    assert reader.get_variable_to_shape_map() == dict(listed)
    assert reader.debug_string().count(b"\n") >= len(names) - 1
    found: dict[str, object] = {}
    for name in names:
        try:
            value = reader.get_tensor(name)
        except (OpError, InternalError):
            continue
        array = np.asarray(value, object if isinstance(value, bytes) else None)
        found[name] = as_bytes(array)
    try:
        checkpoint = ckptkit.open(prefix)
    except ckptkit.CkptError:
        # One tensor that cannot be is enough for ours to refuse the checkpoint.
        return
    assert sorted(checkpoint) == names
    for name in names:
        if checkpoint[name].dtype == "variant":
            continue
        try:
            expected = as_bytes(checkpoint[name].read())
        except ckptkit.CkptError:
            assert name not in found
            continue
        assert found[name] == expected


@settings(max_examples=100)
@given(st.integers(0, 2), st.floats(0, 1), DAMAGES)
def test_damaged_files(
    sound: list[Sample], fresh: Callable[[], Path], number: int, file: float, damage: list
) -> None:
    files, _ = sound[number % len(sound)]
    suffix = sorted(files)[int(file * (len(files) - 1))]
    judge(write(fresh(), {**files, suffix: apply(damage, files[suffix])}))


@settings(max_examples=100)
@given(st.integers(0, 2), DAMAGES)
def test_damaged_indexes_with_right_checksums(
    sound: list[Sample], fresh: Callable[[], Path], number: int, damage: list
) -> None:
    files, _ = sound[number % len(sound)]
    judge(write(fresh(), {**files, INDEX: resealed(apply(damage, files[INDEX]))}))


@settings(max_examples=200)
@given(st.integers(0, 2), st.floats(0, 1), DAMAGES)
def test_damaged_records_in_sound_tables(
    sound: list[Sample], fresh: Callable[[], Path], number: int, which: float, damage: list
) -> None:
    files, _ = sound[number % len(sound)]
    index = with_damaged_record(files[INDEX], which, damage)
    judge(write(fresh(), {**files, INDEX: index}))
