"""Dtypes as TensorFlow's readers give them, without TensorFlow."""

import copy
import sys

import ml_dtypes
import numpy as np
import pytest

from ckptkit.formats.tensorflow.dtypes import NAMES
from ckptkit.tf import DType
from ckptkit.tf.dtypes import dtype_of

FLOAT, STRING, COMPLEX, QINT8, VARIANT = 1, 7, 8, 11, 21


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No TensorFlow."""
    monkeypatch.delitem(sys.modules, "tensorflow.python.framework.dtypes", raising=False)


def test_there_is_one_object_of_each():
    assert dtype_of(FLOAT) is dtype_of(FLOAT)
    assert len({dtype_of(code) for code in NAMES}) == len(NAMES)
    assert copy.copy(dtype_of(FLOAT)) is dtype_of(FLOAT)


def test_it_is_equal_to_whatever_names_it():
    found = dtype_of(FLOAT)
    for same in (found, DType(FLOAT), "float32", "float", 1, np.float32, np.dtype("float32")):
        assert found == same
    for other in (dtype_of(2), "float64", 2, np.float64, None, [], object(), "nonsense"):
        assert found != other
    assert hash(found) == int(found) == 1
    assert dtype_of(QINT8) != np.int8
    assert dtype_of(VARIANT) != np.dtype(object)
    assert dtype_of(STRING) == np.dtype(object)


def test_it_shows_itself_as_tensorflow_does():
    assert repr(dtype_of(FLOAT)) == "tf.float32"
    assert str(dtype_of(FLOAT)) == "<dtype: 'float32'>"


def test_it_knows_the_type_of_elements():
    assert dtype_of(FLOAT).as_numpy_dtype is np.float32
    assert dtype_of(STRING).as_numpy_dtype is object
    assert dtype_of(14).as_numpy_dtype is ml_dtypes.bfloat16
    assert dtype_of(QINT8).as_numpy_dtype == np.dtype([("qint8", np.int8)])
    with pytest.raises(KeyError):
        _ = dtype_of(VARIANT).as_numpy_dtype


def test_it_tells_what_kind_it_is():
    named = {dtype_of(code).name: dtype_of(code) for code in NAMES}
    assert [name for name in named if named[name].is_bool] == ["bool"]
    assert [name for name in named if named[name].is_complex] == ["complex64", "complex128"]
    assert named["bfloat16"].is_floating
    assert named["int4"].is_integer
    assert not named["qint8"].is_integer
    assert named["quint8"].is_quantized
    assert named["uint2"].is_unsigned
    assert not named["quint8"].is_unsigned
    assert [name for name in named if not named[name].is_numpy_compatible] == [
        "resource",
        "variant",
    ]
    assert named["complex64"].real_dtype is named["float32"]
    assert named["float32"].real_dtype is named["float32"].base_dtype is named["float32"]
    assert (named["float64"].size, named["string"].size) == (8, 0)
    assert named["float32"].is_compatible_with("float32")
