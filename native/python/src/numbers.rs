//! Sums, counts by digits, and random values.

use ckptkit_codec::philox::{Draw, Philox, Runs};
use ckptkit_codec::radix::Elements;
use ckptkit_codec::sums::{self, Dtype};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{Counts, View};
use crate::errors::refused;

#[pyfunction]
pub fn power_sum(py: Python<'_>, data: View, dtype: &str, power: u32, shift: f64) -> PyResult<f64> {
    let (data, dtype) = (data.bytes(), Dtype::named(dtype).map_err(refused)?);
    py.detach(|| sums::power_sum(data, dtype, power, shift)).map_err(refused)
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // Where the digit is, and what is above it.
pub fn radix_count(
    py: Python<'_>,
    data: View,
    kind: &str,
    width: usize,
    shift: u32,
    prefix: u64,
    counts: Counts,
) -> PyResult<()> {
    let (data, elements) = (data.bytes(), Elements::new(kind, width).map_err(refused)?);
    counts.update(py, |counts| elements.count(data, shift, prefix, counts))?.map_err(refused)
}

#[pyfunction]
pub fn radix_value<'py>(
    py: Python<'py>,
    key: u64,
    kind: &str,
    width: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let value = Elements::new(kind, width).and_then(|elements| elements.value(key));
    Ok(PyBytes::new(py, &value.map_err(refused)?))
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // What is drawn, by which generator, and for which elements.
pub fn philox<'py>(
    py: Python<'py>,
    kind: &str,
    dtype: &str,
    key: u64,
    stream: u64,
    starts: View,
    width: usize,
    step: i64,
) -> PyResult<Bound<'py, PyBytes>> {
    let draw = Draw::named(kind, dtype).map_err(refused)?;
    let starts: Vec<i64> = starts.column()?;
    let runs = Runs::new(&starts, width, step).map_err(refused)?;
    let length = Philox::length(draw, runs).map_err(refused)?;
    PyBytes::new_with(py, length, |out| {
        py.detach(|| Philox::new(key, stream).fill(draw, runs, out)).map_err(refused)
    })
}
