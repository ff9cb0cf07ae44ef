//! Tables, their keys, and Snappy blocks.

use std::borrow::Cow;

use ckptkit_codec::rows::{self, Column, Rows};
use ckptkit_codec::{hashed, snappy, table};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::buffer::{View, pack};
use crate::errors::{malformed, refused};

/// A column of byte strings.
pub type Pair<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);
type Entries<'py> =
    (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// A column as the pair that Python sees: the joined rows, and the ends.
pub fn pair<'py>(py: Python<'py>, column: &Column) -> PyResult<Pair<'py>> {
    Ok((PyBytes::new(py, &column.data), pack(py, &column.ends)?))
}

#[pyfunction]
pub fn table_decode(py: Python<'_>, index: View, limit: u64) -> PyResult<Entries<'_>> {
    let index = index.bytes();
    let found = py.detach(|| table::decode(index, limit)).map_err(|e| malformed(py, e))?;
    let ((keys, key_ends), (values, value_ends)) =
        (pair(py, &found.keys)?, pair(py, &found.values)?);
    Ok((keys, key_ends, values, value_ends))
}

#[pyfunction]
pub fn table_warnings(py: Python<'_>, index: View) -> PyResult<Vec<(usize, String)>> {
    let index = index.bytes();
    py.detach(|| table::warnings(index)).map_err(|e| malformed(py, e))
}

#[pyfunction]
pub fn table_encode(
    py: Python<'_>,
    keys: View,
    key_ends: View,
    values: View,
    value_ends: View,
) -> PyResult<Bound<'_, PyBytes>> {
    let (key_ends, value_ends) = (key_ends.column()?, value_ends.column()?);
    let (keys, values) = (keys.bytes(), values.bytes());
    let encoded = py.detach(|| {
        let keys = Rows::new(keys, &key_ends)?;
        table::encode(keys, Rows::new(values, &value_ends)?)
    });
    Ok(PyBytes::new(py, &encoded.map_err(refused)?))
}

#[pyfunction]
pub fn keys_order(py: Python<'_>, keys: View, key_ends: View) -> PyResult<Bound<'_, PyBytes>> {
    let (keys, key_ends) = (keys.bytes(), key_ends.column()?);
    let order = py.detach(|| Rows::new(keys, &key_ends).map(rows::order)).map_err(refused)?;
    pack(py, &order)
}

#[pyfunction]
pub fn keys_hashed(py: Python<'_>, keys: View, key_ends: View) -> PyResult<Bound<'_, PyBytes>> {
    let (keys, key_ends) = (keys.bytes(), key_ends.column()?);
    let order = py.detach(|| Rows::new(keys, &key_ends).map(hashed::order)).map_err(refused)?;
    pack(py, &order)
}

#[pyfunction]
#[pyo3(signature = (keys, key_ends, first=0))]
pub fn names_decode<'py>(
    py: Python<'py>,
    keys: View,
    key_ends: View,
    first: usize,
) -> PyResult<Bound<'py, PyList>> {
    let key_ends = key_ends.column()?;
    let rows = Rows::new(keys.bytes(), &key_ends).map_err(refused)?;
    if first > rows.len() {
        let message = format!("first row is {first} of {}", rows.len());
        return Err(PyValueError::new_err(message));
    }
    let names: PyResult<Vec<Bound<'py, PyString>>> =
        (first..rows.len()).map(|row| name(py, rows.get(row))).collect();
    PyList::new(py, names?)
}

/// A name as text; odd bytes become lone surrogates.
pub fn name<'py>(py: Python<'py>, key: &[u8]) -> PyResult<Bound<'py, PyString>> {
    if let Ok(text) = std::str::from_utf8(key) {
        return Ok(PyString::new(py, text));
    }
    let bytes = PyBytes::new(py, key);
    PyString::from_encoded_object(&bytes, Some(c"utf-8"), Some(c"surrogateescape"))
}

#[pyfunction]
pub fn names_encode<'py>(py: Python<'py>, names: &Bound<'py, PyList>) -> PyResult<Pair<'py>> {
    let mut column = Column::default();
    for item in names {
        column.push(&encoded(item.cast::<PyString>()?)?);
    }
    pair(py, &column)
}

/// A `str` as bytes: the reverse of [`name`].
pub struct Text(pub Vec<u8>);

impl<'a, 'py> FromPyObject<'a, 'py> for Text {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let text = object.cast::<PyString>()?;
        Ok(Self(encoded(&text)?.into_owned()))
    }
}

/// A text as bytes, which are copied only where they have to be made.
fn encoded<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(plain) = text.to_str() {
        return Ok(Cow::Borrowed(plain.as_bytes()));
    }
    let escaped = text.call_method1("encode", ("utf-8", "surrogateescape"))?;
    Ok(Cow::Owned(escaped.cast::<PyBytes>()?.as_bytes().to_vec()))
}

#[pyfunction]
pub fn snappy_decompress(py: Python<'_>, data: View, limit: u64) -> PyResult<Bound<'_, PyBytes>> {
    let data = data.bytes();
    let found = py.detach(|| snappy::decompress(data, limit)).map_err(|e| malformed(py, e))?;
    Ok(PyBytes::new(py, &found))
}
