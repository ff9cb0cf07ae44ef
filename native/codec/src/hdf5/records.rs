//! Trees of version 2: records in order.
//!
//! ```text
//! header  "BTHD", 0, kind, node u32, record u16, depth u16, 2 x u8, root, its records u16, all, sum
//! inner   "BTIN", 0, kind, records, { child, its records, [all below it] }, sum
//! leaf    "BTLF", 0, kind, records, sum
//! ```
//!
//! The widths of the two counts follow from how many records fit a node, and a tree below it.

use crate::error::Kind;
use crate::hdf5::checksum;
use crate::hdf5::space::{Fields, Space, Stop, unless_missing};

const MAX_DEPTH: u16 = 16;
const PREFIX: u64 = 10;
const WHAT: &str = "a tree of records";

/// Records of the same size, joined.
pub struct Records {
    /// Bytes of a record.
    pub size: u16,
    /// All records in order.
    pub joined: Vec<u8>,
}

/// What a level of a tree can have.
#[derive(Clone, Copy)]
struct Level {
    most: u64,
    below: u64,
    width: u8,
}

struct Walk {
    kind: u8,
    node: u64,
    record: u64,
    count_width: u8,
    levels: Vec<Level>,
}

/// Bytes of a number up to `most`.
fn width(most: u64) -> u8 {
    u8::try_from(most.max(1).ilog2() / 8 + 1).unwrap_or(8)
}

/// Reads all records of a tree of a kind.
pub fn read(space: &mut Space<'_>, at: u64, kind: u8) -> Result<Records, Stop> {
    let sizes = space.sizes;
    let length = 22 + u64::from(sizes.offsets) + u64::from(sizes.lengths);
    let block = space.block(at, length, WHAT)?;
    checksum::verify(&block, at, WHAT)?;
    let mut fields = Fields::new(&block, at, sizes);
    fields.signature(b"BTHD", WHAT)?;
    fields.version(&[0], WHAT)?;
    let before = fields;
    let found = fields.byte("the kind of a tree")?;
    let node = u64::from(fields.word("the size of a node")?);
    let size = fields.short("the size of a record")?;
    let depth = fields.short("the depth of a tree")?;
    fields.take(2, WHAT)?;
    let root = fields.address("the root of a tree")?;
    let count = fields.short("the number of records")?;
    let total = fields.length("the number of records")?;
    if found != kind || size == 0 || depth > MAX_DEPTH || node < PREFIX + u64::from(size) {
        let message = format!(
            "a tree of the kind {found} (not {kind}) of depth {depth}: nodes of {node} bytes, \
             records of {size}"
        );
        return Err(before.bad(Kind::Value, message).into());
    }
    let mut records = Records { size, joined: Vec::new() };
    if let Some(root) = root {
        let walk = Walk::new(kind, node, size.into(), depth, sizes.offsets);
        walk.node(space, root, depth.into(), count.into(), &mut records.joined)?;
    }
    if (records.joined.len() / usize::from(size)) as u64 != total {
        return Err(before
            .bad(Kind::Value, format!("a tree has other than {total} records"))
            .into());
    }
    Ok(records)
}

impl Walk {
    fn new(kind: u8, node: u64, record: u64, depth: u16, address: u8) -> Self {
        let most = (node - PREFIX) / record;
        let count_width = width(most);
        let mut levels = vec![Level { most, below: most, width: 0 }];
        for _ in 0..depth {
            let last = levels.last().copied().unwrap_or(Level { most: 0, below: 0, width: 0 });
            let pointer = u64::from(address) + u64::from(count_width) + u64::from(last.width);
            let most = node.saturating_sub(PREFIX + pointer) / (record + pointer);
            let below = (most + 1).saturating_mul(last.below).saturating_add(most);
            levels.push(Level { most, below, width: width(below) });
        }
        Self { kind, node, record, count_width, levels }
    }

    fn node(
        &self,
        space: &mut Space<'_>,
        at: u64,
        depth: usize,
        count: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let sizes = space.sizes;
        let block = space.block(at, self.node, WHAT)?;
        let mut fields = Fields::new(&block, at, sizes);
        fields.signature(if depth > 0 { b"BTIN" } else { b"BTLF" }, WHAT)?;
        fields.version(&[0], WHAT)?;
        let before = fields;
        let kind = fields.byte("the kind of a tree")?;
        let most = self.levels.get(depth).map_or(0, |level| level.most);
        if kind != self.kind || count > most {
            let message = format!("a node of the kind {kind} with {count} records, at most {most}");
            return Err(before.bad(Kind::Value, message).into());
        }
        let mut records = fields.part(count * self.record, "records")?;
        let mut children = Vec::new();
        if let Some(below) = depth.checked_sub(1).and_then(|below| self.levels.get(below)) {
            for _ in 0..=count {
                let child = fields.place("a node of a tree")?;
                let count = fields.number(self.count_width, "the number of records")?;
                fields.number(below.width, "the number of records")?;
                children.push((child, count));
            }
        }
        let used = fields.done() + 4;
        checksum::verify(block.get(..used).unwrap_or_default(), at, WHAT)?;
        let mut missing = false;
        if children.is_empty() {
            out.extend_from_slice(records.take(count * self.record, "records")?);
        }
        for (number, (child, count)) in children.into_iter().enumerate() {
            if number > 0 {
                out.extend_from_slice(records.take(self.record, "a record")?);
            }
            let walked = self.node(space, child, depth - 1, count, out);
            unless_missing(walked, &mut missing)?;
        }
        if missing { Err(Stop::Missing) } else { Ok(()) }
    }
}

impl Records {
    /// The records, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.joined.chunks_exact(self.size.into())
    }
}
