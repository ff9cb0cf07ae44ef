//! Where the chunks of a dataset are.
//!
//! ```text
//! node  "TREE", 1, level u8, entries u16, left, right, { key, child }, key
//! key   size u32, skipped filters u32, rank + 1 offsets u64
//! ```

use crate::error::{DecodeError, Kind};
use crate::hdf5::dataset::{Dataset, Layout};
use crate::hdf5::space::{Fields, Space, Stop, unless_missing};
use crate::hdf5::superblock::Superblock;

/// No tree of a file that fits a disk is higher.
pub const MAX_LEVEL: u8 = 16;

/// Walks a tree of version 1; without one no chunk was ever written.
pub fn tree(
    space: &mut Space<'_>,
    at: Option<u64>,
    dims: &[u64],
    found: &mut Dataset,
    superblock: &Superblock,
) -> Result<(), Stop> {
    found.layout = Layout::Chunked;
    let Some(at) = at else { return Ok(()) };
    let whole = if found.filters.is_empty() { Some(dims.iter().product()) } else { None };
    let walk = Walk { rank: dims.len() as u64, whole, k: superblock.chunk_k.into() };
    walk.node(space, at, None, found)
}

struct Walk {
    rank: u64,
    whole: Option<u64>,
    k: u64,
}

impl Walk {
    fn node(
        &self,
        space: &mut Space<'_>,
        at: u64,
        expected: Option<u8>,
        found: &mut Dataset,
    ) -> Result<(), Stop> {
        let sizes = space.sizes;
        let (key, child) = (8 + 8 * self.rank, u64::from(sizes.offsets));
        let length = 8 + 2 * child + 2 * self.k * (key + child) + key;
        let block = space.block(at, length, "a tree of chunks")?;
        let mut fields = Fields::new(&block, at, sizes);
        let (level, entries) = head(&mut fields, 1, expected, 2 * self.k, "a tree of chunks")?;
        let mut missing = false;
        for _ in 0..entries {
            let before = fields;
            let size = u64::from(fields.word("the size of a chunk")?);
            fields.word("skipped filters")?;
            fields.take(8 * self.rank, "the place of a chunk")?;
            let at = fields.place("a chunk")?;
            if level > 0 {
                let walked = self.node(space, at, Some(level - 1), found);
                unless_missing(walked, &mut missing)?;
                continue;
            }
            if self.whole.is_some_and(|whole| whole != size) {
                let message = format!("a chunk takes {size} bytes");
                return Err(before.bad(Kind::Value, message).into());
            }
            found.chunk(at, size)?;
        }
        if missing { Err(Stop::Missing) } else { Ok(()) }
    }
}

/// Reads the head of a node of a tree of version 1: level and number of entries.
pub fn head(
    fields: &mut Fields<'_>,
    kind: u8,
    expected: Option<u8>,
    most: u64,
    what: &str,
) -> Result<(u8, u16), DecodeError> {
    fields.signature(b"TREE", what)?;
    let before = *fields;
    let found = fields.byte("the kind of a tree")?;
    if found != kind {
        let message = format!("{what} has the kind {found} instead of {kind}");
        return Err(before.bad(Kind::Value, message));
    }
    let level = fields.byte("the level of a node")?;
    if expected.is_some_and(|expected| expected != level) || level > MAX_LEVEL {
        let message = format!("a node of {what} has the level {level}");
        return Err(before.bad(Kind::Value, message));
    }
    let entries = fields.short("the number of entries")?;
    if u64::from(entries) > most {
        let message = format!("a node of {what} has {entries} entries, at most {most}");
        return Err(before.bad(Kind::Value, message));
    }
    fields.address("the node to the left")?;
    fields.address("the node to the right")?;
    Ok((level, entries))
}
