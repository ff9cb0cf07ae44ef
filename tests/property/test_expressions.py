"""Laws of expressions: any of them gives what NumPy gives that sees all of every tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import EditError
from tests.golden.handmade import Bundle
from tests.oracle.expressions import RefusedError
from tests.property.formulas import TARGET, cases
from tests.property.strategies import slicings

pytestmark = pytest.mark.usefixtures("unsynced")

BYTES = st.integers(8, 200)


@st.composite
def laid_out(draw, tensors):
    """Draw a bundle of tensors: in slices or whole, in either byte order."""
    bundle = Bundle(2, big_endian=draw(st.booleans()))
    for name, values in tensors.items():
        slices = draw(slicings(values.shape)) if values.size and values.ndim else [[]]
        if len(slices) > 1:
            bundle.add_slices(name.encode(), values, slices, shards=(0, 1))
        else:
            bundle.add(name.encode(), values, shard=draw(st.integers(0, 1)))
    return bundle


@np.errstate(invalid="ignore")
def alike(found, expected):
    """Tell whether arrays are the same but for the payloads of NaN."""
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return False
    raw = f"u{found.dtype.itemsize}"
    one, other = (np.ascontiguousarray(part).reshape(-1) for part in (found, expected))
    nan = (one != one) & (other != other)  # noqa: PLR0124
    return bool(np.all(nan | (one.view(raw) == other.view(raw))))


def edited(prefix, target, statements, how, **options):
    """Edit a checkpoint, at a new place or where it is; return the values of all tensors."""
    with ckptkit.open(prefix) as found:
        plan = found.edit(*statements).plan(target, how)
        plan.run(device="numpy", **options)
    with ckptkit.open(target or prefix) as found:
        assert found.verify().ok
        return {name: found[name].read() for name in found}


@settings(max_examples=400)
@given(
    case=cases(),
    how=st.sampled_from(["copy", "copy", "append", "patch"]),
    sizes=st.tuples(BYTES, BYTES, BYTES),
    data=st.data(),
)
def test_an_expression_gives_what_numpy_gives(fresh, tiny, case, how, sizes, data):
    tiny(*sizes)
    prefix = data.draw(laid_out(case.stored())).write(fresh() / "m")
    probes, statement = case.probe_statements(), case.statement
    grows = case.setting.region is None and how == "patch"
    how = "copy" if grows else how
    try:
        # Sums are the same by themselves; a patch has no place to add them.
        first = edited(prefix, f"{prefix}-sums", [*probes, statement], "copy")
        values = edited(prefix, None, [statement], how)
    except EditError as error:
        event("refused")
        with pytest.raises(RefusedError):
            case.setting.twin().assigned(case.expr)
        assert error.message
        return
    measured = {expr: first[name] for name, expr in case.probes().items()}
    expected = case.setting.twin(measured).assigned(case.expr)
    event(f"made by {how}, of {'a region' if case.setting.region else 'all'}")
    event(f"with {'sums' if measured else 'no sums'}")
    for found in (first, values):
        assert alike(found[TARGET], expected), (statement, found[TARGET], expected)
        for name, kept in case.stored().items():
            assert name == TARGET or alike(found[name], kept), name


@settings(max_examples=100)
@given(
    case=cases(),
    block=BYTES,
    sizes=st.lists(st.tuples(BYTES, BYTES), min_size=2, max_size=2),
    data=st.data(),
)
def test_no_chunk_shows_in_the_result(fresh, tiny, case, block, sizes, data):
    prefix = data.draw(laid_out(case.stored())).write(fresh() / "m")
    results = []
    for number, (chunk, near) in enumerate(sizes):
        tiny(chunk, block, near)
        try:
            found = edited(prefix, f"{prefix}-{number}", [case.statement], "copy")
        except EditError as error:
            results.append(str(error))
            continue
        results.append({name: (one.dtype, one.tobytes()) for name, one in found.items()})
    assert results[0] == results[1]
