"""The edit language: what parses to what, and how an error points at the place."""

import sys
from subprocess import run

import numpy as np
import pytest

from ckptkit import globs
from ckptkit.catalog import Catalog
from ckptkit.columns import Columns
from ckptkit.edits import Assign, Cast, Map, Put, apply_all
from ckptkit.errors import EditError
from ckptkit.expressions import (
    DRAWS,
    FUNCTIONS,
    OPS,
    REDUCTIONS,
    SHORTHANDS,
    Apply,
    Call,
    Convert,
    Current,
    Draw,
    Number,
    Other,
    Reduce,
    Size,
)
from ckptkit.language import REFERENCE, parse, parse_all
from ckptkit.language.statements import VERBS
from ckptkit.naming import Copy, Drop, DropOptimizerState, Keep, Rename, RenameObject
from ckptkit.region import Region

X = Current()


def times(value):
    return Call("multiply", (X, Number(value)))


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("head/bias = 0", Assign("head/bias", Number(0))),
        ("**/kernel *= 0.5", Assign("**/kernel", times(0.5))),
        ("conv1/* += 0.01", Assign("conv1/*", Call("add", (X, Number(0.01))))),
        ("a-b/c:0 -= x", Assign("a-b/c:0", Call("subtract", (X, X)))),
        ("** /= 2", Assign("**", Call("divide", (X, Number(2))))),
        ("w=2", Assign("w", Number(2))),
        ("w/ = 2", Assign("w/", Number(2))),
        ("w[0]*=2", Assign("w", times(2), Region((0,)))),
        ("w [0] *= 2", Assign("w", times(2), Region((0,)))),
        ("dense/kernel[:, 1] *= 1.5", Assign("dense/kernel", times(1.5), Region((slice(None), 1)))),
        ("w[..., 0:3] = 1", Assign("w", Number(1), Region((..., slice(0, 3))))),
        ("w[-2, :-1, ::2,] = 1", Assign(
            "w", Number(1), Region((-2, slice(None, -1), slice(None, None, 2)))
        )),
        ('"odd name [1]"[0] = t("other/name")',
            Assign("odd name [1]", Other("other/name"), Region((0,)))),
        (r'"say \"a\\b\""*=2', Assign('say "a\\b"', times(2))),
        ("drop/kernel *= 2", Assign("drop/kernel", times(2))),
        ("drop *= 2", Assign("drop", times(2))),
        ("rename = 1", Assign("rename", Number(1))),
        ("keep [0] = 1", Assign("keep", Number(1), Region((0,)))),
        ("layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE = x",
            Assign("layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE", X)),
        ("drop **/Adam*", Drop("**/Adam*")),
        ('  keep\t"a b" ', Keep("a b")),
        ("cast ** -> bfloat16", Cast("**", "bfloat16")),
        ("copy a->b -> c", Copy("a->b", "c")),
        (r"rename ^old/(.*) -> new/\1", Rename("^old/(.*)", r"new/\1")),
        (r"rename [a-z]+=(.) -> \g<1> x", Rename("[a-z]+=(.)", r"\g<1> x")),
        ('rename ^model/ -> ""', Rename("^model/", "")),
        ("rename graph:a/b -> graph:c", RenameObject("a/b", "c")),
        ('rename "graph:a b" -> graph:c', RenameObject("a b", "c")),
        ("drop optimizer state", DropOptimizerState()),
        ("drop  optimizer   state  ", DropOptimizerState()),
        ('drop "optimizer state"', Drop("optimizer state")),
        ("drop optimizer", Drop("optimizer")),
        ("keep graph:**/kernel", Keep("graph:**/kernel")),
        (r'rename "a -> \"b\\d" -> "c"', Rename(r'a -> "b\d', "c")),
    ],
)  # fmt: skip
def test_statements(text, edit):
    parsed = parse(text)
    assert parsed == edit
    assert parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("-x ** 2", "-(x ** 2)"),
        ("2 ** -x ** 3", "2 ** (-(x ** 3))"),
        ("2 ** 3 ** x", "2 ** (3 ** x)"),
        ("x - 1 - 2", "(x - 1) - 2"),
        ("x / 2 * 3", "(x / 2) * 3"),
        ("1 + x * 2 // 3 % 4", "1 + (((x * 2) // 3) % 4)"),
        ("not x < 1 and x > 2 or x == 3", "((not (x < 1)) and (x > 2)) or (x == 3)"),
        ("+x", "x"),
        ("--x", "-(-x)"),
        ("add(x, 1)", "x + 1"),
        ("logical_and(x > 0, not (x > 1))", "x > 0 and not x > 1"),
        ("t('a b')", 't("a b")'),
        ('cast(x, "int8")', "cast(x, int8)"),
    ],
)
def test_precedence_is_that_of_python(text, meaning):
    expr = parse(f"w = {text}").expr
    assert expr == parse(f"w = {meaning}").expr
    assert parse(f"w = {expr}").expr == expr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1_000", 1000),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("2.", 2.0),
        ("2j", 2j),
        ("True", True),
        ("inf", float("inf")),
        ("nan", float("nan")),
    ],
)
def test_numbers(text, value):
    assert parse(f"w = {text}").expr == Number(value)


