"""Edits: what they make of a catalog, what they leave alone, and what they refuse."""

import math
import pickle
from array import array

import numpy as np
import pytest

from ckptkit.catalog import Catalog
from ckptkit.columns import Columns
from ckptkit.edits import Assign, Cast, Map, Put, apply_all
from ckptkit.errors import EditError
from ckptkit.expressions import Current
from ckptkit.globs import glob_pattern, quoted
from ckptkit.kernels import Constant, Expression, MapFunction
from ckptkit.language import parse
from ckptkit.lowering import numpy_dtype
from ckptkit.model import DTYPES, Derived, Stored
from ckptkit.naming import Copy, Drop, Keep, Rename
from ckptkit.region import Region


def catalog(**specs):
    """Make a catalog from ``name="float32 2 3"``, with ``/`` written as two underscores."""
    names = [name.replace("__", "/") for name in specs]
    parsed = [text.split() for text in specs.values()]
    codes = {name: code for code, name in enumerate(DTYPES)}
    shapes = [tuple(map(int, words[1:])) for words in parsed]

    def column(kind, values):
        return memoryview(array(kind, values))

    ends = [sum(map(len, shapes[: n + 1])) for n in range(len(shapes))]
    sizes = [4 * math.prod(shape) for shape in shapes]
    columns = Columns(
        dtype_names={code: name for name, code in codes.items()},
        files={0: "model.data-00000-of-00001"},
        dtype=column("i", [codes[words[0]] for words in parsed]),
        dims=column("q", [size for shape in shapes for size in shape]),
        dim_ends=column("q", ends),
        shard=column("i", [0] * len(names)),
        offset=column("q", [sum(sizes[:n]) for n in range(len(names))]),
        size=column("q", sizes),
        checksum=column("I", [0] * len(names)),
        flags=column("B", [0] * len(names)),
        entry_bounds=column("q", [0] * (len(names) + 1)),
    )
    return Catalog(names, range(len(names)), columns)


PASSED_OVER = (
    "passed over 3 tensors that are not floating point: step (int64), graph (string), q (qint8)"
)


@pytest.fixture
def model():
    return catalog(
        dense__kernel="float32 2 3",
        dense__bias="float32 3",
        head__kernel="bfloat16 3 4",
        step="int64",
        graph="string",
        q="qint8 2",
    )


def apply(model, statement):
    return parse(statement).apply(model)


def refused(model, edit, message):
    edit = parse(edit) if isinstance(edit, str) else edit
    with pytest.raises(EditError) as caught:
        edit.apply(model)
    assert caught.value.message == message
    return caught.value


def test_an_assignment_derives_the_tensor_and_leaves_the_catalog_before_alone(model):
    change = apply(model, "dense/kernel *= 0.5")
    made = change.catalog["dense/kernel"]
    assert change.touched == ("dense/kernel",)
    assert made.spec == model["dense/kernel"].spec
    assert made.source.parents == (model["dense/kernel"],)
    assert made.source.kernel == Expression(parse("a = x * 0.5").expr, "float32")
    assert not model.changed
    assert list(change.catalog) == list(model)
    assert change.catalog.row("dense/kernel") == 0


def test_edits_build_on_those_before_them(model):
    change = apply_all(
        model, map(parse, ["dense/bias = 1", 'dense/kernel += t("dense/bias")', "dense/bias = 2"])
    )
    first = change.catalog["dense/kernel"].source.parents[1]
    assert first.source.kernel.label == "1"
    assert change.catalog["dense/bias"].source.parents == (first,)
    assert change.touched == ("dense/bias", "dense/kernel")


def test_tensors_of_one_dtype_share_a_kernel(model):
    changed = apply(model, "dense/* *= 2").catalog.changed
    kernels = {id(tensor.source.kernel) for tensor in changed.values()}
    assert len(changed) == 2
    assert len(kernels) == 1


def test_a_region_is_fitted_to_every_tensor(model):
    made = apply(model, "dense/kernel[:, 1] = 2").catalog["dense/kernel"]
    assert made.source.region == Region((slice(None), 1))
    refused(
        model,
        "dense/*[:, 1] = 2",
        "'dense/bias' (float32[3]): region [:, 1] has 2 axes, the shape [3] has 1",
    )
    refused(
        model,
        'dense/kernel[:, 1] = t("dense/bias")',
        "'dense/kernel' (float32[2, 3]): shape [3] of t(\"dense/bias\") does not broadcast to [2]",
    )


def test_a_wildcard_passes_over_what_the_edit_does_not_go_with(model):
    change = apply(model, "** *= 0.5")
    assert change.touched == ("dense/kernel", "dense/bias", "head/kernel")
    assert change.notes == (PASSED_OVER,)
    assert apply(model, "** += 1").notes == (
        "passed over 2 tensors that are not numbers: graph (string), q (qint8)",
    )


