//! Changes of a graph, spliced into its bytes.
//!
//! What nothing changes stays byte for byte: unknown fields, the order of fields, and a message
//! whose changes say what it says already. What is added to a message stands behind the last
//! field whose number is not higher.

use super::{ATTRIBUTE, CHILD, HAS_VALUES, MAX_ITEMS, NODES, SAYS_VALUES, SLOT, VALUES, values};
use crate::error::{DecodeError, Error, RangeError};
use crate::protobuf::{Field, Fields, Value, put_bytes, put_varint};

/// A child, attribute or slot variable with other texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which one, in stored order.
    pub item: usize,
    /// What fields 1 to 3 are, where they are other ones; `None` leaves the whole out.
    pub texts: Option<[Option<Vec<u8>>; 3]>,
}

/// A child, attribute or slot variable that a node gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addition {
    /// A child and its local name.
    Child(usize, Vec<u8>),
    /// Name, full name and key.
    Attribute([Vec<u8>; 3]),
    /// For which variable, as what, and the variable that is kept.
    Slot(usize, Vec<u8>, usize),
}

/// All changes of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Children with other names.
    pub children: Vec<Change>,
    /// Attributes with other texts.
    pub attributes: Vec<Change>,
    /// Slot variables that go.
    pub slots: Vec<Change>,
    /// What nodes get.
    pub additions: Vec<(usize, Addition)>,
    /// Whether nodes have values.
    pub values: Vec<(usize, bool)>,
    /// How many nodes there are more.
    pub nodes: usize,
}

/// Returns the bytes of the changed graph.
///
/// # Errors
/// When the graph is malformed, or a change is about what is not there.
pub fn splice(data: &[u8], mut revision: Revision) -> Result<Vec<u8>, Error> {
    if revision.nodes >= MAX_ITEMS {
        return Err(RangeError::new(format!("{} nodes are too many", revision.nodes)).into());
    }
    for changes in [&mut revision.children, &mut revision.attributes, &mut revision.slots] {
        changes.sort_by_key(|change| change.item);
    }
    revision.additions.sort_by_key(|(node, _)| *node);
    revision.values.sort_by_key(|(node, _)| *node);
    let mut splicer = Splicer {
        children: Queue::new(&revision.children),
        attributes: Queue::new(&revision.attributes),
        slots: Queue::new(&revision.slots),
        additions: &revision.additions,
        values: &revision.values,
        node: 0,
    };
    let mut out = Vec::with_capacity(data.len().saturating_add(data.len() / 8));
    let mut message = Fields::new(data, 0);
    while let Some(field) = message.read()? {
        let stored = data.get(field.start..field.end).unwrap_or_default();
        match (field.number, field.value) {
            (NODES, Value::Bytes(_)) => match splicer.next_node(&field)? {
                Some(content) => put_bytes(&mut out, NODES, &content),
                None => out.extend_from_slice(stored),
            },
            _ => out.extend_from_slice(stored),
        }
    }
    let known = splicer.node;
    for _ in 0..revision.nodes {
        let content = splicer.node(&[], 0)?.unwrap_or_default();
        put_bytes(&mut out, NODES, &content);
    }
    splicer.check(known, &revision.additions)?;
    Ok(out)
}

/// Changes in the order of what they change.
struct Queue<'a> {
    changes: &'a [Change],
    item: usize,
}

impl<'a> Queue<'a> {
    const fn new(changes: &'a [Change]) -> Self {
        Self { changes, item: 0 }
    }

    /// The change of the next item, the last one if there are several.
    fn next(&mut self) -> Option<&'a Change> {
        let mut found = None;
        while let Some((first, rest)) = self.changes.split_first() {
            if first.item != self.item {
                break;
            }
            (found, self.changes) = (Some(first), rest);
        }
        self.item += 1;
        found
    }

    fn check(&self, what: &str) -> Result<(), RangeError> {
        match self.changes.first() {
            None => Ok(()),
            Some(change) => {
                let (item, count) = (change.item, self.item);
                Err(RangeError::new(format!("{what} {item} of {count} is changed")))
            }
        }
    }
}

struct Splicer<'a> {
    children: Queue<'a>,
    attributes: Queue<'a>,
    slots: Queue<'a>,
    additions: &'a [(usize, Addition)],
    values: &'a [(usize, bool)],
    node: usize,
}