def test_numbers_of_different_types_differ():
    assert len({Number(1), Number(1.0), Number(True), Number(1 + 0j), Number(1)}) == 4


def test_a_cast_is_a_node_of_its_own():
    assert parse("w = cast(round(x), int32)").expr == Convert(Call("round", (X,)), "int32")


@pytest.mark.parametrize(
    ("text", "expr"),
    [
        ("mean(x)", Reduce("mean", X)),
        ("mean(x, 0)", Reduce("mean", X, (0,))),
        ("mean(x, axis=[0, -1])", Reduce("mean", X, (0, -1))),
        ("quantile(x, 0.5)", Reduce("quantile", X, None, 0.5)),
        ("size()", Size(None)),
        ("shape(-1)", Size(-1)),
        ("normal() - uniform(seed=7)", Call("subtract", (
            Draw("normal", 0, 1), Draw("uniform", 7, 2)
        ))),
        ("normal(1, 2)", Call("add", (
            Number(1), Call("multiply", (Number(2), Draw("normal", 0, 1)))
        ))),
        ("normal(shape=[2, 3])", Draw("normal", 0, 1, (2, 3))),
        ("x[0, ..., ::2]", Apply(
            "slice", (X,), region=Region((0, ..., slice(None, None, 2)))
        )),
        ('t("a") @ x', Apply("matmul", (Other("a"), X))),
        ("x * x @ x", Apply("matmul", (Call("multiply", (X, X)), X))),
        ("take(x, [2, 0], axis=1)", Apply("take", (X,), (("indices", (2, 0)), ("axis", 1)))),
        ("take(x, axis=1, indices=[2])", Apply("take", (X,), (("indices", (2,)), ("axis", 1)))),
        ("pad(x, [1, 2], value=-1.5)", Apply("pad", (X,), (("widths", (1, 2)), ("value", -1.5)))),
        ("concat(x, x, axis=-1)", Apply("concat", (X, X), (("axis", -1),))),
        ('resize(x, 9, fill="mean")', Apply("resize", (X,), (("size", 9), ("fill", "mean")))),
        ("stochastic(x, int8)", Apply("stochastic", (X,), (("dtype", "int8"), ("number", 1)))),
        ("repair(x)", Call("where", (Call("isfinite", (X,)), X, Number(0)))),
    ],
)  # fmt: skip
def test_functions(text, expr):
    parsed = parse(f"w = {text}").expr
    assert parsed == expr
    assert parse(f"w = {parsed}").expr == expr


