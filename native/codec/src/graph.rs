//! `TrackableObjectGraph`: the objects of a checkpoint, as columns.
//!
//! ```text
//! TrackableObjectGraph   1 nodes TrackableObject*
//! TrackableObject        1 children ObjectReference* | 2 attributes SerializedTensor*
//!                        3 slot_variables SlotVariableReference* | 4 registered_saver
//!                        5 has_checkpoint_values BoolValue
//! ObjectReference        1 node_id int32 | 2 local_name
//! SerializedTensor       1 name | 2 full_name | 3 checkpoint_key
//! SlotVariableReference  1 original_variable_node_id int32 | 2 slot_name
//!                        3 slot_variable_node_id int32
//! BoolValue              1 value bool
//! ```
//!
//! Node 0 is the root. As protobuf has it, a field of another wire type is an unknown one, of a
//! scalar that is stored twice the last counts, and a number of more than 32 bits is cut.

pub mod splice;
pub mod walk;

use crate::error::{DecodeError, Kind, RangeError};
use crate::protobuf::{Field, Fields, Value};
use crate::rows::Column;

/// The most nodes, children, attributes and slot variables together.
pub const MAX_ITEMS: usize = 1 << 24;

/// Set when a registered saver stores a node elsewhere.
pub const HAS_SAVER: u8 = 1;
/// Set when a node says whether it has values.
pub const SAYS_VALUES: u8 = 2;
/// Set when a node says that it has values.
pub const HAS_VALUES: u8 = 4;

const NODES: u32 = 1;
const CHILD: u32 = 1;
const ATTRIBUTE: u32 = 2;
const SLOT: u32 = 3;
const SAVER: u32 = 4;
const VALUES: u32 = 5;

/// A graph as columns: one row per node, child, attribute, and slot variable, in stored order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Of each node: [`HAS_SAVER`], [`SAYS_VALUES`], [`HAS_VALUES`].
    pub flags: Vec<u8>,
    /// Where the children of each node end.
    pub edge_ends: Vec<i32>,
    /// The node that has a child.
    pub edge_parent: Vec<i32>,
    /// The node that is the child.
    pub edge_child: Vec<i32>,
    /// What the parent calls it.
    pub edge_name: Column,
    /// Where the attributes of each node end.
    pub attribute_ends: Vec<i32>,
    /// The node that has an attribute.
    pub attribute_node: Vec<i32>,
    /// What holds the value.
    pub attribute_name: Column,
    /// What the variable is called.
    pub full_name: Column,
    /// The name of the tensor.
    pub key: Column,
    /// Where the slot variables of each node end.
    pub slot_ends: Vec<i32>,
    /// The node that keeps a variable for another one.
    pub slot_optimizer: Vec<i32>,
    /// The node for which it is kept.
    pub slot_original: Vec<i32>,
    /// What it is kept as.
    pub slot_name: Column,
    /// The node that is kept.
    pub slot_variable: Vec<i32>,
}

impl Graph {
    fn items(&self) -> usize {
        let lists = [&self.edge_child, &self.attribute_node, &self.slot_variable];
        self.flags.len() + lists.iter().map(|list| list.len()).sum::<usize>()
    }

    fn references(&self) -> impl Iterator<Item = i32> {
        let slots = self.slot_original.iter().chain(&self.slot_variable);
        self.edge_child.iter().chain(slots).copied()
    }

    fn node(&mut self, message: Fields<'_>, nodes: Option<usize>) -> Result<(), DecodeError> {
        let (number, mut message, mut flags) = (int(self.flags.len()), message, 0);
        while let Some(field) = message.read()? {
            let Value::Bytes(_) = field.value else { continue };
            let inner = field.message()?;
            self.limit(&field)?;
            match field.number {
                CHILD => {
                    let (child, name, _) = reference(inner)?;
                    check(&field, &[child], nodes)?;
                    self.edge_parent.push(number);
                    self.edge_child.push(child);
                    self.edge_name.push(name);
                }
                ATTRIBUTE => {
                    let [name, full_name, key] = texts(inner)?;
                    self.attribute_node.push(number);
                    self.attribute_name.push(name);
                    self.full_name.push(full_name);
                    self.key.push(key);
                }
                SLOT => {
                    let (original, name, variable) = reference(inner)?;
                    check(&field, &[original, variable], nodes)?;
                    self.slot_optimizer.push(number);
                    self.slot_original.push(original);
                    self.slot_name.push(name);
                    self.slot_variable.push(variable);
                }
                SAVER => flags |= HAS_SAVER,
                VALUES => flags = values(inner, flags)?,
                _ => {}
            }
        }
        self.flags.push(flags);
        self.edge_ends.push(int(self.edge_child.len()));
        self.attribute_ends.push(int(self.attribute_node.len()));
        self.slot_ends.push(int(self.slot_variable.len()));
        Ok(())
    }