impl Splicer<'_> {
    fn next_node(&mut self, field: &Field<'_>) -> Result<Option<Vec<u8>>, DecodeError> {
        let (body, base) = field.bytes()?;
        self.node(body, base)
    }

    /// The content of the next node; `None` where it stays.
    fn node(&mut self, body: &[u8], base: usize) -> Result<Option<Vec<u8>>, DecodeError> {
        let wanted = self.wanted_values(body, base)?;
        let (mut parts, mut changed) = (Parts::new(body.len()), false);
        let mut pending = wanted;
        let mut message = Fields::new(body, base);
        while let Some(field) = message.read()? {
            let stored = body.get(field.start..field.end).unwrap_or_default();
            let Value::Bytes(content) = field.value else {
                parts.keep(field.number, stored);
                continue;
            };
            let change = match field.number {
                CHILD => self.children.next(),
                ATTRIBUTE => self.attributes.next(),
                SLOT => self.slots.next(),
                VALUES if wanted.is_some() => {
                    changed = true;
                    if let Some(value) = pending.take() {
                        parts.put(VALUES, bool_value(value));
                    }
                    continue;
                }
                _ => None,
            };
            match change.map(|change| &change.texts) {
                None => parts.keep(field.number, stored),
                Some(None) => changed = true,
                Some(Some(texts)) => {
                    let base = base.saturating_add(field.end - content.len());
                    if let Some(content) = with_texts(content, base, texts)? {
                        changed = true;
                        parts.put(field.number, &content);
                    } else {
                        parts.keep(field.number, stored);
                    }
                }
            }
        }
        while let Some(((node, addition), rest)) = self.additions.split_first() {
            if *node != self.node {
                break;
            }
            (self.additions, changed) = (rest, true);
            parts.add(addition.number(), &addition.content());
        }
        if let Some(value) = pending {
            changed = true;
            parts.add(VALUES, bool_value(value));
        }
        self.node += 1;
        Ok(changed.then(|| parts.joined()))
    }

    /// What the next node is to say of its values, where it does not say so yet.
    fn wanted_values(&mut self, body: &[u8], base: usize) -> Result<Option<bool>, DecodeError> {
        let mut wanted = None;
        while let Some((&(node, value), rest)) = self.values.split_first() {
            if node != self.node {
                break;
            }
            (wanted, self.values) = (Some(value), rest);
        }
        let Some(value) = wanted else { return Ok(None) };
        let (mut flags, mut message) = (0, Fields::new(body, base));
        while let Some(field) = message.read()? {
            if let (VALUES, Value::Bytes(_)) = (field.number, field.value) {
                flags = values(field.message()?, flags)?;
            }
        }
        let said = flags & SAYS_VALUES != 0 && (flags & HAS_VALUES != 0) == value;
        Ok((!said).then_some(value))
    }

    fn check(&self, known: usize, additions: &[(usize, Addition)]) -> Result<(), RangeError> {
        self.children.check("child")?;
        self.attributes.check("attribute")?;
        self.slots.check("slot variable")?;
        let count = self.node;
        let nodes = self.additions.first().map(|(node, _)| *node);
        let nodes = nodes.or_else(|| self.values.first().map(|(node, _)| *node));
        let named = additions.iter().flat_map(|(_, addition)| addition.nodes());
        match nodes.or_else(|| named.into_iter().find(|&node| node >= count)) {
            None => Ok(()),
            Some(node) => {
                let message = format!("node {node} of {known} and {} more", count - known);
                Err(RangeError::new(message))
            }
        }
    }
}

impl Addition {
    const fn number(&self) -> u32 {
        match self {
            Self::Child(..) => CHILD,
            Self::Attribute(..) => ATTRIBUTE,
            Self::Slot(..) => SLOT,
        }
    }

    fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Child(child, _) => vec![*child],
            Self::Attribute(_) => Vec::new(),
            Self::Slot(original, _, variable) => vec![*original, *variable],
        }
    }

    fn content(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let put_number = |out: &mut Vec<u8>, number, value: usize| {
            if value > 0 {
                put_varint(out, number, i64::try_from(value).unwrap_or(i64::MAX));
            }
        };
        match self {
            Self::Child(child, name) => {
                put_number(&mut out, 1, *child);
                put_text(&mut out, 2, name);
            }
            Self::Attribute(texts) => {
                for (number, text) in (1..).zip(texts) {
                    put_text(&mut out, number, text);
                }
            }
            Self::Slot(original, name, variable) => {
                put_number(&mut out, 1, *original);
                put_text(&mut out, 2, name);
                put_number(&mut out, 3, *variable);
            }
        }
        out
    }
}

/// Appends a text, unless it is empty, which is how absence is stored.
fn put_text(out: &mut Vec<u8>, number: u32, text: &[u8]) {
    if !text.is_empty() {
        put_bytes(out, number, text);
    }
}