def test_parse_all_takes_edits_as_they_are():
    edit = Map("a", abs)
    assert parse_all(["drop a", edit]) == (Drop("a"), edit)


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("", "expected a statement: TARGET = EXPR, rename, drop, keep, cast, and so on", 0),
        ("w", "expected =, +=, -=, *= or /=", 1),
        ("w == 2", "expected =, +=, -=, *= or /=", 2),
        ("w **= 2", "expected =, +=, -=, *= or /=", 2),
        ("w/= 2", "put a space before the operator: w /= ...", 1),
        ("*= 2", "expected a target before *=", 0),
        ("w =", "expected a value", 3),
        ("w = x +", "expected a value", 7),
        ("w = x * * 2", "expected a value", 8),
        ("w = (x", "expected ')'", 6),
        ("w = x 2", "expected an operator or the end", 6),
        ("w = x $ 2", "expected an operator or the end", 6),
        ("w = 1x", "this is not a number", 4),
        ("w = 1e999j", "this number is too large", 4),
        ("w = y", "no value 'y': only x and t(\"name\") stand for tensors", 4),
        ("w = relu", "relu is a function: write relu(...)", 4),
        ("w = sqr(x)", "there is no function 'sqr'; did you mean sqrt, square?", 4),
        ("w = zzz(x)", "there is no function 'zzz'", 4),
        ("w = clip(x, 0)", "clip() takes 3 arguments, not 2", 4),
        ("w = exp(x, 0)", "exp() takes 1 argument, not 2", 4),
        ("w = clip(x, min=0)", "arguments are given by place, not by name", 15),
        ("w = norm", "norm is a function: write norm(...)", 4),
        ("w = max(x, 0)", ("max() takes its axis by name, as in axis=0;"
            " for two values write maximum(a, b)"), 11),
        ("w = min(x, x)", ("min() takes its axis by name, as in axis=0;"
            " for two values write minimum(a, b)"), 11),
        ("w = min()", "min() takes 1 argument, not 0; for two values write minimum(a, b)", 4),
        ("w = mean(x, axes=0)", "mean() has no argument 'axes'; it takes axis", 12),
        ("w = mean(x, axis=0, axis=1)", "axis is given twice", 20),
        ("w = mean(x, axis=)", "expected a value", 17),
        ("w = mean(x, axis=x)", "expected a number", 17),
        ("w = mean(x, axis=[0, 1.5])", "expected an integer", 21),
        ("w = mean(x, axis=[0 1])", "expected ','", 20),
        ("w = mean(x, 0, 1)", "mean() takes no further argument", 15),
        ("w = reshape(x)", "reshape() needs shape", 4),
        ("w = quantile(x)", "quantile() needs fraction", 4),
        ("w = quantile(x, 2)", "the fraction of a quantile lies between 0 and 1", 18),
        ("w = median(x, axis=0)",
            "median() has no argument 'axis'; it takes no arguments by name", 14),
        ("w = pad(x, [1])", "pad() takes two widths, before and after: [1, 2]", 15),
        ("w = sparsify(x, 2)", "sparsify() needs group", 4),
        ("w = stochastic(x, int33)",
            "there is no dtype 'int33' to cast to; did you mean int32, uint32, int8?", 18),
        ("w = resize(x, 3, fill=ones)",
            "expected zeros, mean, normal or a row's number", 22),
        ("w = take(x, [2, 0], 1, 5)", "take() takes no further argument", 23),
        ("w = normal(seed=1.5)", "expected an integer", 16),
        ("w = size(1)", "size() takes no further argument", 9),
        ("w = index()", "index() needs axis", 4),
        ("w = x @", "expected a value", 7),
        ("w = x[a]", "expected an integer, a slice or ...", 6),
        ("w = x[0", "expected a closing bracket", 6),
        ('w = t("a", 1)', "expected ')'", 9),
        ("w = 1 < x < 2", "comparisons do not chain: write a < b and b < c", 10),
        ("w = x.T", "attributes and methods are not part of the language", 5),
        ("w = x if x else 2", "there is no if: write where(condition, a, b)", 6),
        ("w = lambda: 1",
            "there are no functions of your own here; in Python, use ckptkit.Map", 4),
        ("w = x & 1", "write `and`", 6),
        ("w = x = 2", "one statement assigns once; to compare, write ==", 6),
        ('w = "a"', 'text stands only in t("name") and cast(x, "dtype")', 4),
        ('w = "a', "this quote is never closed", 4),
        ("w = t(x)", 'expected the name of a tensor in quotes: t("name")', 6),
        ("w = cast(x, int33)",
            "there is no dtype 'int33' to cast to; did you mean int32, uint32, int8?", 12),
        ("w = cast(x, qint8)",
            "there is no dtype 'qint8' to cast to; did you mean int8, uint8, int4?", 12),
        ("w[0 = 1", "expected a closing bracket", 2),
        ("w[] = 1", "expected an integer, a slice or ...", 2),
        ("w[0, a] = 1", "expected an integer, a slice or ...", 5),
        ("w[..., ...] = 1", "a region has one '...' at most", 1),
        ("drop", "expected a name or a glob", 4),
        ("drop a b", "the statement ends here", 7),
        ("drop a[0]", 'to use quotes or brackets in a name or a glob, put it in "..."', 6),
        ("copy a b", "expected ' -> ' and a name", 7),
        ("cast a -> bfloat",
            "there is no dtype 'bfloat' to cast to; did you mean bfloat16, float64, float32?", 10),
        ("cast w -> bfloat16 rounding=up", "rounding is nearest or stochastic", 28),
        ("cast w -> bfloat16 seed=3", "a seed is for rounding=stochastic", 24),
        ("cast w -> bfloat16, int8", "expected a dtype", 20),
        ("noise w -> 0.1 seed=1 seed=2", "seed is given twice", 22),
        ("noise w -> 0.1 speed=1",
            "there is no option 'speed' here; there are seed; did you mean seed?", 15),
        ("noise w -> 0.1 seed=", "expected a value for seed", 20),
        ("noise w -> 0.1 seed=1.5", "expected an integer, not '1.5'", 20),
        ("clip w -> 1", "expected two numbers: LOW, HIGH", 11),
        ("clip w -> 1, a", "expected a number, not 'a'", 13),
        ("clip w -> 1, 2 axis=0", "there is no option 'axis' here", 15),
        ("repair w 0", "the statement ends here", 9),
        ("prune w -> half", "expected a part, such as 50% or 0.5, or groups, such as 2:4", 11),
        ("prune w -> 150%",
            "a part between 0 and 1 (0% and 100%) can be pruned, not 1.5", 11),
        ("prune w -> 2:4 scope=tensor", "a scope is for a part of all", 21),
        ("prune w -> 50% axis=1", "an axis is for groups, such as 2:4", 20),
        ("quantize w -> int4", "tensors are quantized to int8", 14),
        ("transpose w -> 1, x", "expected an integer, not 'x'", 18),
        ("reshape w", "expected ' -> ' and a shape", 9),
        ("take w -> 0,", "expected rows", 12),
        ("resize w -> -1", "a length is not below 0", 12),
        ("resize w -> 3 fill=ones", "expected zeros, mean, normal or a row's number", 19),
        ("split w -> a, b sizes=3,x", "expected an integer, not 'x'", 22),
        ("concat a b -> c", "expected ' -> ' and a name", 9),
        ("stack a* -> b, c", "expected a name", 15),
        ("lora w -> a", "expected the names of two matrices: A, B", 11),
        ("foldbn k -> bn depthwise=yes", "expected depthwise=true or depthwise=false", 25),
        ("new w", "expected =", 5),
        ("new w[0] = 1", "expected =", 5),
        ("new = 1 = 2", "one statement assigns once; to compare, write ==", 8),
        ("rename a", "expected rename REGEX -> TEMPLATE", 7),
        ("rename -> b", "expected a regular expression", 7),
        ("rename graph:a -> b", "objects are renamed to objects: put graph: before both sides", 7),
        ("rename a -> graph:b", "objects are renamed to objects: put graph: before both sides", 7),
        ("drop optimizer states", "the statement ends here", 15),
        ("keep optimizer state", "the statement ends here", 15),
        ("rename ^a/ -> ", 'expected a template ("" for nothing)', 14),
        ("rename a -> b -> c", 'a second "->": put the side that holds it in "..."', 14),
        ("rename (a -> b", ("not a regular expression with its template:"
            " missing ), unterminated subpattern at position 0"), 7),
    ],
)  # fmt: skip
def test_an_error_points_at_the_place(text, message, column):
    with pytest.raises(EditError) as caught:
        parse(text)
    assert caught.value.message == f"{message}\n  {text}\n  {' ' * column}^"
    assert caught.value.offset == column
    assert str(caught.value) == caught.value.message


