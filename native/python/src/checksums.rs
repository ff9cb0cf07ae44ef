//! CRC-32C, CRC-32 and the fingerprint.

use ckptkit_codec::crc::{self, Crc};
use ckptkit_codec::farmhash;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{View, pack};
use crate::errors::refused;

#[pyfunction]
#[pyo3(signature = (data, value=0))]
pub fn crc32c(py: Python<'_>, data: View, value: u32) -> u32 {
    let data = data.bytes();
    py.detach(|| Crc::Castagnoli.extend(value, data))
}

#[pyfunction]
#[pyo3(signature = (data, value=0))]
pub fn crc32(py: Python<'_>, data: View, value: u32) -> u32 {
    let data = data.bytes();
    py.detach(|| Crc::IsoHdlc.extend(value, data))
}

#[pyfunction]
pub fn crc32c_combine(first: u32, second: u32, second_length: u64) -> u32 {
    Crc::Castagnoli.combine(first, second, second_length)
}

#[pyfunction]
pub fn crc32_combine(first: u32, second: u32, second_length: u64) -> u32 {
    Crc::IsoHdlc.combine(first, second, second_length)
}

#[pyfunction]
pub fn crc32c_patch(py: Python<'_>, value: u32, old: View, new: View, tail: u64) -> PyResult<u32> {
    let (old, new) = (old.bytes(), new.bytes());
    py.detach(|| Crc::Castagnoli.patch(value, old, new, tail)).map_err(refused)
}

#[pyfunction]
pub fn crc32c_patch_runs(
    py: Python<'_>,
    value: u32,
    old: View,
    new: View,
    width: usize,
    tails: View,
) -> PyResult<u32> {
    let (old, new, tails) = (old.bytes(), new.bytes(), tails.column()?);
    py.detach(|| Crc::Castagnoli.patch_runs(value, old, new, width, &tails)).map_err(refused)
}

#[pyfunction]
pub fn crc32_patch(py: Python<'_>, value: u32, old: View, new: View, tail: u64) -> PyResult<u32> {
    let (old, new) = (old.bytes(), new.bytes());
    py.detach(|| Crc::IsoHdlc.patch(value, old, new, tail)).map_err(refused)
}

#[pyfunction]
pub fn crc32_patch_runs(
    py: Python<'_>,
    value: u32,
    old: View,
    new: View,
    width: usize,
    tails: View,
) -> PyResult<u32> {
    let (old, new, tails) = (old.bytes(), new.bytes(), tails.column()?);
    py.detach(|| Crc::IsoHdlc.patch_runs(value, old, new, width, &tails)).map_err(refused)
}

#[pyfunction]
pub fn crc32c_segments(py: Python<'_>, data: View, ends: View) -> PyResult<Bound<'_, PyBytes>> {
    let (data, ends) = (data.bytes(), ends.column()?);
    let found = py.detach(|| crc::segments(data, &ends)).map_err(refused)?;
    pack(py, &found)
}

#[pyfunction]
pub fn crc32c_mask(crc: u32) -> u32 {
    crc::mask(crc)
}

#[pyfunction]
pub fn crc32c_unmask(masked: u32) -> u32 {
    crc::unmask(masked)
}

#[pyfunction]
pub fn fingerprint64(py: Python<'_>, data: View) -> u64 {
    let data = data.bytes();
    py.detach(|| farmhash::fingerprint64(data))
}
