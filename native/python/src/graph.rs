//! Object graphs.

use std::collections::HashMap;

use ckptkit_codec::graph::splice::{Addition, Change, Revision, splice};
use ckptkit_codec::graph::walk::{Glob, Names, reach};
use ckptkit_codec::graph::{self, Graph};
use ckptkit_codec::rows::{Column, Rows};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::buffer::{View, pack};
use crate::errors::{either, malformed, refused};
use crate::tables::{Text, name};

type Bytes<'py> = Bound<'py, PyBytes>;
type List<'py> = Bound<'py, PyList>;
type Columns<'py> = (
    Bytes<'py>,
    (Bytes<'py>, Bytes<'py>, Bytes<'py>, List<'py>),
    (Bytes<'py>, Bytes<'py>, List<'py>, List<'py>, List<'py>),
    (Bytes<'py>, Bytes<'py>, Bytes<'py>, List<'py>, Bytes<'py>),
);

#[pyfunction]
pub fn graph_decode(py: Python<'_>, data: View) -> PyResult<Columns<'_>> {
    let data = data.bytes();
    let found: Graph = py.detach(|| graph::decode(data)).map_err(|e| malformed(py, e))?;
    let mut known = HashMap::new();
    let edges = (
        pack(py, &found.edge_ends)?,
        pack(py, &found.edge_parent)?,
        pack(py, &found.edge_child)?,
        shared(py, &found.edge_name, &mut known)?,
    );
    let attributes = (
        pack(py, &found.attribute_ends)?,
        pack(py, &found.attribute_node)?,
        shared(py, &found.attribute_name, &mut known)?,
        each(py, found.full_name.rows())?,
        each(py, found.key.rows())?,
    );
    let slots = (
        pack(py, &found.slot_ends)?,
        pack(py, &found.slot_optimizer)?,
        pack(py, &found.slot_original)?,
        shared(py, &found.slot_name, &mut known)?,
        pack(py, &found.slot_variable)?,
    );
    Ok((PyBytes::new(py, &found.flags), edges, attributes, slots))
}

/// A list of texts, of which many are the same.
fn shared<'py, 'a>(
    py: Python<'py>,
    column: &'a Column,
    known: &mut HashMap<&'a [u8], Bound<'py, PyString>>,
) -> PyResult<List<'py>> {
    let mut texts = Vec::with_capacity(column.ends.len());
    for row in column.rows().iter() {
        let text = match known.get(row) {
            Some(text) => text.clone(),
            None => known.entry(row).or_insert(name(py, row)?).clone(),
        };
        texts.push(text);
    }
    PyList::new(py, texts)
}

/// A list of texts, which differ.
fn each<'py>(py: Python<'py>, rows: Rows<'_>) -> PyResult<List<'py>> {
    let texts: PyResult<Vec<_>> = rows.iter().map(|row| name(py, row)).collect();
    PyList::new(py, texts?)
}

#[pyfunction]
pub fn graph_tree(py: Python<'_>, edge_ends: View, edge_child: View) -> PyResult<Bytes<'_>> {
    let (ends, children) = (edge_ends.column()?, edge_child.column()?);
    let found = py.detach(|| graph::tree(&ends, &children)).map_err(refused)?;
    pack(py, &found)
}

#[pyfunction]
pub fn graph_holders(
    py: Python<'_>,
    edge_ends: View,
    edge_child: View,
    holders: View,
) -> PyResult<Bytes<'_>> {
    let (ends, children, bytes) = (edge_ends.column()?, edge_child.column()?, holders.bytes());
    let found = py.detach(|| graph::holders(&ends, &children, bytes)).map_err(refused)?;
    Ok(PyBytes::new(py, &found))
}

#[pyfunction]
pub fn graph_reach<'py>(
    py: Python<'py>,
    edge_ends: View,
    edge_child: View,
    edge_name: &Bound<'py, PyList>,
    glob: &Bound<'py, PyString>,
    grouped: bool,
) -> PyResult<Bytes<'py>> {
    let (ends, children) = (edge_ends.column()?, edge_child.column()?);
    let mut names = Names::default();
    for name in edge_name {
        put_points(name.cast()?, &mut names.text)?;
        names.ends.push(names.text.len());
    }
    let mut text = Vec::new();
    put_points(glob, &mut text)?;
    let found = py.detach(|| reach(&ends, &children, &names, &Glob::new(&text, grouped)));
    Ok(PyBytes::new(py, &found.map_err(refused)?))
}

/// Appends the code points of a text, lone surrogates included.
fn put_points(text: &Bound<'_, PyString>, points: &mut Vec<u32>) -> PyResult<()> {
    if let Ok(plain) = text.to_str() {
        points.extend(plain.chars().map(u32::from));
        return Ok(());
    }
    let encoded = text.call_method1("encode", ("utf-32-le", "surrogatepass"))?;
    let bytes = encoded.cast::<PyBytes>()?.as_bytes();
    let quads = bytes.chunks_exact(4).filter_map(|quad| quad.first_chunk());
    points.extend(quads.map(|quad| u32::from_le_bytes(*quad)));
    Ok(())
}

#[pyfunction]
#[allow(clippy::too_many_arguments, clippy::type_complexity)] // Plain lists of plain tuples.
pub fn graph_splice(
    py: Python<'_>,
    data: View,
    children: Vec<(usize, Option<Text>)>,
    attributes: Vec<(usize, Option<(Option<Text>, Option<Text>)>)>,
    slots: Vec<usize>,
    added_children: Vec<(usize, usize, Text)>,
    added_attributes: Vec<(usize, Text, Text, Text)>,
    added_slots: Vec<(usize, usize, Text, usize)>,
    values: Vec<(usize, bool)>,
    nodes: usize,
) -> PyResult<Bytes<'_>> {
    let data = data.bytes();
    let change = |item, texts| Change { item, texts };
    let mut revision = Revision { values, nodes, ..Revision::default() };
    revision.children = children
        .into_iter()
        .map(|(item, name)| change(item, name.map(|Text(name)| [None, Some(name), None])))
        .collect();
    revision.attributes = attributes
        .into_iter()
        .map(|(item, texts)| {
            let texts = texts.map(|(full, key)| [None, full.map(|t| t.0), key.map(|t| t.0)]);
            change(item, texts)
        })
        .collect();
    revision.slots = slots.into_iter().map(|item| change(item, None)).collect();
    let mut add = |node, addition| revision.additions.push((node, addition));
    for (parent, child, Text(name)) in added_children {
        add(parent, Addition::Child(child, name));
    }
    for (node, Text(name), Text(full_name), Text(key)) in added_attributes {
        add(node, Addition::Attribute([name, full_name, key]));
    }
    for (optimizer, original, Text(name), variable) in added_slots {
        add(optimizer, Addition::Slot(original, name, variable));
    }
    let encoded = py.detach(|| splice(data, revision)).map_err(|e| either(py, e))?;
    Ok(PyBytes::new(py, &encoded))
}