def test_an_exact_name_is_never_passed_over(model):
    refused(
        model,
        "step *= 0.5",
        "'step' (int64[]): x * 0.5 gives float64, which does not go into int64:"
        " write cast(round(x * 0.5), int64)",
    )
    refused(
        model,
        "gr* = 0",
        "'graph' (string[]): string is no number: it can be copied, renamed and dropped",
    )


def test_what_matches_nothing_names_what_is_near(model):
    near = "'dense/kernel', 'dense/bias', 'head/kernel'"
    message = f"no tensor 'dense/kernal'; did you mean {near}?"
    assert refused(model, "dense/kernal = 0", message).tensor == "dense/kernal"
    refused(model, "zzz/** = 0", "no tensor matches 'zzz/**'")
    refused(model, 'step = t("stop")', "no tensor 'stop'; did you mean 'step'?")
    refused(
        model,
        "copy hed/kernel -> a",
        "no tensor 'hed/kernel'; did you mean 'head/kernel', 'dense/kernel'?",
    )


@pytest.mark.parametrize(
    ("glob", "matches", "leaves"),
    [
        ("*", ["a", "a-b:0"], ["a/b"]),
        ("**", ["a", "a/b/c"], []),
        ("**/kernel", ["kernel", "a/kernel", "a/b/kernel"], ["a/skernel", "kernel/a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("a.[b]*", ["a.[b]", "a.[b]c"], ["axb"]),
    ],
)
def test_globs(glob, matches, leaves):
    match = glob_pattern(glob).fullmatch
    assert all(map(match, matches))
    assert not any(map(match, leaves))


def test_rename_shares_the_rows_and_carries_what_was_changed(model):
    renamed = apply_all(
        model, map(parse, ["dense/bias = 0", r"rename ^dense/(.*) -> d/\1"])
    ).catalog
    assert list(renamed)[:3] == ["d/kernel", "d/bias", "head/kernel"]
    assert renamed.rows is model.rows
    assert renamed["d/kernel"] == model["dense/kernel"]
    assert isinstance(renamed["d/bias"].source, Derived)


@pytest.mark.parametrize(
    ("pattern", "template", "name", "expected"),
    [
        (r"(a)|(b)", r"<\1\2>", "ab", "<a><b>"),
        (r"(?P<n>\w+)/(\w+)", r"\g<2>%\g<n>%", "x/y", "y%x%"),
        (r"^.", r"[\g<0>]", "ab", "[a]b"),
        (r"b", r"\\1\n", "abc", "a\\1\nc"),
        (r"(b)", r"\g<1>0", "abc", "ab0c"),
    ],
)
def test_templates_are_those_of_re(pattern, template, name, expected):
    change = Rename(pattern, template).apply(catalog(**{name.replace("/", "__"): "int8"}))
    assert change.touched == (expected,)


def test_renames_that_do_nothing_or_collide_are_refused(model):
    refused(model, "rename nothing -> x", "'nothing' matches no name")
    refused(model, "rename dense -> dense", "'dense' matches, but every name stays as it is")
    refused(
        model,
        "rename ^(dense|head) -> a",
        "'dense/kernel' and 'head/kernel' would both become 'a/kernel'",
    )
    refused(model, 'rename ^q$ -> ""', "'q' would have no name left")


def test_drop_and_keep_select_rows(model):
    dropped = apply(model, "drop **/kernel")
    assert list(dropped.catalog) == ["dense/bias", "step", "graph", "q"]
    assert list(dropped.catalog.rows) == [1, 3, 4, 5]
    assert dropped.touched == ("dense/kernel", "head/kernel")
    kept = apply(apply(model, "dense/* = 0").catalog, "keep dense/bias")
    assert list(kept.catalog) == ["dense/bias"]
    assert list(kept.catalog.changed) == ["dense/bias"]


def test_copy_shares_the_source(model):
    copied = apply(model, "copy graph -> again").catalog
    assert list(copied)[-1] == "again"
    assert copied["again"] == model["graph"]
    assert isinstance(copied["again"].source, Stored)
    derived = apply_all(model, map(parse, ["step = 3", "copy step -> s"])).catalog
    assert derived["s"] is derived["step"]
    refused(model, "copy step -> graph", "there is a tensor 'graph' already")


def test_cast_changes_the_dtype_within_a_family(model):
    change = apply(model, "cast ** -> bfloat16")
    assert change.touched == ("dense/kernel", "dense/bias")
    assert change.catalog["dense/kernel"].spec.dtype == "bfloat16"
    assert change.catalog["dense/kernel"].source.kernel.label == "cast bfloat16"
    assert change.notes == (PASSED_OVER,)
    assert apply(model, "cast step -> float32").catalog["step"].spec.dtype == "float32"
    assert apply(model, "cast head/kernel -> bfloat16").touched == ()
    refused(model, Cast("step", "qint8"), "nothing can be cast to qint8")
    refused(model, Cast("step", "float31"), "there is no dtype 'float31'")
    refused(
        model,
        "cast q -> int8",
        "'q' (qint8[2]): qint8 has no scale, so that its values are not known:"
        " it can be copied, renamed and dropped",
    )


def test_map_hands_a_function_over(model):
    change = Map("**/kernel", np.abs).apply(model)
    assert change.touched == ("dense/kernel", "head/kernel")
    assert change.catalog["dense/kernel"].source.kernel == MapFunction(np.abs)
    flags = Map("dense/bias", np.isnan, "bool").apply(model).catalog["dense/bias"]
    assert flags.spec.dtype == "bool"


def test_put_adds_and_replaces(model):
    change = apply_all(model, [Put("new", np.float32([1, 2])), Put("step", np.int32(7))])
    assert list(change.catalog)[-1] == "new"
    assert change.catalog.row("new") == -1
    assert str(change.catalog["new"].spec) == "float32[2]"
    assert str(change.catalog["step"].spec) == "int32[]"
    assert change.catalog["step"].source.kernel.array() == 7
    assert list(change.catalog)[:-1] == list(model)
    with pytest.raises(EditError, match="a tensor needs a name"):
        Put("", 1)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.array([1, -1, 256], ">i2"),
        np.array(True),
        np.array([1 + 2j], np.complex64),
        np.array([0.5, -1], numpy_dtype("bfloat16")),
        np.array([-8, 7, -1], numpy_dtype("int4")),
        np.array([3, 1], numpy_dtype("uint2")),
        np.zeros((0, 3), np.int8),
    ],
)
def test_put_encodes_any_array(values):
    constant = Put("a", values).constant
    assert constant.spec.nbytes == len(constant.payload)
    np.testing.assert_array_equal(constant.array().astype(object), values.astype(object))


