//! Whole columns of an index at a time: checks, and checksums as plain numbers.

use ckptkit_codec::bounds;
use ckptkit_codec::crc;
use ckptkit_codec::entry::Columns;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::buffer::{View, pack};

#[pyfunction]
#[allow(clippy::too_many_arguments)] // A column each.
pub fn entries_check(
    py: Python<'_>,
    dtype: View,
    dim_ends: View,
    dims: View,
    shard: View,
    offset: View,
    size: View,
    flags: View,
    items: Vec<i64>,
    shards: Vec<(i32, i64)>,
    most: usize,
) -> PyResult<Vec<(usize, String)>> {
    let columns = Columns {
        dtype: dtype.column()?,
        dim_ends: dim_ends.column()?,
        dims: dims.column()?,
        shard: shard.column()?,
        offset: offset.column()?,
        size: size.column()?,
        crc: Vec::new(),
        flags: flags.bytes().to_vec(),
    };
    Ok(py.detach(|| {
        let found = bounds::findings(&columns, &items, &shards).take(most);
        found.map(|finding| (finding.row, finding.message)).collect()
    }))
}

#[pyfunction]
pub fn crc32c_unmask_column(py: Python<'_>, masked: View) -> PyResult<Bound<'_, PyBytes>> {
    let column: Vec<u32> = masked.column()?;
    pack(py, &column.into_iter().map(crc::unmask).collect::<Vec<_>>())
}

/// A list of tuples; rows of equal dims next to one another share one.
#[pyfunction]
pub fn shapes_decode<'py>(
    py: Python<'py>,
    dims: View,
    dim_ends: View,
) -> PyResult<Bound<'py, PyList>> {
    let dims: Vec<i64> = dims.column()?;
    let ends: Vec<i64> = dim_ends.column()?;
    let shapes = PyList::empty(py);
    let mut first = 0;
    let mut known: Option<(&[i64], Bound<'py, PyTuple>)> = None;
    for end in ends {
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        let shape = dims
            .get(first..end)
            .ok_or_else(|| PyValueError::new_err(format!("dims end at {end} after {first}")))?;
        first = end;
        let tuple = match &known {
            Some((same, tuple)) if *same == shape => tuple.clone(),
            _ => PyTuple::new(py, shape)?,
        };
        shapes.append(&tuple)?;
        known = Some((shape, tuple));
    }
    Ok(shapes)
}
