//! Damaged tables, read as far as they go.

use ckptkit_codec::salvage::{self, State};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::{View, pack};
use crate::tables::{Pair, pair};

type Bytes<'py> = Bound<'py, PyBytes>;
type Region = (usize, usize, &'static str, String);
type Table<'py> = (Bytes<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>, Vec<Region>, bool);

const fn name(state: State) -> &'static str {
    match state {
        State::Good => "good",
        State::Repaired => "repaired",
        State::Doubtful => "doubtful",
        State::Lost => "lost",
        State::Directory => "directory",
    }
}

#[pyfunction]
pub fn table_salvage(py: Python<'_>, index: View, limit: u64) -> PyResult<Table<'_>> {
    let index = index.bytes();
    let found = py.detach(|| salvage::read(index, limit));
    let (keys, key_ends): Pair<'_> = pair(py, &found.keys)?;
    let (values, value_ends) = pair(py, &found.values)?;
    let regions = found.regions.into_iter();
    let regions = regions.map(|one| (one.start, one.end, name(one.state), one.message)).collect();
    Ok((keys, key_ends, values, value_ends, pack(py, &found.region)?, regions, found.complete))
}