    fn limit(&self, field: &Field<'_>) -> Result<(), DecodeError> {
        if self.items() < MAX_ITEMS {
            return Ok(());
        }
        let message = format!("an object graph has at most {MAX_ITEMS} nodes and references");
        Err(field.error(Kind::Limit, message))
    }
}

/// Decodes a graph.
///
/// # Errors
/// When the message is malformed, is larger than any real one, or refers to a node that it lacks.
pub fn decode(data: &[u8]) -> Result<Graph, DecodeError> {
    let graph = walk(data, None)?;
    let count = int(graph.flags.len());
    if graph.references().all(|node| (0..count).contains(&node)) {
        return Ok(graph);
    }
    // References may lead forward, so that only a second walk can say where the bad one is.
    walk(data, Some(graph.flags.len()))
}

fn walk(data: &[u8], nodes: Option<usize>) -> Result<Graph, DecodeError> {
    let (mut graph, mut message) = (Graph::default(), Fields::new(data, 0));
    while let Some(field) = message.read()? {
        if let (NODES, Value::Bytes(_)) = (field.number, field.value) {
            graph.limit(&field)?;
            graph.node(field.message()?, nodes)?;
        }
    }
    Ok(graph)
}

fn check(field: &Field<'_>, found: &[i32], nodes: Option<usize>) -> Result<(), DecodeError> {
    let Some(count) = nodes else { return Ok(()) };
    match found.iter().find(|&&node| usize::try_from(node).map_or(true, |node| node >= count)) {
        None => Ok(()),
        Some(node) => {
            let message = format!("the graph refers to node {node}, it has {count}");
            Err(field.error(Kind::Bounds, message))
        }
    }
}

/// Fields 1 and 3 as numbers, and 2 as text.
fn reference(mut message: Fields<'_>) -> Result<(i32, &[u8], i32), DecodeError> {
    let (mut first, mut name, mut last) = (0, [].as_slice(), 0);
    while let Some(field) = message.read()? {
        match (field.number, field.value) {
            (1, Value::Varint(value)) => first = int32(value),
            (2, Value::Bytes(text)) => name = text,
            (3, Value::Varint(value)) => last = int32(value),
            _ => {}
        }
    }
    Ok((first, name, last))
}

/// Fields 1 to 3 as texts.
fn texts(mut message: Fields<'_>) -> Result<[&[u8]; 3], DecodeError> {
    let mut found = [[].as_slice(); 3];
    while let Some(field) = message.read()? {
        if let Value::Bytes(text) = field.value {
            let place = (field.number as usize).checked_sub(1);
            if let Some(to) = place.and_then(|place| found.get_mut(place)) {
                *to = text;
            }
        }
    }
    Ok(found)
}

/// The flags of a node after a message that says whether it has values; such messages merge.
fn values(mut message: Fields<'_>, flags: u8) -> Result<u8, DecodeError> {
    let mut flags = flags | SAYS_VALUES;
    while let Some(field) = message.read()? {
        if let (1, Value::Varint(value)) = (field.number, field.value) {
            flags = if value == 0 { flags & !HAS_VALUES } else { flags | HAS_VALUES };
        }
    }
    Ok(flags)
}

fn int32(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// A count up to [`MAX_ITEMS`].
fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The children of a node, and the number of the first one's edge.
fn children<'a>(
    edge_ends: &[i32],
    edge_child: &'a [i32],
    node: usize,
) -> Result<(usize, &'a [i32]), RangeError> {
    let start = node.checked_sub(1).map_or(0, |before| edge_ends[before]);
    let range = usize::try_from(start).ok().zip(usize::try_from(edge_ends[node]).ok());
    let (start, end) = range.ok_or_else(no_graph)?;
    Ok((start, edge_child.get(start..end).ok_or_else(no_graph)?))
}

fn no_graph() -> RangeError {
    RangeError::new("the columns are those of no graph")
}

