"""The language on one page, from the tables that it is read by."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from ckptkit.expressions import DRAWS, FUNCTIONS, OPS, REDUCTIONS, SHORTHAND_FORMS
from ckptkit.language.statements import VERBS

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH: Final = 34
_MOST: Final = 100
"""Characters of a line."""

_HEAD: Final = """\
One statement is one edit:

  TARGET = EXPR                     give values; also +=  -=  *=  /=
  TARGET[REGION] = EXPR             give values to a part: integers, slices, ...
"""

_TARGETS: Final = """
A TARGET is a name or a glob: * and ? stay within a segment, ** goes across. Put it in "..." where
it holds spaces, brackets, quotes or =. A glob passes over tensors of a kind that does not fit. What
stands in parentheses in a glob is a group: "**/(*)/kernel" = t("teacher/{1}/kernel"); {0} is the
whole name. With --with donor=PATH, t("donor:NAME") is a tensor of another checkpoint.

In a Keras file layer:head/kernel is the kernel of the layer that is called head, whatever it is
called in the file: `ckptkit ls` lists these names in the column "layer". A glob may follow, as in
layer:*/kernel, and t("layer:head/kernel") reads it. rename goes by the names in the file.

In a TensorFlow checkpoint of objects graph:model/dense/kernel is the tensor of the object that this
path leads to from the root, whatever the tensor is called: every path of a shared object counts,
and a glob may follow (`ckptkit ls --graph` shows the tree). new graph:a/b = ... and copy NAME ->
graph:a/b add an object, rename graph:a/b -> graph:c/d moves one with all below it. Whatever is
renamed, left out or added, the object graph changes with it, so that objects of the new names
restore. "drop optimizer state" leaves out what only optimizers have; a glob that would take along
weights which are merely named after an optimizer is refused.

An EXPR is made of (operators bind as in Python; * marks what devices may round differently, and
--strict refuses, as it does products, quotients, squares, roots and magnitudes of complex numbers):

"""

_REDUCED: Final = """
Reductions are computed in a pass of their own before the edit, in float64 where they sum, and
rounded once. An axis, or several as axis=[0, 1], is optional; it stays, with size 1:

"""

_DRAWN: Final = """
Random numbers follow from the seed, the name of the tensor and the index of the element: the same
for every block size, job count and device. seed=7 gives others; shape=[2, 3] is for new tensors:

"""

_SHAPES: Final = """
Functions that see more than one element. A tensor takes the shape of an expression with one of
them, where no region is given:

"""


def _rows() -> Iterator[tuple[str, str]]:
    yield "x", "the current values of the target, or of its region"
    yield 't("name")', "another tensor, which broadcasts to the target"
    yield "1  2.5  1e-3  2j  inf  nan  True", "numbers; they take the dtype of the tensors"
    yield "cast(a, dtype)", "conversion; floats to integers truncate and saturate"
    yield "index(axis)", "the index of the element along an axis of its tensor"
    yield "shape(axis)  size()", "the length of an axis, the number of elements"
    for name, op in OPS.items():
        args = list("abc"[: op.arity])
        if op.symbol:
            form = f" {op.symbol} ".join(args) if op.arity == 2 else f"{op.symbol} {args[0]}"
        else:
            form = f"{name}({', '.join(args)})"
        yield form, op.doc + ("" if op.exact else " *")
    yield from SHORTHAND_FORMS.values()


def _reduction_form(name: str) -> str:
    if name == "quantile":
        return "quantile(a, 0.5)"
    return f"{name}(a)" if name == "median" else f"{name}(a, axis=0)"


def _table(rows: Iterator[tuple[str, str]]) -> str:
    return "".join(f"{line}\n" for row in rows for line in _lines(*row))


def _lines(form: str, doc: str) -> Iterator[str]:
    """Yield a row, as more than one line where it is too long."""
    first, *more = textwrap.wrap(doc, _MOST - _WIDTH - 2)
    wide = len(form) >= _WIDTH
    if wide:
        yield f"  {form}"
    yield f"  {'' if wide else form:<{_WIDTH - 1}} {first}"
    for line in more:
        yield f"  {'':<{_WIDTH - 1}} {line}"


def _reference() -> str:
    return (
        _HEAD
        + _table((verb.form, verb.doc) for verb in VERBS.values())
        + _TARGETS
        + _table(_rows())
        + _REDUCED
        + _table((_reduction_form(name), row.doc) for name, row in REDUCTIONS.items())
        + _DRAWN
        + _table((f"{name}(a, b)", doc) for name, doc in DRAWS.items())
        + _SHAPES
        + _table(iter(FUNCTIONS.values()))
    )


REFERENCE: Final = _reference()
"""The language on one page, from the tables that it is read by."""
