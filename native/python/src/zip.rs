//! Headers of zip archives.

use ckptkit_codec::zip;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::View;
use crate::errors::{either, malformed};

type Bytes<'py> = Bound<'py, PyBytes>;
type Record<'py> = (Bytes<'py>, u16, u16, u16, u16, u32, u32, u64, u64, u32, u64, usize);
type Local<'py> = (Bytes<'py>, u16, u16, u16, u32, u32, u64, u64, usize, bool);

#[pyfunction]
pub fn zip_descriptor(
    py: Python<'_>,
    data: View,
    crc: u32,
    compressed: u64,
    size: u64,
) -> PyResult<(usize, usize)> {
    zip::descriptor(data.bytes(), crc, compressed, size).map_err(|e| malformed(py, e))
}

#[pyfunction]
pub fn zip_directory(py: Python<'_>, data: View, count: u64) -> PyResult<Vec<Record<'_>>> {
    let data = data.bytes();
    let found = py.detach(|| zip::directory(data, count)).map_err(|e| malformed(py, e))?;
    let record = |r: zip::Record<'_>| {
        (
            PyBytes::new(py, r.name),
            r.made,
            r.needed,
            r.flags,
            r.method,
            r.time,
            r.crc,
            r.compressed,
            r.size,
            r.attributes,
            r.header,
            r.length,
        )
    };
    Ok(found.into_iter().map(record).collect())
}

#[pyfunction]
pub fn zip_end(
    py: Python<'_>,
    tail: View,
    size: u64,
) -> PyResult<(u64, u64, u64, bool, Bytes<'_>)> {
    let found = zip::end(tail.bytes(), size).map_err(|e| either(py, e))?;
    let comment = PyBytes::new(py, found.comment);
    Ok((found.count, found.offset, found.length, found.whole, comment))
}

#[pyfunction]
pub fn zip_local(py: Python<'_>, data: View) -> PyResult<Local<'_>> {
    let l = zip::local(data.bytes()).map_err(|e| malformed(py, e))?;
    let name = PyBytes::new(py, l.name);
    Ok((name, l.needed, l.flags, l.method, l.time, l.crc, l.compressed, l.size, l.length, l.wide))
}
