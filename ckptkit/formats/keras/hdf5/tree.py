"""What an HDF5 file holds, as values: groups, datasets, attributes, and where all bytes are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = str | int | float | tuple[str, ...] | None
"""An attribute: text, a number, a list of texts (an empty one stands for any array without
elements), or None for what no Keras file has."""

Layout = Literal["contiguous", "chunked", "compact", "unallocated"]
"""Where a dataset is: in one byte range, in chunks, in its object header, or nowhere yet: it reads
as its fill value (or has no elements)."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset.

    Attributes:
        path: The names of the links from the root to it, joined by slashes; bytes that are no
            UTF-8 are kept as surrogates.
        dtype: The name of its dtype, as in :data:`ckptkit.model.DTYPES`.
        byteorder: Of its elements.
        shape: Its shape.
        layout: How it is stored.
        offset: Byte of the HDF5 content where a contiguous one starts; -1 for others.
        nbytes: Bytes of its elements.
        stored: Bytes that it takes in the file, its object header left aside.
        filters: Numbers of the filters that its chunks go through, in order.
        address: Byte of the HDF5 content where its object header is: two paths with the same one
            are two names of one dataset.
        attributes: Its attributes.
    """

    path: str
    dtype: str
    byteorder: Literal["little", "big"]
    shape: tuple[int, ...]
    layout: Layout
    offset: int
    nbytes: int
    stored: int
    filters: tuple[int, ...]
    address: int
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """One group.

    Attributes:
        path: As that of a dataset; empty for the root.
        links: Names of what is in it, in the order in which the file has them.
        address: Byte of the HDF5 content where its object header is.
        attributes: Its attributes.
    """

    path: str
    links: tuple[str, ...]
    address: int
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole HDF5 file.

    Attributes:
        groups: By path, each before what is in it.
        datasets: By path, in the order of a walk that goes down into each link in turn.
        metadata: Byte ranges (offset, length) of the HDF5 content that are neither data of
            datasets nor unused: superblock, object headers, trees, heaps. Sorted, apart, merged.
        end: Length of the HDF5 content in bytes, as the superblock has it.
    """

    groups: Mapping[str, Group]
    datasets: Mapping[str, Dataset]
    metadata: tuple[tuple[int, int], ...]
    end: int