def test_put_stores_small_integers_with_their_upper_bits_clear():
    assert Put("a", np.array([-1, 7], numpy_dtype("int4"))).constant.payload == b"\x0f\x07"
    assert Put("a", np.array([-1], numpy_dtype("int2"))).constant.payload == b"\x03"


def test_put_encodes_text():
    assert Put("a", b"x\0").constant.elements == (b"x\0",)
    assert Put("a", "é").constant.elements == ("é".encode(),)
    nested = Put("a", [["a", "bc"], ["", b"\0"]]).constant
    assert (nested.spec.shape, nested.spec.dtype) == ((2, 2), "string")
    assert nested.array().tolist() == [[b"a", b"bc"], [b"", b"\0"]]
    for values in ([None], np.array(["2020"], "datetime64[Y]"), np.longdouble(1)):
        with pytest.raises(EditError, match=r"no checkpoint holds|text or bytes alone"):
            Put("a", values)


def test_edits_pickle_compare_and_print_as_statements():
    edits = [
        Assign("a b", Current(), Region((0,))),
        Rename("^a b", ""),
        Drop("**/Adam*"),
        Keep('odd "name"'),
        Cast("a=b", "int8"),
        Copy("drop", "->"),
    ]
    assert list(map(str, edits)) == [
        '"a b"[0] = x',
        'rename ^a b -> ""',
        "drop **/Adam*",
        r'keep "odd \"name\""',
        'cast "a=b" -> int8',
        'copy "drop" -> "->"',
    ]
    for edit in edits:
        assert parse(str(edit)) == edit
        assert pickle.loads(pickle.dumps(edit)) == edit  # noqa: S301 - our own bytes
    assert str(Map("a*", np.abs, "int8")) == "Map('a*', absolute, 'int8')"
    assert str(Put("a", np.int8([1]))) == "Put('a', int8[1])"
    assert quoted("layer-0/k:0") == "layer-0/k:0"
    assert isinstance(Put("a", 1).constant, Constant)


def test_an_error_of_many_edits_ends_with_the_statement(model):
    with pytest.raises(EditError) as caught:
        apply_all(model, [parse("step = 1"), parse("stop = 1")])
    assert caught.value.message == "no tensor 'stop'; did you mean 'step'?\n  in: stop = 1"
    assert caught.value.tensor == "stop"


def test_notes_of_many_edits_begin_with_the_statement(model):
    assert apply_all(model, [parse("step = 1"), parse("** = 0")]).notes == (
        "** = 0: passed over 2 tensors that are not numbers: graph (string), q (qint8)",
    )