const fn bool_value(value: bool) -> &'static [u8] {
    if value { &[0x08, 1] } else { &[] }
}

/// A message with some of its texts replaced; `None` where it says the same already.
fn with_texts(
    body: &[u8],
    base: usize,
    texts: &[Option<Vec<u8>>; 3],
) -> Result<Option<Vec<u8>>, DecodeError> {
    let old = super::texts(Fields::new(body, base))?;
    let mut pending: [Option<&[u8]>; 3] = [None; 3];
    for ((new, old), wanted) in texts.iter().zip(old).zip(&mut pending) {
        *wanted = new.as_deref().filter(|&new| new != old);
    }
    if pending == [None; 3] {
        return Ok(None);
    }
    let (changed, mut parts) = (pending.map(|text| text.is_some()), Parts::new(body.len()));
    let mut message = Fields::new(body, base);
    while let Some(field) = message.read()? {
        let place = (field.number as usize).wrapping_sub(1);
        let replaced = changed.get(place).is_some_and(|&changed| changed);
        if let (true, Value::Bytes(_)) = (replaced, field.value) {
            let text = pending.get_mut(place).and_then(Option::take);
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                parts.put(field.number, text);
            }
        } else {
            parts.keep(field.number, body.get(field.start..field.end).unwrap_or_default());
        }
    }
    for (number, text) in (1..).zip(pending) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            parts.add(number, text);
        }
    }
    Ok(Some(parts.joined()))
}

/// The fields of a message in the making.
struct Parts {
    kept: Vec<u8>,
    /// Where, in what is kept, a field of each number goes.
    points: [usize; 8],
    added: Vec<(u32, Vec<u8>)>,
}

impl Parts {
    fn new(length: usize) -> Self {
        let kept = Vec::with_capacity(length.saturating_add(16));
        Self { kept, points: [0; 8], added: Vec::new() }
    }

    fn mark(&mut self, number: u32) {
        let end = self.kept.len();
        for point in self.points.iter_mut().skip(number as usize) {
            *point = end;
        }
    }

    fn keep(&mut self, number: u32, stored: &[u8]) {
        self.kept.extend_from_slice(stored);
        self.mark(number);
    }

    fn put(&mut self, number: u32, content: &[u8]) {
        put_bytes(&mut self.kept, number, content);
        self.mark(number);
    }

    fn add(&mut self, number: u32, content: &[u8]) {
        let mut field = Vec::with_capacity(content.len().saturating_add(4));
        put_bytes(&mut field, number, content);
        self.added.push((number, field));
    }

