"""Strategies: names, tensors, whole checkpoints and the ways to lay them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from ckptkit import Layout
from tests.golden.handmade import CODES, NUMBERS, Bundle, Extents, grid, random_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KEYS = st.one_of(
    st.binary(min_size=1, max_size=6),
    st.lists(st.sampled_from([b"a", b"layer", b"kernel", b"w_1", b"\xff", b"\0"]), min_size=1).map(
        b"/".join
    ),
)
"""Names as bytes: any but the empty one."""

NAMES = KEYS.map(lambda key: key.decode("utf-8", "surrogateescape"))

SHAPES = st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 7]), max_size=4).map(tuple)
"""Shapes: scalars, empty ones, small ones."""

SEEDS = st.integers(0, 2**32 - 1)

ELEMENTS = st.one_of(
    st.binary(max_size=5),
    st.sampled_from([b"", b"\0", b"\0\0a\0", "été 世界".encode(), b"x" * 127, b"y" * 300]),
)
"""Elements of string tensors."""

PUT_DTYPES = tuple(name for name in CODES if not name.startswith("q") and name != "variant")
"""The dtypes that values in memory can have."""


@st.composite
def texts(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """Draw an object array of bytes."""
    count = int(np.prod(shape))
    values = np.empty(count, object)
    values[:] = draw(st.lists(ELEMENTS, min_size=count, max_size=count))
    return values.reshape(shape)


@st.composite
def arrays(draw: st.DrawFn, dtypes: tuple[str, ...] = PUT_DTYPES, shapes: Any = SHAPES) -> Array:
    """Draw an array of any bits."""
    dtype, shape = draw(st.sampled_from(dtypes)), draw(shapes)
    if dtype == "string":
        return draw(texts(shape))
    return random_array(dtype, shape, draw(SEEDS))


def tensors(max_size: int = 6) -> st.SearchStrategy[dict[str, Array]]:
    """Draw values by name, in any order."""
    return st.dictionaries(NAMES, arrays(), max_size=max_size)


@st.composite
def layouts(draw: st.DrawFn, names: tuple[str, ...] = ()) -> Layout:
    """Draw a way to cut shards."""
    choices = [
        st.just(Layout()),
        st.integers(1, 5).map(lambda n: Layout(shards=n)),
        st.integers(1, 400).map(lambda n: Layout(max_shard_bytes=n)),
    ]
    if names:
        choices.append(st.just(Layout(rules=("**",))))
    return draw(st.one_of(choices))


@st.composite
def slicings(draw: st.DrawFn, shape: tuple[int, ...]) -> list[Extents]:
    """Draw slices that tile a shape, in any order; one slice if it cannot be cut."""
    cuts = [draw(st.lists(st.integers(1, max(size - 1, 1)), max_size=2)) for size in shape]
    return draw(st.permutations(grid(shape, cuts)))


@dataclass
class Made:
    """A bundle that is not written yet, and what reading it gives."""

    bundle: Bundle
    values: dict[str, Array]
    dtypes: dict[str, str]


@st.composite
def bundles(draw: st.DrawFn, max_size: int = 5, *, big_endian: bool | None = None) -> Made:
    """Draw a bundle of anything: every dtype, slices, several shards, either byte order."""
    shards = draw(st.integers(1, 3))
    big = draw(st.booleans()) if big_endian is None else big_endian
    made = Made(Bundle(shards, big_endian=big), {}, {})
    for key in draw(st.lists(KEYS, max_size=max_size, unique=True)):
        dtype = draw(st.sampled_from((*NUMBERS, *["string"] * 6, *["variant"] * (not big))))
        shape = draw(SHAPES)
        kind = "string" if dtype == "variant" else dtype
        values = draw(texts(shape)) if kind == "string" else random_array(kind, shape, draw(SEEDS))
        slices = draw(slicings(shape)) if values.size and shape and dtype != "variant" else [[]]
        places = draw(st.lists(st.integers(0, shards - 1), min_size=1, max_size=3))
        if len(slices) > 1:
            made.bundle.add_slices(key, values, slices, dtype, shards=places)
        else:
            made.bundle.add(key, values, dtype, shard=places[0])
        name = key.decode("utf-8", "surrogateescape")
        made.values[name], made.dtypes[name] = values, dtype
    return made


@st.composite
def tilings(draw: st.DrawFn, shape: tuple[int, ...], most: int = 6) -> list[Extents]:
    """Draw slices that tile a shape, no grid but cut one by one, in any order.

    An axis that a slice has all of is named as such, or by its length.
    """
    boxes = [[(0, size) for size in shape]]
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(boxes) - 1))
        wide = [axis for axis, (_, size) in enumerate(boxes[at]) if size > 1]
        if not wide:
            continue
        axis = draw(st.sampled_from(wide))
        start, size = boxes[at][axis]
        first = draw(st.integers(1, size - 1))
        boxes.append([*boxes[at]])
        boxes[at][axis], boxes[-1][axis] = (start, first), (start + first, size - first)
    explicit = draw(st.booleans())
    slices = [
        [
            (start, size) if explicit or size < whole else (0, -1)
            for (start, size), whole in zip(box, shape, strict=True)
        ]
        for box in boxes
    ]
    return draw(st.permutations(slices))
