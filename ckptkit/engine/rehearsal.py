"""Functions of the user are tried before the first byte is written, on as little as will do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit.engine.device import TensorFlowDevice, device_from
from ckptkit.engine.run import terms
from ckptkit.kernels import MapFunction
from ckptkit.lowering import numpy_dtype
from ckptkit.model import Derived, TensorSpec
from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.engine.device import Device
    from ckptkit.engine.run import Means
    from ckptkit.engine.work import Work
    from ckptkit.model import Tensor

    Call = tuple[MapFunction, tuple[TensorSpec, ...]]

EDGE: Final = 2
"""Elements along each axis of a block that a function by element is tried on."""

LARGEST: Final = 4 << 20
"""Bytes up to which a function that sees whole tensors is called just to see what it returns."""


def rehearsed(work: Work, means: Means) -> Means:
    """Return what to use for some work, with a device that has tried the user's functions.

    Each is called once for every set of specs that it gets, on ones. A function that sees whole
    tensors is only traced where they are large; NumPy, which cannot do that, learns what it gives
    when it gives it.

    Raises:
        EditError: A function does not give what it has to, sees more than the memory holds, or
            there is no such device.
    """
    calls = list(_calls(work))
    if not calls:
        return means
    device = device_from(terms(work, means).device or "numpy")
    for function, given in calls:
        _try(function, given, device)
    return replace(means, prepared=device)


def _calls(work: Work) -> Iterator[Call]:
    """Yield the functions of some work with what each is tried on, everything once."""
    tensors = [boxed.tensor for boxed in work.boxes]
    tensors += [one for region in work.regions for layer in region.layers for one in layer.others]
    seen: set[int] = set()
    tried: set[tuple[object, ...]] = set()
    while tensors:
        tensor = tensors.pop()
        source = tensor.source
        if not isinstance(source, Derived) or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        tensors += source.parents
        if isinstance(source.kernel, MapFunction):
            kernel, given = source.kernel, _least(source.kernel, source.parents)
            # A function may have no hash.
            key = id(kernel.fn), kernel.dtype, kernel.granularity, kernel.shape, given
            if key not in tried:
                tried.add(key)
                yield kernel, given


def _least(kernel: MapFunction, parents: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    """Return the specs of the smallest blocks that a function may get of some tensors."""
    specs = [parent.spec for parent in parents]
    shape = specs[0].shape
    if kernel.granularity == "row":
        shape = (*(min(size, 1) for size in shape[:1]), *shape[1:])
    elif kernel.granularity == "element":
        shape = tuple(min(size, EDGE) for size in shape)
    needs = kernel.needs(Box.whole(shape), specs)
    return tuple(TensorSpec(specs[number].dtype, box.shape) for number, box in needs)


def _try(kernel: MapFunction, given: tuple[TensorSpec, ...], device: Device) -> None:
    wanted = kernel.output(given)
    if kernel.granularity == "tensor" and sum(spec.nbytes for spec in given) > LARGEST:
        if isinstance(device, TensorFlowDevice):
            device.trace(kernel, given, wanted.dtype)
        return
    ones = [np.ones(spec.shape, numpy_dtype(spec.dtype)) for spec in given]
    with np.errstate(all="ignore"):
        made = device.run(kernel, ones, wanted.dtype)
    kernel.check(made.shape, wanted.shape)