/// For every node the child by which a breadth-first walk from the root reaches it first, or -1.
///
/// # Errors
/// When the columns are not those of a graph.
pub fn tree(edge_ends: &[i32], edge_child: &[i32]) -> Result<Vec<i32>, RangeError> {
    let mut found = vec![-1; edge_ends.len()];
    let mut reached = vec![false; edge_ends.len()];
    let mut queue: Vec<usize> = Vec::with_capacity(edge_ends.len());
    if let Some(root) = reached.first_mut() {
        *root = true;
        queue.push(0);
    }
    let mut at = 0;
    while let Some(&node) = queue.get(at) {
        at += 1;
        let (first, children) = children(edge_ends, edge_child, node)?;
        for (edge, &child) in (first..).zip(children) {
            let child = usize::try_from(child).map_err(|_| no_graph())?;
            let seen = reached.get_mut(child).ok_or_else(no_graph)?;
            if !*seen {
                *seen = true;
                found[child] = int(edge);
                queue.push(child);
            }
        }
    }
    Ok(found)
}

/// Of every node whether it, or one that it leads to, is a holder.
///
/// # Errors
/// When the columns are not those of a graph.
pub fn holders(
    edge_ends: &[i32],
    edge_child: &[i32],
    holders: &[u8],
) -> Result<Vec<u8>, RangeError> {
    let count = edge_ends.len();
    if holders.len() != count {
        return Err(no_graph());
    }
    // Parents by child, as one run: how many each has, where each one's start, then who they are.
    let mut starts = vec![0; count + 1];
    for &child in edge_child {
        let child = usize::try_from(child).ok().filter(|&child| child < count);
        starts[child.ok_or_else(no_graph)? + 1] += 1;
    }
    for node in 0..count {
        starts[node + 1] += starts[node];
    }
    let (mut parents, mut free) = (vec![0; edge_child.len()], starts.clone());
    let mut edges = edge_child.iter();
    let mut done = 0;
    for (parent, &end) in edge_ends.iter().enumerate() {
        let more = usize::try_from(end).ok().and_then(|end| end.checked_sub(done));
        for &child in edges.by_ref().take(more.ok_or_else(no_graph)?) {
            let at = &mut free[usize::try_from(child).map_err(|_| no_graph())?];
            parents[*at] = parent;
            *at += 1;
            done += 1;
        }
    }
    let mut found: Vec<u8> = holders.iter().map(|&holder| u8::from(holder != 0)).collect();
    let mut queue: Vec<usize> = (0..count).filter(|&node| found[node] != 0).collect();
    while let Some(node) = queue.pop() {
        for &parent in &parents[starts[node]..starts[node + 1]] {
            if found[parent] == 0 {
                found[parent] = 1;
                queue.push(parent);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protobuf::put_bytes;

    /// A root with a child `a`, which has two attributes, a slot, and itself as a child.
    pub const SMALL: &[u8] = &[
        0x0a, 9, 0x0a, 5, 0x08, 1, 0x12, 1, b'a', 0x2a, 0, // root
        0x0a, 39, //
        0x12, 9, 0x0a, 1, b'V', 0x12, 1, b'f', 0x1a, 1, b'k', //
        0x12, 3, 0x1a, 1, b'l', //
        0x1a, 7, 0x08, 1, 0x12, 1, b'm', 0x18, 1, //
        0x0a, 4, 0x12, 0, 0x08, 1, //
        0x22, 0, //
        0x2a, 2, 0x08, 1, //
        0x7a, 0, //
    ];

    fn rows(column: &Column) -> Vec<&[u8]> {
        column.rows().iter().collect()
    }

    #[test]
    fn columns_of_a_small_graph() {
        let graph = decode(SMALL).unwrap();
        assert_eq!(graph.flags, [SAYS_VALUES, SAYS_VALUES | HAS_VALUES | HAS_SAVER]);
        assert_eq!((graph.edge_ends, graph.edge_parent), (vec![1, 2], vec![0, 1]));
        assert_eq!(graph.edge_child, [1, 1]);
        assert_eq!(rows(&graph.edge_name), [b"a".as_slice(), b""]);
        assert_eq!((graph.attribute_ends, graph.attribute_node), (vec![0, 2], vec![1, 1]));
        assert_eq!(rows(&graph.attribute_name), [b"V".as_slice(), b""]);
        assert_eq!(rows(&graph.full_name), [b"f".as_slice(), b""]);
        assert_eq!(rows(&graph.key), [b"k", b"l"]);
        assert_eq!((graph.slot_ends, graph.slot_optimizer), (vec![0, 1], vec![1]));
        assert_eq!((graph.slot_original, graph.slot_variable), (vec![1], vec![1]));
        assert_eq!(rows(&graph.slot_name), [b"m"]);
    }

    #[test]
    fn every_cut_within_a_field_is_refused() {
        for end in 1..SMALL.len() {
            let whole = end == 11;
            let child = decode(&SMALL[..end]).unwrap_err();
            assert_eq!(child.kind, if whole { Kind::Bounds } else { Kind::Truncated }, "{end}");
            assert!(child.offset <= end);
        }
    }

    #[test]
    fn nodes_that_are_not_there_are_refused_where_they_stand() {
        let mut bytes = SMALL.to_vec();
        bytes[5] = 2;
        let error = decode(&bytes).unwrap_err();
        assert_eq!((error.kind, error.offset), (Kind::Bounds, 2));
        assert_eq!(error.message, "the graph refers to node 2, it has 2");
        let mut slot = Vec::new();
        put_bytes(&mut slot, 1, &[0x1a, 4, 0x18, 0xff, 0xff, 3]);
        assert_eq!(decode(&slot).unwrap_err().kind, Kind::Bounds);
        let negative = [&[0x0a, 13, 0x0a, 11, 0x08][..], &[0xff; 9], &[1]].concat();
        let error = decode(&negative).unwrap_err();
        assert_eq!(error.message, "the graph refers to node -1, it has 1");
        // Protobuf cuts a number of more than 32 bits.
        let wide = [0x0a, 8, 0x0a, 6, 0x08, 0x80, 0x80, 0x80, 0x80, 0x10];
        assert_eq!(decode(&wide).unwrap().edge_child, [0]);
    }

    #[test]
    fn the_last_of_a_field_counts_and_other_wire_types_are_unknown() {
        let node = [0x0a, 12, 0x12, 10, 0x1a, 1, b'x', 0x18, 5, 0x1a, 1, b'y', 0x0a, 0];
        assert_eq!(rows(&decode(&node).unwrap().key), [b"y"]);
        let values = [0x0a, 6, 0x2a, 2, 0x08, 1, 0x2a, 0];
        assert_eq!(decode(&values).unwrap().flags, [SAYS_VALUES | HAS_VALUES]);
        assert_eq!(decode(&[0x08, 1, 0x0a, 2, 0x08, 1]).unwrap().flags, [0]);
    }

    #[test]
    fn a_tree_takes_the_shortest_way() {
        // 0 -> 1, 2; 1 -> 3; 2 -> 3, 0; 3 -> 3; 4 -> 0
        let (ends, child) = ([2, 3, 5, 6, 7], [1, 2, 3, 3, 0, 3, 0]);
        assert_eq!(tree(&ends, &child).unwrap(), [-1, 0, 1, 2, -1]);
        assert_eq!(tree(&[], &[]).unwrap(), []);
        assert!(tree(&[2], &[0]).is_err());
        assert!(tree(&[1], &[1]).is_err());
        assert!(tree(&[1], &[-1]).is_err());
        assert!(tree(&[-1], &[]).is_err());
    }

    #[test]
    fn what_leads_to_a_holder_holds() {
        let (ends, child) = ([2, 3, 5, 6, 7], [1, 2, 3, 3, 0, 3, 0]);
        assert_eq!(holders(&ends, &child, &[0, 0, 0, 9, 0]).unwrap(), [1; 5]);
        assert_eq!(holders(&ends, &child, &[0, 0, 0, 0, 1]).unwrap(), [0, 0, 0, 0, 1]);
        assert_eq!(holders(&ends, &child, &[0, 1, 0, 0, 0]).unwrap(), [1, 1, 1, 0, 1]);
        assert!(holders(&ends, &child, &[0; 4]).is_err());
        assert!(holders(&[1], &[1], &[0]).is_err());
        assert!(holders(&[1], &[-1], &[0]).is_err());
        assert!(holders(&[2, 1], &[0, 0], &[0, 0]).is_err());
        assert_eq!(holders(&[7], &[0], &[1]).unwrap(), [1]);
    }
}
