"""Laws of donors: tensors of other checkpoints, by a name that is bound to each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptkit
from ckptkit import EditError
from ckptkit.errors import ConflictError, CorruptError
from ckptkit.language import parse
from tests.golden.handmade import Bundle, as_bytes
from tests.oracle.expressions import Twin
from tests.property.edited import contents, regions, small_values, written
from tests.property.strategies import slicings

pytestmark = pytest.mark.usefixtures("unsynced")

DTYPES = ("float16", "bfloat16", "float32", "float64", "int32", "uint8")
FLOATS = ("float32", "float64", "bfloat16")
BYTES = st.integers(8, 200)
FORMULAS = (
    't("donor:w")',
    'x + t("donor:w") * 2',
    't("donor:w") - t("w")',
    'where(t("donor:w") > 1, x, t("second:deep/w"))',
    'x * max(t("donor:w")) + min(t("second:deep/w"), axis=0)',
    'reshape(transpose(t("donor:w")), SHAPE)',
)


@st.composite
def tensors(draw, name, dtype, shape):
    """Draw a bundle that holds one tensor, in whatever layout; return it with the values."""
    values = small_values(dtype, shape, draw(st.integers(0, 99)))
    bundle, slices = Bundle(2, big_endian=draw(st.booleans())), draw(slicings(shape))
    if len(slices) > 1:
        bundle.add_slices(name, values, slices, shards=(0, 1))
    else:
        bundle.add(name, values, shard=1)
    return bundle, values


@settings(max_examples=100)
@given(data=st.data(), how=st.sampled_from(["copy", "append", "patch", "link"]))
def test_values_come_from_the_other_checkpoint(fresh, tiny, data, how):
    tiny(data.draw(BYTES), data.draw(BYTES))
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple))
    folder, dtype = fresh(), data.draw(st.sampled_from(FLOATS))
    bundle, values = data.draw(tensors(b"w", dtype, shape))
    prefix = bundle.write(folder / "m")
    found = {"w": values}
    for bound, name in (("donor", b"w"), ("second", b"deep/w")):
        other, held = data.draw(tensors(name, data.draw(st.sampled_from(DTYPES)), shape))
        other.write(folder / bound)
        found[f"{bound}:{name.decode()}"] = held
    formula = data.draw(st.sampled_from(FORMULAS)).replace("SHAPE", str(list(shape)))
    at = "w"
    # What has the shape of the whole is for the whole.
    if "max" in formula and data.draw(st.booleans()):
        index = data.draw(regions(shape))
        formula = 'x * max(t("donor:w")) - min(t("second:deep/w"))'
        at = f"w[{written(index)}]"
    statement = f"{at} = {formula}"
    edit = parse(statement)
    expected = Twin(found, values, edit.region).assigned(edit.expr)
    before = {bound: contents(str(folder / bound)) for bound in ("donor", "second")}
    target = f"{prefix}-new" if how in {"copy", "link"} else None
    with ckptkit.open(prefix) as opened, ckptkit.open(folder / "second") as second:
        draft = opened.edit(statement, others={"donor": str(folder / "donor"), "second": second})
        draft.plan(target, how).run(device="numpy")
    with ckptkit.open(target or prefix) as opened:
        assert opened.verify().ok
        assert list(opened) == ["w"]
        made = opened["w"].read()
    assert (made.dtype, made.shape) == (expected.dtype, expected.shape)
    assert as_bytes(made) == as_bytes(expected)
    assert {bound: contents(str(folder / bound)) for bound in before} == before


@pytest.fixture
def pair(tmp_path):
    """Two checkpoints; the second is for giving."""
    ckptkit.save(tmp_path / "m", {"w": small_values("float32", (6, 5), 1)})
    donor = {"v": small_values("float64", (6, 5), 2), "other": small_values("int32", (9,), 3)}
    ckptkit.save(tmp_path / "donor", donor)
    return str(tmp_path / "m"), str(tmp_path / "donor")


TAKES = (
    'w = cast(t("donor:v"), float32)',
    'w[1:3] = cast(t("donor:v")[1:3], float32)',
    'w *= cast(norm(t("donor:v")), float32)',
)
WAYS = ("copy", "append", "patch")


def draft_of(prefix, statement, others):
    with ckptkit.open(prefix) as opened:
        return opened.edit(statement, others=others)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("statement", TAKES)
def test_a_damaged_donor_is_refused_by_name(pair, statement, how):
    prefix, donor = pair
    with ckptkit.open(donor) as opened:
        (piece,) = opened["v"].tensor.source.pieces
    with open(piece.extent.path, "r+b") as file:
        file.seek(piece.extent.offset + 70)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    before = contents(prefix)
    target = f"{prefix}-new" if how == "copy" else None
    plan = draft_of(prefix, statement, {"donor": donor}).plan(target, how)
    with pytest.raises(CorruptError) as caught:
        plan.run(device="numpy")
    assert (caught.value.tensor, caught.value.path) == ("donor:v", piece.extent.path)
    assert contents(prefix) == before
    names = os.listdir(Path(prefix).parent)
    assert not [name for name in names if name.startswith((".", "m-new"))]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("change", ["edit", "gone"])
def test_a_donor_that_changed_is_noticed(pair, how, change):
    prefix, donor = pair
    before = contents(prefix)
    target = f"{prefix}-new" if how == "copy" else None
    plan = draft_of(prefix, TAKES[0], {"donor": donor}).plan(target, how)
    if change == "edit":
        with ckptkit.open(donor) as opened:
            opened.edit("v *= 2").plan().run(device="numpy")
    else:
        os.remove(f"{donor}.data-00000-of-00001")
    with pytest.raises(ConflictError) as caught:
        plan.run(device="numpy")
    assert caught.value.path.startswith(donor)
    assert contents(prefix) == before


@pytest.mark.parametrize("how", WAYS)
def test_a_donor_that_changed_before_the_plan_is_noticed(pair, how):
    prefix, donor = pair
    before = contents(prefix)
    opened = ckptkit.open(donor)
    with ckptkit.open(donor) as again:
        again.edit("v *= 2").plan().run(device="numpy")
    target = f"{prefix}-new" if how == "copy" else None
    with pytest.raises(ConflictError):
        draft_of(prefix, TAKES[0], {"donor": opened}).plan(target, how).run(device="numpy")
    assert contents(prefix) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('w = t("donor:u")', "no tensor 'u'"),
        ('w = t("giver:v")', "--with giver=PATH"),
        ('drop "donor:v"', "no tensor 'donor:v'"),
        ('"donor:v" = 1', "no tensor 'donor:v'"),
    ],
)
def test_only_what_is_bound_is_read_and_nothing_of_it_is_written(pair, text, message):
    prefix, donor = pair
    with pytest.raises(EditError) as caught:
        draft_of(prefix, text, {"donor": donor})
    assert message in caught.value.message


def test_a_name_with_a_colon_of_its_own_comes_first(tmp_path):
    ckptkit.save(tmp_path / "m", {"w": 1.0, "donor:v": 2.0})
    ckptkit.save(tmp_path / "donor", {"v": 3.0})
    draft = draft_of(tmp_path / "m", 'w = t("donor:v")', {"donor": str(tmp_path / "donor")})
    draft.plan().run(device="numpy")
    with ckptkit.open(tmp_path / "m") as opened:
        assert opened["w"].read() == 2
