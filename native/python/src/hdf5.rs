//! Metadata of HDF5 files.

use ckptkit_codec::error::Error;
use ckptkit_codec::hdf5::{self, Outcome, Refusal, Tables};
use ckptkit_codec::{DecodeError, Kind};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{View, pack};
use crate::errors::{malformed, refused};
use crate::tables::{Pair, pair};

type Bytes<'py> = Bound<'py, PyBytes>;
type Paths<'py> = (Pair<'py>, Bytes<'py>);
type Objects<'py> =
    (Bytes<'py>, Vec<&'static str>, Bytes<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>);
type Lists<'py> = (Bytes<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>, Pair<'py>, Bytes<'py>);
type Attributes<'py> = (Pair<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>, Pair<'py>, Bytes<'py>);
type Columns<'py> = (Paths<'py>, Objects<'py>, Lists<'py>, Attributes<'py>, Bytes<'py>, u64);

#[pyfunction]
pub fn hdf5_scan(
    py: Python<'_>,
    content: View,
    windows: View,
    size: u64,
    cap: u64,
) -> PyResult<(Bytes<'_>, Option<Columns<'_>>)> {
    let (content, windows) = (content.bytes(), windows.column()?);
    let found = py.detach(|| hdf5::scan(content, &windows, size, cap));
    match found.map_err(|refusal| explain(py, refusal))? {
        Outcome::Needs(needs) => Ok((pack(py, &needs)?, None)),
        Outcome::Tables(tables) => Ok((PyBytes::new(py, b""), Some(columns(py, &tables)?))),
    }
}

/// The exception, with whether the bytes are sound and the path of the object in question.
fn explain(py: Python<'_>, refusal: Refusal) -> PyErr {
    let error = match refusal.error {
        Error::Range(error) => return refused(error),
        Error::Decode(error) => error,
    };
    let sound = matches!(error, DecodeError { kind: Kind::Unsupported | Kind::Limit, .. });
    let exception = malformed(py, error);
    let value = exception.value(py);
    let set = value
        .setattr("unsupported", sound)
        .and_then(|()| value.setattr("name", PyBytes::new(py, &refusal.path)));
    match set {
        Ok(()) => exception,
        Err(failure) => failure,
    }
}

fn columns<'py>(py: Python<'py>, tables: &Tables) -> PyResult<Columns<'py>> {
    const NONE: u8 = 0xff;
    let layouts: Vec<u8> =
        tables.layouts.iter().map(|layout| layout.map_or(NONE, |layout| layout as u8)).collect();
    let sorts: Vec<u8> = tables.sorts.iter().map(|&sort| sort as u8).collect();
    let big: Vec<u8> = tables.big.iter().map(|&big| big.into()).collect();
    let names = tables.dtypes.iter().map(|dtype| dtype.map_or("", hdf5::Dtype::name)).collect();
    Ok((
        (pair(py, &tables.paths)?, pack(py, &tables.numbers)?),
        (
            pack(py, &tables.addresses)?,
            names,
            PyBytes::new(py, &big),
            PyBytes::new(py, &layouts),
            pack(py, &tables.offsets)?,
            pack(py, &tables.nbytes)?,
            pack(py, &tables.stored)?,
        ),
        (
            pack(py, &tables.dims)?,
            pack(py, &tables.dim_ends)?,
            pack(py, &tables.filters)?,
            pack(py, &tables.filter_ends)?,
            pair(py, &tables.links)?,
            pack(py, &tables.link_ends)?,
        ),
        (
            pair(py, &tables.attributes)?,
            pack(py, &tables.attribute_ends)?,
            PyBytes::new(py, &sorts),
            pack(py, &tables.bits)?,
            pair(py, &tables.texts)?,
            pack(py, &tables.text_ends)?,
        ),
        pack(py, &tables.metadata)?,
        tables.end,
    ))
}
