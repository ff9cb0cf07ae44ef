"""Tensors in slices of any shape: read as one, cut anew, and joined, in every way of writing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import EditError
from ckptkit.model import TensorSpec
from ckptkit.naming import Rename
from ckptkit.partition import JOINED, equal_parts
from ckptkit.surgery import Repartition
from tests.golden.handmade import CODES, NUMBERS, Bundle, numpy_dtype, random_array
from tests.property.edited import check_values, contents, regions, same, written
from tests.property.strategies import SEEDS, texts, tilings

pytestmark = pytest.mark.usefixtures("unsynced")

WAYS = ("copy", "link", "append")
SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
DTYPES = st.sampled_from([*NUMBERS, *["string"] * 4])
SHIFTED = ("float32", "float64", "float16", "bfloat16", "int32", "uint8", "int64", "complex64")


@st.composite
def partitioned(draw, dtypes=DTYPES):
    """Draw a bundle of two tensors, each in slices that tile it somehow, or whole."""
    big = draw(st.booleans())
    bundle, values = Bundle(draw(st.integers(1, 3)), big_endian=big), {}
    for name in ("w", "a/\0b"):
        dtype, shape = draw(dtypes), draw(SHAPES)
        values[name] = (
            draw(texts(shape)) if dtype == "string" else random_array(dtype, shape, draw(SEEDS))
        )
        slices = draw(tilings(shape))
        if len(slices) > 1 or draw(st.booleans()):
            shards = draw(st.permutations(range(len(bundle.data))))
            bundle.add_slices(name.encode(), values[name], slices, dtype, shards=shards)
        else:
            bundle.add(name.encode(), values[name], dtype)
    return bundle, values


def rewritten(source, statements, how):
    target = f"{source}-new" if how != "append" else None
    with ckptkit.open(source) as found:
        found.edit(*statements).plan(target, how).run(device="numpy")
    path = target or source
    with ckptkit.open(path) as found:
        assert found.verify().ok
    return path


@given(case=partitioned(), data=st.data())
def test_slices_of_any_shape_read_as_one(fresh, case, data):
    bundle, values = case
    path = bundle.write(fresh() / "m")
    check_values(path, values)
    index = data.draw(regions(values["w"].shape))
    with ckptkit.open(path) as found:
        # The ellipsis keeps a single string an array.
        assert same(found["w"][(*index, ...)], values["w"][(*index, ...)])
        assert found.verify().ok


@settings(max_examples=100)
@given(
    case=partitioned(),
    how=st.sampled_from(WAYS),
    parts=st.integers(1, 5),
    data=st.data(),
    chunk=st.integers(8, 200),
)
def test_there_and_back(fresh, tiny, case, how, parts, data, chunk):
    bundle, values = case
    tiny(chunk, chunk)
    path = bundle.write(fresh() / "m")
    before = contents(path)
    axis = data.draw(st.integers(-values["w"].ndim, values["w"].ndim - 1))
    size = values["w"].shape[axis]
    cut = Repartition("w", min(parts, size), axis)
    with ckptkit.open(path) as found:
        spec = found.catalog["w"].spec
    there = rewritten(path, [cut], how)
    check_values(there, values)
    boxes = equal_parts(spec, min(parts, size), axis)
    with ckptkit.open(there) as found:
        assert {*found.catalog["w"].boxes} == {*boxes}
        assert (found.catalog.row("w") in found.catalog.columns.parts) is (len(boxes) > 1)
    if how != "append":
        assert contents(path) == before
    back = rewritten(there, ["repartition ** -> whole"], how)
    check_values(back, values)
    with ckptkit.open(back) as found:
        assert not found.catalog.columns.parts
        assert len(found.catalog.columns) == len(values)


@given(case=partitioned(), how=st.sampled_from(WAYS), parts=st.integers(1, 4))
def test_a_wildcard_cuts_what_can_be_cut(fresh, case, how, parts):
    bundle, values = case
    path = bundle.write(fresh() / "m")
    with ckptkit.open(path) as found:
        fits = {
            name: one.shape[0] >= parts and (parts == 1 or found[name].dtype in JOINED)
            for name, one in values.items()
        }
        old = {name: {*found.catalog[name].boxes} for name in values}
        specs = dict(found.specs())
    if not any(fits.values()):
        with ckptkit.open(path) as found, pytest.raises(EditError):
            found.edit(Repartition("**", parts))
        return
    there = rewritten(path, [f"repartition ** -> {parts}"], how)
    check_values(there, values)
    with ckptkit.open(there) as found:
        for name, fit in fits.items():
            wanted = {*equal_parts(specs[name], parts, 0)} if fit else old[name]
            assert {*found.catalog[name].boxes} == wanted


@given(
    case=partitioned(st.sampled_from(SHIFTED)),
    how=st.sampled_from(WAYS),
    data=st.data(),
    early=st.booleans(),
)
def test_other_edits_go_with_it(fresh, tiny, case, how, data, early):
    bundle, values = case
    tiny(data.draw(st.integers(8, 100)), data.draw(st.integers(8, 100)))
    path = bundle.write(fresh() / "m")
    w = values["w"].copy()
    index = data.draw(regions(w.shape))
    kind = numpy_dtype(w.dtype.name)
    edits = [f"w[{written(index)}] = 3", Rename("^w$", "v/w")]
    cut = f"repartition w -> {data.draw(st.integers(1, w.shape[0]))}"
    edits.insert(0 if early else 1, cut)
    there = rewritten(path, edits, how)
    w[index] = kind.type(3)
    check_values(there, {"v/w": w, "a/\0b": values["a/\0b"]})


@given(
    dtype=st.sampled_from(sorted(CODES)),
    size=st.integers(1, 40),
    parts=st.integers(1, 40),
    rest=st.integers(1, 3),
)
def test_parts_are_of_about_equal_length(dtype, size, parts, rest):
    spec = TensorSpec(dtype, (rest, size))
    if parts > size:
        with pytest.raises(EditError, match="do not make"):
            equal_parts(spec, parts, 1)
        return
    boxes = equal_parts(spec, parts, -1)
    lengths = [box.shape[1] for box in boxes]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1
    starts = [box.start[1] for box in boxes]
    assert starts == [sum(lengths[:at]) for at in range(parts)]
    assert sum(lengths) == size