    fn joined(mut self) -> Vec<u8> {
        if self.added.is_empty() {
            return self.kept;
        }
        self.added.sort_by_key(|(number, _)| *number);
        let more: usize = self.added.iter().map(|(_, field)| field.len()).sum();
        let mut out = Vec::with_capacity(self.kept.len().saturating_add(more));
        let mut from = 0;
        for (number, field) in &self.added {
            let point = self.points.get(*number as usize).copied().unwrap_or(self.kept.len());
            if from < point {
                out.extend_from_slice(self.kept.get(from..point).unwrap_or_default());
                from = point;
            }
            out.extend_from_slice(field);
        }
        out.extend_from_slice(self.kept.get(from..).unwrap_or_default());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::SMALL;
    use super::*;

    fn spliced(data: &[u8], change: impl FnOnce(&mut Revision)) -> Result<Vec<u8>, Error> {
        let mut revision = Revision::default();
        change(&mut revision);
        splice(data, revision)
    }

    fn change(item: usize, texts: [Option<&str>; 3]) -> Change {
        Change { item, texts: Some(texts.map(|text| text.map(|text| text.as_bytes().to_vec()))) }
    }

    #[test]
    fn what_changes_nothing_gives_the_same_bytes() {
        assert_eq!(spliced(SMALL, |_| ()).unwrap(), SMALL);
        let same = spliced(SMALL, |revision| {
            revision.children = vec![change(1, [None, Some(""), None])];
            revision.children.push(change(0, [None, Some("a"), None]));
            revision.attributes = vec![change(0, [Some("V"), Some("f"), Some("k")])];
            revision.values = vec![(0, false), (1, true)];
        });
        assert_eq!(same.unwrap(), SMALL);
        // Lengths and tags that take more bytes than they need, and fields between the nodes.
        let odd = [0x8a, 0, 0x82, 0, 0x2a, 0, 0x12, 1, 7, 0x0a, 0x80, 0];
        let same = spliced(&odd, |revision| revision.values = vec![(0, false)]);
        assert_eq!(same.unwrap(), odd);
    }

    #[test]
    fn texts_are_replaced_where_they_are() {
        // key, an unknown field, name, key once more
        let data = [0x0a, 13, 0x12, 11, 0x1a, 1, b'x', 0x20, 9, 0x0a, 1, b'n', 0x1a, 1, b'y'];
        let found = spliced(&data, |r| r.attributes = vec![change(0, [None, None, Some("key")])]);
        let expected = [0x0a, 12, 0x12, 10, 0x1a, 3, b'k', b'e', b'y', 0x20, 9, 0x0a, 1, b'n'];
        assert_eq!(found.unwrap(), expected);
        let found = spliced(&data, |r| r.attributes = vec![change(0, [None, Some("f"), None])]);
        let expected = [
            0x0a, 16, 0x12, 14, 0x1a, 1, b'x', 0x20, 9, 0x0a, 1, b'n', 0x12, 1, b'f', 0x1a, 1, b'y',
        ];
        assert_eq!(found.unwrap(), expected);
        let found = spliced(&data, |r| r.attributes = vec![change(0, [None, None, Some("")])]);
        assert_eq!(found.unwrap(), [0x0a, 7, 0x12, 5, 0x20, 9, 0x0a, 1, b'n']);
    }

    #[test]
    fn items_go() {
        let found = spliced(SMALL, |revision| {
            revision.children = vec![Change { item: 1, texts: None }];
            revision.attributes = vec![Change { item: 0, texts: None }];
            revision.slots = vec![Change { item: 0, texts: None }];
        });
        let second = [0x0a, 13, 0x12, 3, 0x1a, 1, b'l', 0x22, 0, 0x2a, 2, 0x08, 1, 0x7a, 0];
        assert_eq!(found.unwrap(), [&SMALL[..11], &second].concat());
    }

    #[test]
    fn what_is_added_stands_behind_its_like() {
        let found = spliced(SMALL, |revision| {
            revision.nodes = 1;
            revision.additions = vec![
                (2, Addition::Attribute([b"V".to_vec(), Vec::new(), b"k".to_vec()])),
                (0, Addition::Slot(0, b"m".to_vec(), 2)),
                (0, Addition::Child(2, b"b".to_vec())),
            ];
            revision.values = vec![(2, true), (0, true)];
        });
        let root = [
            &[0x0a, 25, 0x0a, 5, 0x08, 1, 0x12, 1, b'a', 0x0a, 5, 0x08, 2, 0x12, 1, b'b'][..],
            &[0x1a, 5, 0x12, 1, b'm', 0x18, 2, 0x2a, 2, 0x08, 1],
        ]
        .concat();
        let fresh = [0x0a, 12, 0x12, 6, 0x0a, 1, b'V', 0x1a, 1, b'k', 0x2a, 2, 0x08, 1];
        assert_eq!(found.unwrap(), [&root, &SMALL[11..], &fresh].concat());
    }

    #[test]
    fn values_are_said_once() {
        let node = [0x0a, 6, 0x2a, 2, 0x08, 1, 0x2a, 0];
        let found = spliced(&node, |revision| revision.values = vec![(0, false)]);
        assert_eq!(found.unwrap(), [0x0a, 2, 0x2a, 0]);
        let found = spliced(&[0x0a, 0], |revision| revision.values = vec![(0, false)]);
        assert_eq!(found.unwrap(), [0x0a, 2, 0x2a, 0]);
    }

    #[test]
    fn what_is_not_there_cannot_change() {
        let refused = |change: fn(&mut Revision)| match spliced(SMALL, change) {
            Err(Error::Range(error)) => error.0,
            other => panic!("{other:?}"),
        };
        let gone = |item| vec![Change { item, texts: None }];
        assert_eq!(
            refused(|r| r.children = vec![Change { item: 2, texts: None }]),
            "child 2 of 2 is changed"
        );
        assert!(spliced(SMALL, |r| r.attributes = gone(2)).is_err());
        assert!(spliced(SMALL, |r| r.slots = gone(1)).is_err());
        assert_eq!(refused(|r| r.values = vec![(2, true)]), "node 2 of 2 and 0 more");
        assert_eq!(
            refused(|r| r.additions = vec![(0, Addition::Child(2, Vec::new()))]),
            "node 2 of 2 and 0 more"
        );
        assert!(
            spliced(SMALL, |r| r.additions = vec![(2, Addition::Child(0, Vec::new()))]).is_err()
        );
        assert!(spliced(SMALL, |r| r.nodes = MAX_ITEMS).is_err());
        assert!(matches!(spliced(&[0x0a], |_| ()), Err(Error::Decode(_))));
    }
}