def test_a_long_statement_is_shown_around_the_place():
    with pytest.raises(EditError) as caught:
        parse("w = " + "1 + " * 50 + "y" + " + 1" * 20)
    _, shown, caret = caught.value.message.split("\n")
    assert shown[caret.index("^")] == "y"
    assert len(shown) < 130
    assert caught.value.offset == 204


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w = " + "(" * 500 + "x", "an expression goes 100 levels deep at most"),
        ("w = " + "-" * 9000 + "x", "an expression goes 100 levels deep at most"),
        ("w = x" + " ** x" * 1900, "an expression goes 100 levels deep at most"),
        ("w = x" + "+1" * 4000, "an expression goes 100 levels deep at most"),
        ("w = " + "abs(" * 2000, "an expression goes 100 levels deep at most"),
        ("w = " + "9" * 9000, "an integer has 400 digits at most"),
        ("w = " + "x" * 10_000, "a statement of 10004 characters is over the limit of 10000"),
        ("rename " + "(" * 4000 + " -> a", "not a regular expression with its template"),
    ],
)
def test_no_text_exhausts_the_machine(text, message):
    with pytest.raises(EditError) as caught:
        parse(text)
    assert caught.value.message.startswith(message)


EMPTY = Catalog([], range(0), Columns())
CATALOG = apply_all(
    EMPTY,
    [
        Put("a/kernel", np.ones((2, 3), "float32")),
        Put("b/kernel", np.ones((2, 3), "float32")),
        Put("scale", np.ones(3, "float32")),
        Put("step", 1),
    ],
).catalog.bound({"donor": apply_all(EMPTY, [Put("only", 1.0)]).catalog})

