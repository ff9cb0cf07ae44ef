"""Globs: what they match, and what their groups stand for."""

from __future__ import annotations

import numpy as np
import pytest

from ckptkit.catalog import Catalog
from ckptkit.columns import Columns
from ckptkit.edits import Put, apply_all
from ckptkit.errors import EditError
from ckptkit.globs import glob_pattern, select, select_groups
from ckptkit.kernels import Constant
from ckptkit.language import parse

NAMES = (
    "conv/kernel",
    "head/dense/kernel",
    "head/dense/bias",
    "odd(1)/kernel",
    "odd(x)/bias",
    "kernel",
    "new\nline/kernel",
)


def catalog(*names):
    """Make a catalog of tensors, each of which holds its number."""
    puts = [Put(name, np.float32(number)) for number, name in enumerate(names)]
    return apply_all(Catalog([], range(0), Columns()), puts).catalog


@pytest.fixture
def model():
    return catalog(*NAMES)


@pytest.mark.parametrize(
    ("glob", "groups"),
    [
        ("(*)/kernel", {
            "conv/kernel": ("conv",), "odd(1)/kernel": ("odd(1)",),
            "new\nline/kernel": ("new\nline",),
        }),
        ("(**)/kernel", {
            "conv/kernel": ("conv",), "head/dense/kernel": ("head/dense",),
            "odd(1)/kernel": ("odd(1)",), "new\nline/kernel": ("new\nline",),
        }),
        ("**/(*)/bias", {"head/dense/bias": ("dense",), "odd(x)/bias": ("odd(x)",)}),
        ("(**/)kernel", {
            "conv/kernel": ("conv/",), "head/dense/kernel": ("head/dense/",), "kernel": ("",),
            "odd(1)/kernel": ("odd(1)/",), "new\nline/kernel": ("new\nline/",),
        }),
        ("(*)/(d*)/(?)ias", {"head/dense/bias": ("head", "dense", "b")}),
        ("(h*/(*))/bias", {"head/dense/bias": ("head/dense", "dense")}),
        ("((c*))/kernel", {"conv/kernel": ("conv", "conv")}),
        ("head/(*)/*", {"head/dense/kernel": ("dense",), "head/dense/bias": ("dense",)}),
    ],
)  # fmt: skip
def test_groups(model, glob, groups):
    found = {name: rest for name, (whole, *rest) in select_groups(model, glob) if whole == name}
    assert found == {name: list(rest) for name, rest in groups.items()}


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("odd(1)/kernel", ["odd(1)/kernel"]),
        ("odd(?)/kernel", EditError),
        ("odd(1)/*", ["odd(1)/kernel"]),
        ("*(x)/*", ["odd(x)/bias"]),
        ("*(1)/kernel", ["odd(1)/kernel"]),
        ("conv/kernel", ["conv/kernel"]),
        ("(conv)/kernel", EditError),
    ],
)
def test_parentheses_with_no_wildcard_in_them_are_those_of_the_name(model, target, names):
    if names is EditError:
        with pytest.raises(EditError, match="no tensor"):
            select(model, target)
    else:
        assert list(select(model, target)) == names
        assert [name for name, _ in select_groups(model, target)] == names


def test_a_name_has_no_group_but_itself(model):
    assert list(select_groups(model, "odd(1)/kernel")) == [("odd(1)/kernel", ("odd(1)/kernel",))]


@pytest.mark.parametrize(
    ("glob", "message"),
    [
        ("(*", None),
        ("*)", None),
        ("((*)/kernel", "missing ), unterminated subpattern at position 0"),
        ("(*)/kernel(", "missing ), unterminated subpattern at position 14"),
        (")(*)", "unbalanced parenthesis at position 0"),
        ("(*)" * 150, None),
    ],
)
def test_groups_that_do_not_close(glob, message):
    if message is None:
        assert glob_pattern(glob).groups in {0, 150}
        return
    with pytest.raises(EditError) as caught:
        glob_pattern(glob)
    assert caught.value.message == f"{glob!r} is no glob: {message}"


def parents(change):
    """Return the numbers in the tensors that each changed one takes besides itself."""
    return {
        name: [
            parent.source.kernel.array().item()
            for parent in change.catalog.changed[name].source.parents[1:]
            if isinstance(parent.source.kernel, Constant)
        ]
        for name in change.touched
    }


def test_groups_name_other_tensors():
    both = catalog("a/k", "b/k", "old/a/k", "old/b/k", "a/k.scale", "b/k.scale")
    change = apply_all(both, [parse('"(?)/(k)" = t("old/{1}/{2}") * t("{0}.scale")')])
    assert parents(change) == {"a/k": [2, 4], "b/k": [3, 5]}


def test_groups_of_a_name_that_is_not_there():
    with pytest.raises(EditError, match="no tensor 'old/a/k'"):
        apply_all(catalog("a/k"), [parse('"(*)/k" = t("old/{1}/k")')])


def test_braces_that_hold_no_number_are_those_of_the_name():
    both = catalog("a", "x{y}", "x{}", "x{123}")
    for name in ("x{y}", "x{}", "x{123}"):
        assert apply_all(both, [parse(f'a = t("{name}")')]).touched == ("a",)
