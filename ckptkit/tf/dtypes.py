"""The dtypes of TensorFlow, as the small objects that its readers give, without TensorFlow."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from ckptkit.formats.tensorflow.dtypes import CODES, NAMES
from ckptkit.model import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable

_THEIRS: Final = "tensorflow.python.framework.dtypes"
_ALIASES: Final = {"half": "float16", "float": "float32", "double": "float64"}
_REAL: Final = {"complex64": "float32", "complex128": "float64"}


class DType:
    """A dtype, as ``tf.DType``: equal to that, to its name, to its number, and to NumPy's dtype.

    It hashes as TensorFlow's does, and ``tf.as_dtype`` takes it. What needs NumPy imports it.

    Attributes:
        name: Such as ``float32``.
        as_datatype_enum: TensorFlow's number of it.
    """

    __slots__ = ("as_datatype_enum", "name")

    def __init__(self, code: int) -> None:
        """Make the dtype of a number; :func:`dtype_of` gives the one that there is."""
        self.as_datatype_enum = code
        self.name = NAMES[code]

    @property
    def as_numpy_dtype(self) -> Any:
        """The type of the elements of an array; quantised ones are records of one number.

        Raises:
            KeyError: NumPy has none.
        """
        import numpy as np

        from ckptkit.lowering import numpy_dtype

        if self.name == "string":
            return object
        if DTYPES[self.name].itemsize is None:
            raise KeyError(self.as_datatype_enum)
        found = numpy_dtype(self.name)
        return np.dtype([(self.name, found.type)]) if self.is_quantized else found.type

    @property
    def base_dtype(self) -> DType:
        """The dtype itself: a checkpoint holds no references."""
        return self

    @property
    def real_dtype(self) -> DType:
        """The dtype of a part of a complex number, else the dtype itself."""
        real = _REAL.get(self.name)
        return self if real is None else _ours(CODES[real])

    @property
    def size(self) -> int:
        """Bytes of an element in memory; 0 where elements differ."""
        return DTYPES[self.name].itemsize or 0

    @property
    def is_bool(self) -> bool:
        """Whether elements are true or false."""
        return self.name == "bool"

    @property
    def is_complex(self) -> bool:
        """Whether elements are complex numbers."""
        return self.name in _REAL

    @property
    def is_floating(self) -> bool:
        """Whether elements are real numbers with a point."""
        return DTYPES[self.name].kind == "float"

    @property
    def is_integer(self) -> bool:
        """Whether elements are integers that stand for themselves."""
        return DTYPES[self.name].kind in {"int", "uint"} and not self.is_quantized

    @property
    def is_quantized(self) -> bool:
        """Whether elements are integers that stand for other numbers."""
        return self.name.startswith("q")

    @property
    def is_unsigned(self) -> bool:
        """Whether elements are integers that have no sign."""
        return self.is_integer and self.name.startswith("u")

    @property
    def is_numpy_compatible(self) -> bool:
        """Whether NumPy has a type for elements."""
        return self.name not in {"resource", "variant"}

    def is_compatible_with(self, other: object) -> bool:
        """Tell whether it is the same dtype."""
        return self == other

    def __eq__(self, other: object) -> bool:
        """Tell whether it is the same dtype, by whatever it is named."""
        if isinstance(other, DType):
            return self.as_datatype_enum == other.as_datatype_enum
        if isinstance(other, str):
            return self.name == _ALIASES.get(other, other)
        if isinstance(other, int):
            return self.as_datatype_enum == other
        code = getattr(other, "as_datatype_enum", None)
        if code is not None:
            return bool(self.as_datatype_enum == code)
        return other is not None and self._is_of_numpy(other)

    def _is_of_numpy(self, other: object) -> bool:
        numpy = sys.modules.get("numpy")
        if numpy is None or self.is_quantized or not self.is_numpy_compatible:
            return False
        if not isinstance(other, type | numpy.dtype):
            return False
        try:
            return bool(numpy.dtype(other) == numpy.dtype(self.as_numpy_dtype))
        except TypeError:
            return False

    def __hash__(self) -> int:
        """Return the number, as TensorFlow does."""
        return self.as_datatype_enum

    def __int__(self) -> int:
        """Return the number."""
        return self.as_datatype_enum

    def __repr__(self) -> str:
        """Return ``tf.float32``."""
        return f"tf.{self.name}"

    def __str__(self) -> str:
        """Return ``<dtype: 'float32'>``."""
        return f"<dtype: {self.name!r}>"

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        """Become TensorFlow's own where that is loaded."""
        return dtype_of, (self.as_datatype_enum,)


@cache
def _ours(code: int) -> DType:
    return DType(code)


def dtype_of(code: int) -> Any:
    """Return the dtype of a number: TensorFlow's own where that is loaded, else ours."""
    theirs = sys.modules.get(_THEIRS)
    as_dtype = getattr(theirs, "as_dtype", None)
    return _ours(code) if as_dtype is None else as_dtype(code)
