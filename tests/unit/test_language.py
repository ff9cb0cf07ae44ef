"""The edit language: what parses to what, and how an error points at the place."""

import sys
from subprocess import run

import pytest

from ckptkit.edits import Assign, Cast, Copy, Drop, Keep, Map, Rename
from ckptkit.errors import EditError
from ckptkit.expressions import OPS, Call, Convert, Current, Number, Other
from ckptkit.language import REFERENCE, parse, parse_all
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


def test_parse_all_takes_edits_as_they_are():
    edit = Map("a", abs)
    assert parse_all(["drop a", edit]) == (Drop("a"), edit)


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("", "expected a statement: TARGET = EXPR, rename, drop, keep, cast or copy", 0),
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
        ("w = x / norm(x)", "norm() reduces the whole tensor, which this version cannot do yet", 8),
        ("w = max(x, 0)", ("max() reduces the whole tensor, which this version cannot do yet;"
            " for two values write maximum(a, b)"), 4),
        ("w = normal()", "normal() draws random numbers, which this version cannot do yet", 4),
        ("w = 1 < x < 2", "comparisons do not chain: write a < b and b < c", 10),
        ("w = x[0]", "a region belongs to the target, before the operator", 5),
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
        ("rename a", "expected rename REGEX -> TEMPLATE", 7),
        ("rename -> b", "expected a regular expression", 7),
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


def test_the_reference_has_every_operation():
    for name, op in OPS.items():
        assert f" {op.symbol} " in REFERENCE if op.symbol else f"  {name}(" in REFERENCE
    assert all(len(line) <= 100 for line in REFERENCE.splitlines())


def test_parsing_imports_no_numpy():
    code = "import sys; from ckptkit.language import parse; parse('w[0] *= 2')"
    check = "; assert not {'numpy', 'ml_dtypes', 'tensorflow'} & set(sys.modules), sys.modules"
    assert run([sys.executable, "-c", code + check], check=False).returncode == 0
