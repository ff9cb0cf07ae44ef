"""Strings that are stored in other slices: they are read when they are laid out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ckptkit.formats.tensorflow.payload import read_elements
from ckptkit.kernels import Constant
from ckptkit.model import Derived, Stored
from ckptkit.storage.disk import Sources
from ckptkit.views import Regroup

if TYPE_CHECKING:
    from ckptkit.catalog import Catalog
    from ckptkit.model import Tensor


def with_texts(catalog: Catalog) -> Catalog:
    """Return a catalog in which strings that get other slices are held in memory.

    How many bytes a slice of strings takes, only its strings tell.

    Raises:
        CorruptError: A checksum differs, or strings do not decode.
    """
    found = {
        name: tensor
        for name, tensor in catalog.single.items()
        if tensor.spec.kind == "string"
        and isinstance(tensor.source, Derived)
        and isinstance(tensor.source.kernel, Regroup)
    }
    if not found:
        return catalog
    sources = Sources()
    try:
        return catalog.with_tensors(
            {name: _held(sources, name, tensor) for name, tensor in found.items()}
        )
    finally:
        sources.close()


def _held(sources: Sources, name: str, tensor: Tensor) -> Tensor:
    parent = tensor.source.parents[0] if isinstance(tensor.source, Derived) else tensor
    values = np.empty(tensor.spec.shape, object)
    # Nothing computes strings, so that they are stored or given.
    stored = parent.source if isinstance(parent.source, Stored) else Stored(())
    for piece in stored.pieces:
        elements = read_elements(sources, name, piece, tensor.spec.dtype, stored.byteorder)
        part = np.empty(len(elements), object)
        part[:] = elements
        values[piece.box.slices()] = part.reshape(piece.box.shape)
    constant = Constant(tensor.spec, elements=tuple(values.ravel()))
    return replace(tensor, source=Derived(constant))
