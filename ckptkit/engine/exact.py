"""Which work gives the same bits on every device, and what of it does not.

The arithmetic of the operations marked exact in ``OPS`` is one correctly rounded step on every
device, or none. The others end in a library's approximation, or in an order that it chooses.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from ckptkit.errors import EditError
from ckptkit.expressions import Call, Convert, Number
from ckptkit.kernels import Constant, Expression
from ckptkit.model import DTYPES, Derived

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ckptkit.engine.work import Work
    from ckptkit.expressions import Expr
    from ckptkit.kernels import Kernel
    from ckptkit.model import Tensor

COMPLEX_INEXACT: Final = frozenset({"multiply", "divide", "square", "abs", "sqrt"})
"""Exact operations that are not exact on complex numbers: each takes several roundings, which
compilers fuse and order as they like, and the rules for infinities differ.
"""


def inexact(work: Work) -> tuple[str, ...]:
    """Return what some work does whose last bits depend on the device, each once.

    Functions of the user are among it: nobody knows what they do.
    """
    found = itertools.starmap(_inexact_in, uses(work))
    return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))


def check_exact(work: Work) -> None:
    """Refuse work that does not give the same bits on every device.

    Raises:
        EditError: It does something whose last bits depend on the device.
    """
    found = inexact(work)
    if found:
        msg = (
            f"strict: {', '.join(found)} may differ in the last bits from one device to another;"
            " leave it out, or run without strict (`ckptkit help language` marks such operations)"
        )
        raise EditError(msg)


def _inexact_in(kernel: Kernel, dtypes: tuple[str, ...]) -> Iterator[str]:
    """Yield what a kernel does that is not exact, on inputs of some dtypes."""
    if isinstance(kernel, Constant):
        return
    yield from getattr(kernel, "inexact", (kernel.label,))
    if isinstance(kernel, Expression) and _meets_complex(kernel.expr, (kernel.dtype, *dtypes)):
        for op in _called(kernel.expr):
            if op in COMPLEX_INEXACT:
                yield f"{op} of complex numbers"


def _meets_complex(expr: Expr, dtypes: Iterable[str]) -> bool:
    if any(DTYPES[dtype].kind == "complex" for dtype in dtypes):
        return True
    if isinstance(expr, Number):
        return isinstance(expr.value, complex)
    if isinstance(expr, Convert):
        return _meets_complex(expr.argument, (expr.dtype,))
    return isinstance(expr, Call) and any(_meets_complex(part, ()) for part in expr.args)


def _called(expr: Expr) -> Iterator[str]:
    if isinstance(expr, Call):
        yield expr.op
        for part in expr.args:
            yield from _called(part)
    elif isinstance(expr, Convert):
        yield from _called(expr.argument)


def uses(work: Work) -> Iterator[tuple[Kernel, tuple[str, ...]]]:
    """Yield every kernel of some work with the dtypes of its inputs."""
    for flat in work.flats:
        yield from _chain_uses(flat.chain.root, flat.chain.dtypes)
    tensors = [boxed.tensor for boxed in work.boxes]
    for region in work.regions:
        for layer in region.layers:
            yield layer.kernel, (region.spec.dtype, *(one.spec.dtype for one in layer.others))
            tensors += layer.others
    yield from _tensor_uses(tensors)


def _chain_uses(node: Any, dtypes: tuple[str, ...]) -> Iterator[tuple[Kernel, tuple[str, ...]]]:
    if isinstance(node, tuple):
        kernel, parents = node
        # What it is given, if not stored, is made by kernels that name their own dtype.
        yield kernel, dtypes
        for parent in parents:
            yield from _chain_uses(parent, dtypes)


def _tensor_uses(tensors: list[Tensor]) -> Iterator[tuple[Kernel, tuple[str, ...]]]:
    """Yield every kernel that some tensors are derived by, once for each tensor."""
    seen: set[int] = set()
    while tensors:
        tensor = tensors.pop()
        source = tensor.source
        if isinstance(source, Derived) and id(tensor) not in seen:
            seen.add(id(tensor))
            yield source.kernel, tuple(parent.spec.dtype for parent in source.parents)
            tensors += source.parents
