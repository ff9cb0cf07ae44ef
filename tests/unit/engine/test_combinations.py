"""Edits upon edits: copies, puts, casts and regions of whole and of sliced tensors."""

from __future__ import annotations

import numpy as np
import pytest

import ckptkit
from ckptkit import Layout, Map, Put
from tests.golden.handmade import Bundle, grid

S = np.arange(24, dtype=np.float32).reshape(4, 6)
P = S + 1
N = np.arange(6, dtype=np.float32)
ONES = np.ones((4, 6), np.float32)


def double(x):
    return x * 2


CASES = {
    "a copy is edited by itself": (
        ["copy s -> c", "c *= 2", "c[0] = 1"],
        {"c": np.vstack([ONES[:1], S[1:] * 2]), "s": S},
    ),
    "a copy is cast by itself": (["copy s -> c", "cast c -> float64"], {"c": S, "s": S}),
    "a copy outlives its original": (["copy s -> c", "drop s"], {"c": S}),
    "names are swapped": (
        ["rename ^s$ -> q", "rename ^p$ -> s", "rename ^q$ -> p"],
        {"s": P, "p": S},
    ),
    "slices take values of a whole": (['s = t("p")'], {"s": P, "p": P}),
    "a whole takes values of slices": (['p = t("s") * 2'], {"p": S * 2}),
    "a tensor takes its own values": (['s = t("s") + x'], {"s": S * 2}),
    "statements see those before them": (
        ['p = t("s")', 's = t("p")', "s[:, 1] = 0"],
        {"p": S, "s": S * (np.arange(6) != 1)},
    ),
    "another shape is put in the place of slices": ([Put("s", np.float32(3))], {"s": 3}),
    "the same shape is put into slices": ([Put("s", ONES)], {"s": ONES}),
    "what was put is edited": (
        [Put("s", ONES), "s[1] += 2"],
        {"s": ONES + 2 * (np.arange(4) == 1)[:, None]},
    ),
    "what was put is used and dropped": ([Put("n", N), 's += t("n")', "drop n"], {"s": S + N}),
    "what was put is edited, cast and renamed": (
        [Put("n", N), "n *= 2", "cast n -> float64", "rename ^n$ -> m"],
        {"m": N * 2},
    ),
    "what was put is copied": (
        [Put("n", N), "copy n -> m", "m[0] = 9"],
        {"n": N, "m": np.array([9, 1, 2, 3, 4, 5])},
    ),
    "a cast there and back": (["cast s -> float16", "cast s -> float32"], {"s": S}),
    "a cast to bool": (["cast p -> bool"], {"p": ONES}),
    "an empty tensor": (["e += 1", "e[:, 0] = 2"], {"e": np.empty((0, 2))}),
    "a scalar is spread": (['s *= t("x0")', "x0 = x * x"], {"s": S * 2, "x0": 4}),
    "functions are mapped one after the other": (
        [Map("s", double), Map("s", double)],
        {"s": S * 4},
    ),
    "text is put": ([Put("t", "z"), Put("u", ["a", "b"])], {}),
}


def bundle(*, big_endian):
    made = Bundle(2, big_endian=big_endian)
    made.add_slices(b"s", S, grid(S.shape, [[1], [2]]), shards=(0, 1))
    made.add(b"p", P, shard=1)
    made.add(b"t", np.array([b"x", b""], object))
    made.add(b"e", np.empty((0, 2), np.float32))
    made.add(b"x0", np.array(2, np.float32))
    return made


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("layout", [Layout(), Layout(shards=1), Layout(max_shard_bytes=20)])
@pytest.mark.parametrize("case", CASES)
def test_edits_upon_edits(tmp_path, case, layout, big_endian):
    edits, expected = CASES[case]
    with ckptkit.open(bundle(big_endian=big_endian).write(tmp_path / "m")) as found:
        plan = found.edit(*edits).plan(tmp_path / "n", layout=layout)
        report = plan.run(device="numpy")
    written = sum(path.stat().st_size for path in tmp_path.glob("n.*"))
    assert report.bytes_written == plan.bytes_written == written
    assert (report.bytes_read, report.bytes_reused) == (plan.bytes_read, plan.bytes_reused)
    with ckptkit.open(tmp_path / "n") as found:
        assert found.verify().ok
        for name, values in expected.items():
            assert found[name].shape == np.shape(values)
            assert np.array_equal(found[name].read(), values)
