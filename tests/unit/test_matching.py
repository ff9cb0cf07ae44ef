"""Which tensor gives its values to which: by names, by shapes, by order."""

from __future__ import annotations

import pytest

from ckptkit import matching
from ckptkit.errors import EditError
from ckptkit.matching import Entry, Pair, Unmatched, match
from ckptkit.model import TensorSpec


def entry(name, shape=(2,), label=None, dtype="float32"):
    return Entry(name, label, TensorSpec(dtype, tuple(shape)))


def dense(path, name, inputs, outputs):
    """The tensors of one layer as Keras stores them."""
    return [
        entry(f"layers/{path}/vars/0", (inputs, outputs), name and f"{name}/kernel"),
        entry(f"layers/{path}/vars/1", (outputs,), name and f"{name}/bias"),
    ]


def optimizer(*layers):
    """The tensors of Adam."""
    weights = [one for layer in layers for one in layer]
    slots = [weight.spec.shape for weight in weights for _ in "mv"]
    scalars = [entry("optimizer/vars/0", (), dtype="int64"), entry("optimizer/vars/1", ())]
    return scalars + [entry(f"optimizer/vars/{2 + at}", shape) for at, shape in enumerate(slots)]


def names(matching):
    return {pair.new: pair.old for pair in matching.pairs}


def reasons(found):
    return {one.name: one.reason for one in found}


OLD = [*dense("dense", "first", 4, 4), *dense("dense_1", "head", 4, 2)]
NEW = [
    *dense("dense", "first", 4, 4),
    *dense("dense_1", "inserted", 4, 4),
    *dense("dense_2", "head", 4, 2),
]


def test_by_name_a_layer_that_was_inserted_shifts_nothing():
    found = match(OLD, NEW, "name")
    assert names(found) == {
        "layers/dense/vars/0": "layers/dense/vars/0",
        "layers/dense/vars/1": "layers/dense/vars/1",
        "layers/dense_2/vars/0": "layers/dense_1/vars/0",
        "layers/dense_2/vars/1": "layers/dense_1/vars/1",
    }
    assert reasons(found.unmatched_new) == {
        "layers/dense_1/vars/0": "old has no 'inserted/kernel'",
        "layers/dense_1/vars/1": "old has no 'inserted/bias'",
    }
    assert found.unmatched_old == ()
    back = match(NEW, OLD, "name")
    assert reasons(back.unmatched_old)["layers/dense_1/vars/0"] == (
        "template has no 'inserted/kernel'"
    )


def test_by_name_shapes_have_to_agree():
    found = match(dense("dense", "head", 4, 2), dense("dense", "head", 4, 3), "name")
    assert found.pairs == ()
    assert found.unmatched_new[0] == Unmatched(
        "layers/dense/vars/0", "head/kernel: old float32[4, 2], template float32[4, 3]"
    )
    assert found.unmatched_old == found.unmatched_new


def test_other_dtypes_are_cast_where_that_says_the_same():
    old, new = [entry("w", dtype="float32")], [entry("w", dtype="bfloat16")]
    note = "values are cast from float32 to bfloat16"
    assert match(old, new, "name").pairs == (Pair("w", "w", note),)
    for one, other in [("float32", "int8"), ("complex64", "float32"), ("string", "float32")]:
        for by in ("name", "shape", "order"):
            found = match([entry("w", dtype=one)], [entry("w", dtype=other)], by)
            reason = f"w: old {one}[2], template {other}[2]; a cast would change what"
            assert reasons(found.unmatched_new)["w"].startswith(reason)
    assert match([entry("w", dtype="string")], [entry("w", dtype="string")], "name").pairs


def test_by_name_what_has_no_label_goes_by_its_name():
    old = [entry("a/0"), entry("b/0", label="layer/kernel"), entry("c/0")]
    new = [entry("c/0"), entry("a/0", label="a/0"), entry("x/0", label="layer/kernel")]
    found = match(old, new, "name")
    assert names(found) == {"c/0": "c/0", "x/0": "b/0"}
    assert reasons(found.unmatched_new) == {"a/0": "old has no 'a/0'"}


def test_by_name_old_files_without_names_are_told():
    found = match(dense("dense", None, 4, 2), dense("dense", "head", 4, 2), "name")
    assert reasons(found.unmatched_new)["layers/dense/vars/1"] == (
        "old has no 'head/bias'; it names no layers, so that only shapes or the order could tell"
    )


def test_by_name_one_name_for_two_is_not_guessed():
    old = [entry("a", label="x/kernel"), entry("b", label="x/kernel")]
    found = match(old, [entry("a", label="x/kernel")], "name")
    assert found.pairs == ()
    assert reasons(found.unmatched_new) == {
        "a": "'x/kernel' is 2 old tensors and 1 of the template"
    }
    assert len(found.unmatched_old) == 2


def test_by_order_is_what_keras_does():
    found = match(OLD, NEW, "order")
    assert names(found) == {
        "layers/dense/vars/0": "layers/dense/vars/0",
        "layers/dense/vars/1": "layers/dense/vars/1",
    }
    assert reasons(found.unmatched_new) == {
        "layers/dense_1/vars/0": "inserted/kernel: old float32[4, 2], template float32[4, 4]",
        "layers/dense_1/vars/1": "inserted/bias: old float32[2], template float32[4]",
        "layers/dense_2/vars/0": "old has 4 weights, template 6",
        "layers/dense_2/vars/1": "old has 4 weights, template 6",
    }


