"""Named edits in plain NumPy, on whole arrays: what the engine has to give bit for bit."""

from __future__ import annotations

import numpy as np

from ckptkit import _native
from tests.golden.handmade import numpy_dtype
from tests.oracle import philox


def working(dtype):
    """Return the dtype that values of a float dtype are computed in."""
    return np.dtype(np.float64) if dtype == "float64" else np.dtype(np.float32)


def name_of(values):
    return values.dtype.name


def computed(values):
    return values.astype(working(name_of(values)))


def back(values, dtype):
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(numpy_dtype(dtype))


def clipped(values, low, high):
    wide = computed(values)
    return back(np.clip(wide, wide.dtype.type(low), wide.dtype.type(high)), name_of(values))


def repaired(values, number):
    wide = computed(values)
    return back(np.where(np.isfinite(wide), wide, wide.dtype.type(number)), name_of(values))


def pruned(arrays, fraction):
    """Return arrays with a fraction of all their elements set to 0: those below the one that
    ranks first among those that stay.
    """
    if not arrays:
        return []
    everything = [
        (float(np.isnan(size)), 0.0 if np.isnan(size) else float(size))
        for values in arrays
        for size in np.abs(values.astype(np.float64)).ravel()
    ]
    rank = round(fraction * len(everything))
    out = []
    for values in arrays:
        sizes = np.abs(values.astype(np.float64))
        if not everything:
            below = np.zeros(values.shape, bool)
        elif rank >= len(everything):
            below = np.ones(values.shape, bool)
        else:
            is_nan, least = sorted(everything)[rank]
            below = ~np.isnan(sizes) if is_nan else sizes < least
        out.append(np.where(below, values.dtype.type(0), values))
    return out


def sparse(values, keep, group, axis):
    """Return values with all but the largest of every group set to 0."""
    lines = np.moveaxis(values, axis, -1)
    out = np.zeros_like(lines)
    for at in np.ndindex(lines.shape[:-1]):
        for low in range(0, lines.shape[-1], group):
            part = lines[at][low : low + group]
            sizes = np.abs(part.astype(np.float64))
            order = sorted(
                range(group), key=lambda n: (-(np.inf if np.isnan(sizes[n]) else sizes[n]), n)
            )
            for n in order[:keep]:
                out[at][low + n] = part[n]
    return np.ascontiguousarray(np.moveaxis(out, -1, axis))


def quantized(values, axis=None):
    """Return int8 and the scales that are stored beside it."""
    wide = computed(values)
    kept = None if axis is None else axis % wide.ndim
    axes = None if axis is None else tuple(n for n in range(wide.ndim) if n != kept)
    largest = np.max(np.abs(wide), axis=axes, keepdims=axis is not None)
    largest = np.abs(wide) if axes == () else largest
    scale = np.where(largest == 0, wide.dtype.type(1), largest / wide.dtype.type(127))
    scale = scale.astype(wide.dtype)
    steps = np.clip(np.round(wide / scale), -127, 127).astype(np.int8)
    if axis is not None and kept == wide.ndim - 1 and axes:
        scale = scale.reshape(-1)
    return steps, scale


def dequantized(steps, scale, dtype):
    wide = np.float64 if "float64" in {dtype, scale.dtype.name} else np.float32
    return back(steps.astype(numpy_dtype(dtype)).astype(wide) * scale.astype(wide), dtype)


def draws(name, count, seed=0, before=0):
    """Return the 32 random bits of every element of a tensor."""
    key = _native.fingerprint64(str(seed).encode())
    stream = _native.fingerprint64(f"0 {before} {name}".encode())
    return np.array([philox.bits(key, stream, at) for at in range(count)], np.uint32)


def rounded_by_chance(values, dtype, bits):
    """Return values of a float dtype, rounded to one of the two around each in proportion."""
    wanted = numpy_dtype(dtype)
    out = np.empty(values.shape, wanted)
    flat, line = out.reshape(-1), values.astype(np.float64).reshape(-1)
    for at, value in enumerate(line):
        flat[at] = _chosen(value, wanted, (int(bits[at]) + 0.5) / 2**32)
    return out


def _chosen(value, dtype, chance):
    near = back(value, dtype.name)
    there = float(near)
    if not np.isfinite(value) or not np.isfinite(there) or there == value:
        return near
    unsigned = np.dtype(f"u{dtype.itemsize}")
    bits = int(near.view(unsigned))
    other = np.array(bits + (1 if abs(there) < abs(value) else -1), unsigned).view(dtype)
    far = float(other)
    if not np.isfinite(far):
        return near
    return other if chance < (value - there) / (far - there) else near


def resized(values, size, axis, fill):
    """Return values with an axis cut or filled; ``normal`` is for another twin."""
    length = values.shape[axis]
    if size <= length:
        return np.take(values, range(size), axis)
    more = (*values.shape[:axis], size - length, *values.shape[axis + 1 :])
    if fill == "zeros":
        filling = np.zeros(more, values.dtype)
    elif fill == "mean":
        mean = values.astype(np.float64).mean(axis, keepdims=True)
        mean = back(mean, working(name_of(values)).name).astype(values.dtype)
        filling = np.broadcast_to(mean, more)
    else:
        filling = np.broadcast_to(np.take(values, [fill], axis), more)
    return np.concatenate([values, filling], axis)


def folded(kernel, norm, epsilon, *, axis=-1, depthwise=False, bias=None):
    """Return the kernel, and the bias that goes with it, of a batch normalisation in float32.

    ``norm`` has gamma and beta (or None), mean and variance.
    """
    gamma, beta, mean, variance = norm
    factor = (np.float32(1) if gamma is None else gamma) / np.sqrt(variance + np.float32(epsilon))
    shape = kernel.shape[-2:] if depthwise else factor.shape
    shape = (*shape, *(1 for _ in range(-1 - axis))) if not depthwise else shape
    shift = (np.float32(0) if bias is None else bias) - mean
    shift = shift * factor
    return kernel * factor.reshape(shape), shift if beta is None else shift + beta
