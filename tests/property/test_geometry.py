"""Boxes, blocks and spans against plain NumPy indexing."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ckptkit.engine.blocks import cut, flat_offset, spans
from ckptkit.engine.work import Moves, _coalesce
from ckptkit.region import Box, Region

SHAPES = st.lists(st.integers(0, 6), max_size=4).map(tuple)
ITEMS = st.sampled_from([1, 2, 4, 8, 16])
LIMITS = st.integers(1, 400)


@st.composite
def boxes(draw, shape):
    start, size = [], []
    for n in shape:
        a = draw(st.integers(0, n))
        start.append(a)
        size.append(draw(st.integers(0, n - a)))
    return Box(tuple(start), tuple(size))


@st.composite
def regions(draw, shape):
    items = []
    for n in shape[: draw(st.integers(0, len(shape)))]:
        if n and draw(st.booleans()):
            items.append(draw(st.integers(-n, n - 1)))
        else:
            edge = st.none() | st.integers(-8, 8)
            items.append(slice(draw(edge), draw(edge), draw(st.none() | st.integers(1, 4))))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(items)))
        free = len(shape) - len(items)
        tail = [slice(None)] * len(items[at:])
        items = [*items[:at], ..., *tail] if free or at == len(items) else items
    return tuple(items)


def _numbered(shape):
    return np.arange(math.prod(shape)).reshape(shape)


@given(st.data(), SHAPES, ITEMS, LIMITS)
def test_cut_tiles_the_box_in_c_order_with_contiguous_blocks(data, shape, item, limit):
    box = data.draw(boxes(shape))
    whole = _numbered(box.shape).reshape(box.shape)
    blocks = list(cut(box, item, limit))
    flat = [whole[block.slices(box.start)].ravel().tolist() for block in blocks]
    assert [number for numbers in flat for number in numbers] == list(range(box.count))
    for block, numbers in zip(blocks, flat, strict=True):
        assert numbers[0] == flat_offset(block, box)
        assert numbers == list(range(numbers[0], numbers[0] + block.count))


@given(st.data(), SHAPES, ITEMS, LIMITS)
def test_blocks_keep_to_the_limit_and_have_few_shapes(data, shape, item, limit):
    box = data.draw(boxes(shape))
    blocks = list(cut(box, item, limit))
    assert all(block.count * item <= max(limit, item) for block in blocks)
    assert len({block.shape for block in blocks}) <= 2


@given(st.data(), SHAPES)
def test_a_region_selects_what_numpy_selects(data, shape):
    index = data.draw(regions(shape))
    selection = Region.of(index).resolve(shape)
    numbers = _numbered(shape)
    expected = numbers[index]
    assert selection.shape == expected.shape
    assert selection.size == expected.size
    assert np.array_equal(numbers[selection.index()], expected)
    assert numbers[selection.slices()].shape == selection.count


@given(st.data(), SHAPES, ITEMS, LIMITS)
def test_spans_give_the_selection_and_keep_to_the_limit(data, shape, item, limit):
    index = data.draw(regions(shape))
    selection = Region.of(index).resolve(shape)
    numbers = _numbered(shape)
    out = np.full(selection.count, -1)
    for span in spans(shape, selection, item, limit):
        assert span.offset >= 0
        assert span.offset + span.length <= numbers.size * item
        assert span.length <= max(limit, item)
        first, count = span.offset // item, span.length // item
        read = numbers.ravel()[first : first + count].reshape(span.shape)
        assert np.all(out[span.target] == -1), "an element is read twice"
        out[span.target] = read[span.wanted]
    assert np.array_equal(out, numbers[selection.slices()])


@given(st.data(), SHAPES)
def test_the_part_of_a_selection_within_a_box_is_their_intersection(data, shape):
    selection = Region.of(data.draw(regions(shape))).resolve(shape)
    box = data.draw(boxes(shape))
    numbers = _numbered(shape)
    common = np.intersect1d(numbers[selection.slices()], numbers[box.slices()])
    inside = selection.within(box)
    if inside is None:
        assert not common.size
    else:
        assert np.array_equal(np.sort(numbers[box.slices()][inside.slices()].ravel()), common)


@given(st.data(), SHAPES)
def test_boxes_intersect_where_their_elements_do(data, shape):
    one, other = data.draw(boxes(shape)), data.draw(boxes(shape))
    numbers = _numbered(shape)
    common = np.intersect1d(numbers[one.slices()], numbers[other.slices()])
    inside = one.intersect(other)
    if inside is None:
        assert not common.size
    else:
        assert np.array_equal(np.sort(numbers[inside.slices()].ravel()), common)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(1, 4), st.integers(0, 3)),
        max_size=12,
    )
)
def test_coalescing_moves_the_same_bytes_with_fewer_calls(rows):
    columns: list[list[int]] = []
    ends, sources = {0: 0, 1: 0}, {0: 0, 1: 0}
    for file, shard, size, gap in rows:
        sources[file] += gap
        columns.append([file, sources[file], shard, ends[shard], size])
        sources[file] += size
        ends[shard] += size
    given_moves = np.array(columns, np.int64).reshape(-1, 5).T
    joined = _coalesce(Moves(*given_moves))

    def bytes_of(moves):
        return {
            (int(shard), int(offset) + n): (int(file), int(source) + n)
            for file, source, shard, offset, size in zip(*moves, strict=True)
            for n in range(size)
        }

    after = (joined.source_file, joined.source_offset, joined.shard, joined.offset, joined.size)
    assert bytes_of(after) == bytes_of(given_moves)
    assert len(joined) <= len(rows)