def test_by_shape_a_layer_of_other_shapes_is_skipped():
    old = [*dense("a", None, 4, 8), *dense("b", None, 8, 2)]
    new = [*dense("a", None, 4, 8), *dense("b", None, 8, 8), *dense("c", None, 8, 2)]
    found = match(old, new, "shape")
    assert names(found) == {
        "layers/a/vars/0": "layers/a/vars/0",
        "layers/a/vars/1": "layers/a/vars/1",
        "layers/c/vars/0": "layers/b/vars/0",
        "layers/c/vars/1": "layers/b/vars/1",
    }
    assert reasons(found.unmatched_new)["layers/b/vars/0"] == (
        "no old layer has these shapes at this place: float32[8, 8], float32[8]"
    )


def test_by_shape_what_fits_twice_is_not_guessed():
    found = match(OLD, NEW, "shape")
    assert names(found) == {
        "layers/dense_2/vars/0": "layers/dense_1/vars/0",
        "layers/dense_2/vars/1": "layers/dense_1/vars/1",
    }
    assert reasons(found.unmatched_new)["layers/dense/vars/0"] == (
        "shapes do not tell whether 'first' is the old 'first': float32[4, 4], float32[4]"
    )
    assert reasons(found.unmatched_old)["layers/dense/vars/0"] == (
        "shapes do not tell whether 'first' is the new 'first', 'inserted':"
        " float32[4, 4], float32[4]"
    )


def test_by_shape_turned_around_is_not_guessed():
    old = [*dense("a", None, 4, 8), *dense("b", None, 8, 4)]
    new = [*dense("b", None, 8, 4), *dense("a", None, 4, 8)]
    found = match(old, new, "shape")
    assert found.pairs == ()
    assert len(found.unmatched_new) == len(found.unmatched_old) == 4


def test_by_shape_many_alike_layers_are_told_in_few_words():
    old = [one for at in range(3) for one in dense(f"a{at}", None, 4, 4)]
    new = [one for at in range(40) for one in dense(f"a{at}", None, 4, 4)]
    found = match(old, new, "shape")
    assert found.pairs == ()
    text = reasons(found.unmatched_old)["layers/a0/vars/0"]
    assert "'layers/a0/vars', 'layers/a1/vars'" in text
    assert "or 34 others" in text
    assert len(text) < 200


def test_by_shape_too_many_layers_are_refused(monkeypatch):
    monkeypatch.setattr(matching, "MAX_CELLS", 5)
    with pytest.raises(EditError, match="2 and 3 layers are too many to match by shape"):
        match(OLD, NEW, "shape")


def test_an_unknown_way_is_refused():
    with pytest.raises(EditError, match="by name, shape or order, not by 'luck'"):
        match(OLD, NEW, "luck")


# --- optimizers --------------------------------------------------------------------------------


def test_an_optimizer_goes_with_weights_that_all_match():
    renamed = [*dense("dense_7", "first", 4, 4), *dense("dense_8", "head", 4, 2)]
    found = match(OLD + optimizer(OLD), renamed + optimizer(renamed), "name")
    assert len(found.pairs) == 4 + 10
    assert names(found)["optimizer/vars/9"] == "optimizer/vars/9"
    assert found.unmatched_new == found.unmatched_old == ()


LEFT = "the optimizer stays as in the template: "


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            OLD + optimizer(OLD),
            NEW + optimizer(NEW),
            "2 weights of the template and 0 old ones have no partner",
        ),
        (
            OLD + optimizer(OLD),
            OLD + optimizer(OLD)[:-1],
            "old has 10 tensors of it, template 9",
        ),
        (OLD + optimizer(OLD), OLD, "only the old checkpoint has one"),
        (OLD, OLD + optimizer(OLD), "only the template has one"),
        (
            OLD + optimizer(OLD),
            OLD + optimizer(OLD[::-1]),
            "optimizer/vars/2: old float32[4, 4], template float32[2]",
        ),
        (
            OLD + optimizer(OLD),
            OLD[2:] + OLD[:2] + optimizer(OLD),
            "weights come in another order, and its tensors follow an order that is not stored",
        ),
    ],
)
def test_an_optimizer_is_matched_as_a_whole_or_not_at_all(old, new, reason):
    found = match(old, new, "name")
    assert not any(pair.new.startswith("optimizer/") for pair in found.pairs)
    for side, left in [(new, found.unmatched_new), (old, found.unmatched_old)]:
        told = {one.name: one.reason for one in left if one.name.startswith("optimizer/")}
        assert told == {
            one.name: LEFT + reason for one in side if one.name.startswith("optimizer/")
        }


# --- what is reported --------------------------------------------------------------------------


def test_a_report_says_what_matched_and_what_did_not():
    old = [*dense("dense", "head", 4, 2), entry("gone")]
    new = [entry("w", (4, 2), "head/kernel", "float16"), entry("v")]
    found = match(old, new, "name")
    assert [*found.lines()] == [
        "1 of 2 tensors of the template get values",
        "  w <- layers/dense/vars/0 (values are cast from float32 to float16)",
        "1 stay as they are in the template",
        "  v: old has no 'v'",
        "2 of the old checkpoint are not used",
        "  layers/dense/vars/1: template has no 'head/bias'",
        "  gone: template has no 'gone'",
    ]
    assert found.to_dict() == {
        "pairs": (
            {
                "new": "w",
                "old": "layers/dense/vars/0",
                "note": "values are cast from float32 to float16",
            },
        ),
        "unmatched_new": ({"name": "v", "reason": "old has no 'v'"},),
        "unmatched_old": (
            {"name": "layers/dense/vars/1", "reason": "template has no 'head/bias'"},
            {"name": "gone", "reason": "template has no 'gone'"},
        ),
    }
    assert [*match([], [], "shape").lines()] == ["0 of 0 tensors of the template get values"]
