"""The operations of the expression language as TensorFlow's, on processors and on GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptkit.expressions import OPS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class TensorFlowOps:
    """The operations of the expression language as TensorFlow's."""

    def __init__(self, tf: Any, *, gpu: bool = False) -> None:
        """Bind the operations.

        Args:
            tf: The module.
            gpu: They are for a GPU, where some of TensorFlow's are not those of processors.
        """
        self._tf = tf
        math = tf.math
        named = {
            "divide": tf.divide,
            "where": tf.where,
            "mod": math.floormod,
            "floor_divide": math.floordiv,
            "power": tf.pow,
            "round": tf.round,
            "isnan": math.is_nan,
            "isinf": math.is_inf,
            "isfinite": math.is_finite,
            "matmul": tf.linalg.matmul,
        }
        self._functions: dict[str, Callable[..., Any]] = {
            op: named.get(op) or getattr(math, op)
            for op in (*OPS, "matmul")
            if op in named or hasattr(math, op)
        }
        if gpu:
            self._functions |= {"sign": self._sign, "round": self._round, "sqrt": self._sqrt}

    # As seen on an H200 with TensorFlow 2.21, whose kernels for GPUs keep the sign of a zero where
    # NumPy does not, lose it where NumPy does not, and take roots by an approximation.

    def _sign(self, x: Any) -> Any:
        tf = self._tf
        return tf.where(tf.equal(x, 0), tf.zeros_like(x), tf.math.sign(x))

    def _round(self, x: Any) -> Any:
        tf = self._tf
        rounded = tf.round(x)
        return tf.where(tf.equal(rounded, 0), x * tf.zeros_like(x), rounded)

    def _sqrt(self, x: Any) -> Any:
        tf = self._tf
        if x.dtype != tf.float32:
            return tf.math.sqrt(x)
        # Rounding once more gives the root that is nearest: 53 bits are more than twice 24.
        return tf.cast(tf.math.sqrt(tf.cast(x, tf.float64)), tf.float32)

    def call(self, op: str, args: Sequence[Any]) -> Any:
        """Apply an operation."""
        return self._functions[op](*args)

    def cast(self, value: Any, dtype: str) -> Any:
        """Convert as ``tf.cast`` does."""
        return self._tf.cast(value, dtype)

    def constant(self, value: complex, dtype: str) -> Any:
        """Make a tensor of rank 0."""
        return self._tf.constant(value, dtype)
