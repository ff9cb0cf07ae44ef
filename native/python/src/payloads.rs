//! Payloads of string and variant tensors, and values in protobuf messages.

use ckptkit_codec::rows::Rows;
use ckptkit_codec::{packed, strings, variants};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{View, pack};
use crate::errors::{either, malformed, refused};

#[pyfunction]
pub fn strings_scan(
    py: Python<'_>,
    data: View,
    remaining: u64,
    crc: u32,
    big_endian: bool,
) -> PyResult<(usize, u64, i64, u32)> {
    let data = data.bytes();
    let found = py
        .detach(|| strings::scan(data, remaining, crc, big_endian))
        .map_err(|e| malformed(py, e))?;
    Ok((found.consumed, found.parsed, found.payload, found.crc))
}

#[pyfunction]
pub fn strings_decode(
    py: Python<'_>,
    data: View,
    count: u64,
    big_endian: bool,
) -> PyResult<(usize, Bound<'_, PyBytes>, u32)> {
    let data = data.bytes();
    let found =
        py.detach(|| strings::decode(data, count, big_endian)).map_err(|e| malformed(py, e))?;
    Ok((found.header, pack(py, &found.ends)?, found.crc))
}

#[pyfunction]
#[pyo3(signature = (lengths, big_endian=false))]
pub fn strings_encode(
    py: Python<'_>,
    lengths: View,
    big_endian: bool,
) -> PyResult<(Bound<'_, PyBytes>, u32)> {
    let lengths = lengths.column()?;
    let (header, crc) = py.detach(|| strings::encode(&lengths, big_endian)).map_err(refused)?;
    Ok((PyBytes::new(py, &header), crc))
}

#[pyfunction]
pub fn variants_decode(
    py: Python<'_>,
    data: View,
    count: u64,
) -> PyResult<(Bound<'_, PyBytes>, u32)> {
    let data = data.bytes();
    let found = py.detach(|| variants::decode(data, count)).map_err(|e| malformed(py, e))?;
    Ok((pack(py, &found.ranges)?, found.crc))
}

#[pyfunction]
pub fn variants_encode(
    py: Python<'_>,
    payload: View,
    ends: View,
) -> PyResult<(Bound<'_, PyBytes>, u32)> {
    let (payload, ends) = (payload.bytes(), ends.column()?);
    let encoded = py.detach(|| Rows::new(payload, &ends).map(variants::encode));
    let (data, crc) = encoded.map_err(refused)?;
    Ok((PyBytes::new(py, &data), crc))
}

#[pyfunction]
pub fn varints_skip(py: Python<'_>, data: View, limit: u64) -> PyResult<(usize, u64)> {
    let data = data.bytes();
    py.detach(|| packed::skip(data, limit)).map_err(|e| malformed(py, e))
}

#[pyfunction]
pub fn varints_decode<'py>(
    py: Python<'py>,
    data: View,
    limit: u64,
    kind: &str,
    width: usize,
) -> PyResult<(usize, Bound<'py, PyBytes>)> {
    let data = data.bytes();
    let (used, elements) =
        py.detach(|| packed::decode_named(data, limit, kind, width)).map_err(|e| either(py, e))?;
    Ok((used, PyBytes::new(py, &elements)))
}

#[pyfunction]
pub fn fields_scan(
    py: Python<'_>,
    data: View,
    tag: u8,
    limit: u64,
) -> PyResult<(i64, Bound<'_, PyBytes>)> {
    let data = data.bytes();
    let (next, found) =
        py.detach(|| packed::strings(data, tag, limit)).map_err(|e| malformed(py, e))?;
    Ok((next, pack(py, &found)?))
}
