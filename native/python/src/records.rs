//! The header, entries and slice keys of an index.

use ckptkit_codec::entry::{self, Places};
use ckptkit_codec::record::{self, Extent};
use ckptkit_codec::rows::Rows;
use ckptkit_codec::{header, ordered};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{View, pack};
use crate::errors::{either, malformed, refused};
use crate::tables::pair;

type Bytes<'py> = Bound<'py, PyBytes>;
type Header = (i32, i32, i32, i32, Vec<i32>);
type Columns<'py> = (
    Bytes<'py>,
    Bytes<'py>,
    Bytes<'py>,
    Bytes<'py>,
    Bytes<'py>,
    Bytes<'py>,
    Bytes<'py>,
    Bytes<'py>,
);

#[pyfunction]
pub fn header_decode(py: Python<'_>, value: View) -> PyResult<Header> {
    let found = header::decode(value.bytes()).map_err(|e| malformed(py, e))?;
    Ok((found.shards, found.endianness, found.producer, found.min_consumer, found.bad_consumers))
}

#[pyfunction]
pub fn header_encode(py: Python<'_>, num_shards: i32) -> Bytes<'_> {
    PyBytes::new(py, &header::encode(num_shards))
}

#[pyfunction]
pub fn header_splice(py: Python<'_>, value: View, num_shards: i32) -> PyResult<Bytes<'_>> {
    let spliced = header::splice(value.bytes(), num_shards).map_err(|e| malformed(py, e))?;
    Ok(PyBytes::new(py, &spliced))
}

#[pyfunction]
#[pyo3(signature = (values, value_ends, first=0))]
pub fn entries_decode(
    py: Python<'_>,
    values: View,
    value_ends: View,
    first: usize,
) -> PyResult<Columns<'_>> {
    let (values, value_ends) = (values.bytes(), value_ends.column()?);
    let rows = Rows::new(values, &value_ends).map_err(refused)?;
    if first > rows.len() {
        let message = format!("first row is {first} of {}", rows.len());
        return Err(PyValueError::new_err(message));
    }
    let found = py.detach(|| entry::decode(rows, first)).map_err(|e| malformed(py, e))?;
    packed(py, &found)
}

#[pyfunction]
pub fn entries_salvage(
    py: Python<'_>,
    values: View,
    value_ends: View,
) -> PyResult<(Columns<'_>, Vec<(usize, String)>)> {
    let (values, value_ends) = (values.bytes(), value_ends.column()?);
    let rows = Rows::new(values, &value_ends).map_err(refused)?;
    let (found, wrong) = py.detach(|| entry::read(rows));
    Ok((packed(py, &found)?, wrong))
}

fn packed<'py>(py: Python<'py>, found: &entry::Columns) -> PyResult<Columns<'py>> {
    Ok((
        pack(py, &found.dtype)?,
        pack(py, &found.dim_ends)?,
        pack(py, &found.dims)?,
        pack(py, &found.shard)?,
        pack(py, &found.offset)?,
        pack(py, &found.size)?,
        pack(py, &found.crc)?,
        PyBytes::new(py, &found.flags),
    ))
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // A column each.
pub fn entries_encode(
    py: Python<'_>,
    values: View,
    value_ends: View,
    rows: View,
    shard: View,
    offset: View,
    size: View,
    crc: View,
) -> PyResult<(Bytes<'_>, Bytes<'_>)> {
    let (values, value_ends) = (values.bytes(), value_ends.column()?);
    let (rows, offset, size) = (rows.column()?, offset.column()?, size.column()?);
    let (shard, crc) = (shard.column()?, crc.column()?);
    let encoded = py.detach(|| {
        let templates = Rows::new(values, &value_ends)?;
        let places = Places { rows: &rows, shard: &shard, offset: &offset, size: &size, crc: &crc };
        entry::encode(templates, places)
    });
    pair(py, &encoded.map_err(|e| either(py, e))?)
}

#[pyfunction]
pub fn entry_slices(py: Python<'_>, value: View) -> PyResult<Vec<Vec<Extent>>> {
    record::slices(value.bytes()).map_err(|e| malformed(py, e))
}

#[pyfunction]
pub fn entry_encode(py: Python<'_>, dtype: i32, dims: Vec<i64>) -> PyResult<Bytes<'_>> {
    Ok(PyBytes::new(py, &record::encode(dtype, &dims).map_err(refused)?))
}

#[pyfunction]
pub fn entry_slices_encode(
    py: Python<'_>,
    dtype: i32,
    dims: Vec<i64>,
    slices: Vec<Vec<Extent>>,
) -> PyResult<Bytes<'_>> {
    let encoded = record::encode_slices(dtype, &dims, &slices).map_err(refused)?;
    Ok(PyBytes::new(py, &encoded))
}

#[pyfunction]
pub fn entry_respec(
    py: Python<'_>,
    value: View,
    dtype: i32,
    dims: Vec<i64>,
) -> PyResult<Bytes<'_>> {
    let changed = record::respec(value.bytes(), dtype, &dims).map_err(|e| either(py, e))?;
    Ok(PyBytes::new(py, &changed))
}

#[pyfunction]
pub fn slice_key(py: Python<'_>, name: View, slices: Vec<Extent>) -> PyResult<Bytes<'_>> {
    let key = ordered::encode(name.bytes(), &slices).map_err(refused)?;
    Ok(PyBytes::new(py, &key))
}

#[pyfunction]
pub fn slice_key_decode(py: Python<'_>, key: View) -> PyResult<(Bytes<'_>, Vec<Extent>)> {
    let (name, slices) = ordered::decode(key.bytes()).map_err(|e| malformed(py, e))?;
    Ok((PyBytes::new(py, &name), slices))
}