SCALE = "'scale' (float32[3]): "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"(*)/kernel" = t("{2}/kernel")',
            ("'a/kernel' (float32[2, 3]): {2} in '{2}/kernel': the target has 1 groups;"
            " write (*) for one")),
        ('scale = t("{1}")',
            SCALE + "{1} in '{1}': the target has 0 groups; write (*) for one"),
        ('scale = t("teacher:k")',
            ("no tensor 'teacher:k'; nor is a checkpoint bound to 'teacher':"
            " --with teacher=PATH")),
        ('scale = t("donor:scale")', "no tensor 'scale'"),
        ('scale = t("scal")', "no tensor 'scal'; did you mean 'scale'?"),
        ("new scale = 1", "there is a tensor 'scale' already"),
        ("new more = x + 1", "there is no tensor 'more' yet that x could stand for"),
        ("new more = index(0)", "there is no tensor 'more' yet that x could stand for"),
        ('"(*)/kernel(" = 1',
            "'(*)/kernel(' is no glob: missing ), unterminated subpattern at position 14"),
        ("scale = sum(x, axis=1)", SCALE + "there is no axis 1 in 1 axes"),
        ("scale = sum(x, axis=[0, -1])", SCALE + "an axis is named twice in [0, -1]"),
        ("scale = any(x)",
            SCALE + "any() is not defined for float32; compare first, as in x != 0"),
        ('scale = t("a/kernel")[5]',
            SCALE + "region [5]: index 5 is outside axis 0, which has 2 elements"),
        ('scale = transpose(t("a/kernel"), [0, 0])',
            SCALE + "[0, 0] are not the axes of float32[2, 3], each once"),
        ('scale = x + transpose(t("a/kernel"))',
            SCALE + "the shapes [3], [3, 2] do not go together"),
        ('scale[0] = transpose(t("a/kernel"))',
            SCALE + 'shape [3, 2] of transpose(t("a/kernel")) does not broadcast to []'),
        ("scale = take(x, [3])", SCALE + "index 3 is outside axis 0 of float32[3]"),
        ("step = mean(x)",
            ("'step' (int64[]): mean(x) gives float64, which does not go into int64:"
            " write cast(round(mean(x)), int64)")),
        ("quantize */kernel -> int8 scale=s",
            ("'b/kernel' (float32[2, 3]): two scales would be named 's';"
            " {0} is the name of the tensor")),
    ],
)  # fmt: skip
def test_what_an_edit_finds_wrong_with_a_checkpoint(text, message):
    with pytest.raises(EditError) as caught:
        apply_all(CATALOG, [parse(text)])
    assert caught.value.message == f"{message}\n  in: {text}"


def test_the_verbs_that_names_are_told_from_are_all_there_are():
    assert set(globs.VERBS) == set(VERBS)
    for verb in VERBS:
        assert parse(str(Assign(verb, Other("a -> b")))) == Assign(verb, Other("a -> b"))


def test_the_reference_has_every_operation():
    for name, op in OPS.items():
        assert f" {op.symbol} " in REFERENCE if op.symbol else f"  {name}(" in REFERENCE
    for name in (*REDUCTIONS, *DRAWS, *SHORTHANDS, *FUNCTIONS):
        assert f"  {name}(" in REFERENCE or name in {"matmul", "slice"}, name
    for verb in VERBS:
        assert f"\n  {verb} " in REFERENCE
    assert all(len(line) <= 100 for line in REFERENCE.splitlines())


def test_parsing_imports_no_numpy():
    code = "import sys; from ckptkit.language import parse; parse('w[0] *= 2')"
    check = "; assert not {'numpy', 'ml_dtypes', 'tensorflow'} & set(sys.modules), sys.modules"
    assert run([sys.executable, "-c", code + check], check=False).returncode == 0
