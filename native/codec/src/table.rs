//! A whole table: the index file of a checkpoint.
//!
//! ```text
//! table    data block*  |  metaindex block (empty)  |  index block  |  footer
//! index    one entry per data block: key = separator, value = handle
//!          last key of the block <= separator < first key of the next block
//! footer   metaindex handle | index handle | zeros up to 40 bytes | magic (8 bytes)
//! ```
//!
//! The writer cuts blocks exactly where TensorFlow's does, so that the same entries give the same
//! file. The reader ignores the metaindex and the padding of the footer, as TensorFlow's does;
//! [`warnings`] reports what it ignored.

use crate::block::{Body, Builder, Entries, Handle};
use crate::error::{DecodeError, Kind, RangeError};
use crate::rows::Rows;
use crate::varint::Cursor;

/// A data block is finished when it has at least this many bytes.
const BLOCK_SIZE: usize = 262_144;
/// An entry of at least this many bytes starts a block of its own.
const LARGE_ENTRY: usize = 2 * BLOCK_SIZE;
/// A block body takes at most this many bytes for a byte of key: three lengths and a restart.
const MAX_OVERHEAD: u64 = 20;
pub(crate) const FOOTER: usize = 48;
const HANDLES: usize = 40;
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
const DATA_RESTARTS: usize = 16;
const INDEX_RESTARTS: usize = 1;

pub(crate) struct Footer {
    pub(crate) metaindex: Handle,
    pub(crate) index: Handle,
    /// Where the footer starts.
    pub(crate) start: usize,
    /// Where the index handle, and where the zeros after it start, from `start` on.
    second: usize,
    padding: usize,
}

pub(crate) fn footer(table: &[u8]) -> Result<Footer, DecodeError> {
    let length = table.len();
    let Some((rest, footer)) = table.split_last_chunk::<FOOTER>() else {
        let message = format!("table of {length} bytes is shorter than its footer of {FOOTER}");
        return Err(DecodeError::new(Kind::Truncated, 0, message));
    };
    let (handles, magic) = footer.split_at(HANDLES);
    let found = u64::from_le_bytes(*magic.first_chunk().unwrap_or(&[0; 8]));
    if found != MAGIC {
        let message = format!("table magic is {found:016x} instead of {MAGIC:016x}");
        return Err(DecodeError::new(Kind::Unsupported, rest.len() + HANDLES, message));
    }
    let mut cursor = Cursor::new(handles, rest.len());
    let metaindex = Handle::decode(&mut cursor)?;
    let second = cursor.position();
    let index = Handle::decode(&mut cursor)?;
    Ok(Footer { metaindex, index, start: rest.len(), second, padding: cursor.position() })
}

fn open<'a>(
    table: &'a [u8],
    handle: Handle,
    what: &str,
    at: usize,
    limit: u64,
) -> Result<Body<'a>, DecodeError> {
    let end = table.len().saturating_sub(FOOTER);
    let Some(range) = handle.range(end) else {
        let Handle { offset, size } = handle;
        let message = format!("{what} at {offset} of {size} bytes passes the footer at {end}");
        return Err(DecodeError::new(Kind::Bounds, at, message));
    };
    let start = range.start;
    Body::open(table.get(range).unwrap_or_default(), start, limit)
}

/// The index block: a separator and a handle for each data block.
struct Index {
    entries: Entries,
    handles: Vec<Handle>,
    /// Where the index block starts, for errors about its entries.
    start: usize,
}

fn index(table: &[u8], footer: &Footer, limit: u64) -> Result<Index, DecodeError> {
    let body = open(table, footer.index, "index block", footer.start, limit)?;
    let mut entries = Entries::default();
    // Separators are no longer than keys; handles are not part of the caller's limit.
    body.decode(&mut entries, limit.saturating_add(body.len() as u64))?;
    let start = usize::try_from(footer.index.offset).unwrap_or(usize::MAX);
    let mut handles = Vec::with_capacity(entries.values.ends.len());
    for value in entries.values.rows().iter() {
        let handle = Handle::decode(&mut Cursor::new(value, 0))
            .map_err(|error| DecodeError { offset: start, ..error })?;
        handles.push(handle);
    }
    disjoint(table, footer, &handles)?;
    Ok(Index { entries, handles, start })
}

/// Refuses blocks that share bytes: the same block listed twice, or ranges that overlap.
fn disjoint(table: &[u8], footer: &Footer, handles: &[Handle]) -> Result<(), DecodeError> {
    let end = table.len().saturating_sub(FOOTER);
    let mut ranges = Vec::with_capacity(handles.len() + 1);
    for handle in handles.iter().chain([&footer.index]) {
        let Some(range) = handle.range(end) else {
            let Handle { offset, size } = *handle;
            let message = format!("data block at {offset} of {size} bytes passes {end}");
            let at = usize::try_from(footer.index.offset).unwrap_or(usize::MAX);
            return Err(DecodeError::new(Kind::Bounds, at, message));
        };
        ranges.push((range.start, range.end));
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if let [(_, end), (start, _)] = *pair
            && start < end
        {
            let message = format!("block at {start} starts before the block before ends, at {end}");
            return Err(DecodeError::new(Kind::Order, start, message));
        }
    }
    Ok(())
}

/// Decodes and validates a whole table; `limit` caps the bytes of all keys and values.
///
/// # Errors
/// At the first malformation, in the order footer, index block, data blocks.
pub fn decode(table: &[u8], limit: u64) -> Result<Entries, DecodeError> {
    let footer = footer(table)?;
    let index = index(table, &footer, limit)?;
    let separators = index.entries.keys.rows();
    let mut rows = Entries::default();
    for (number, &handle) in index.handles.iter().enumerate() {
        let cap = limit.saturating_mul(MAX_OVERHEAD).saturating_add(BLOCK_SIZE as u64);
        let body = open(table, handle, "data block", index.start, cap)?;
        let offset = usize::try_from(handle.offset).unwrap_or(usize::MAX);
        let before = rows.keys.ends.len();
        rows.start_block();
        if body.decode(&mut rows, limit)? == 0 {
            return Err(DecodeError::new(Kind::Value, offset, "data block holds no entry"));
        }
        let first = rows.keys.rows().get(before);
        if number > 0 && separators.get(number - 1) >= first {
            let message = "first key of the block is not greater than the separator before it";
            return Err(DecodeError::new(Kind::Order, offset, message));
        }
        if rows.last_key().is_some_and(|last| separators.get(number) < last) {
            let message = "separator of the block is less than its last key";
            return Err(DecodeError::new(Kind::Order, offset, message));
        }
    }
    Ok(rows)
}

/// What [`decode`] accepts but no writer produces, each with its offset.
///
/// # Errors
/// When footer, index block, or the lengths in a data block are malformed.
pub fn warnings(table: &[u8]) -> Result<Vec<(usize, String)>, DecodeError> {
    let footer = footer(table)?;
    let index = index(table, &footer, u64::MAX)?;
    let mut found = Vec::new();
    let padding = table.get(footer.start + footer.padding..footer.start + HANDLES);
    if padding.unwrap_or_default().iter().any(|&byte| byte != 0) {
        let message = "footer padding is not zero".to_owned();
        found.push((footer.start + footer.padding, message));
    }
    let mut owned: Vec<_> = index.handles.iter().chain([&footer.index]).copied().collect();
    owned.push(footer.metaindex);
    if let Err(error) = metaindex(table, &footer) {
        found.push((error.offset, format!("metaindex: {}", error.message)));
    }
    gaps(&mut owned, footer.start, &mut found);
    if let Some(at) = long_number(table, &footer, &index)? {
        found.push((at, "a number takes more bytes than it needs".to_owned()));
    }
    found.sort();
    Ok(found)
}

/// Where the first number is that takes more bytes than it needs: its handle, its entry, or in a
/// compressed block the start of that. Footer and index block come first.
fn long_number(table: &[u8], footer: &Footer, index: &Index) -> Result<Option<usize>, DecodeError> {
    if footer.second != footer.metaindex.length() {
        return Ok(Some(footer.start));
    }
    if footer.padding != footer.second + footer.index.length() {
        return Ok(Some(footer.start + footer.second));
    }
    let body = open(table, footer.index, "index block", footer.start, u64::MAX)?;
    let long_handle = |value: &[u8]| {
        let mut cursor = Cursor::new(value, 0);
        Handle::decode(&mut cursor).is_ok_and(|handle| handle.length() != cursor.position())
    };
    if let Some(at) = body.long_number(long_handle)? {
        return Ok(Some(at));
    }
    for &handle in &index.handles {
        let body = open(table, handle, "data block", index.start, u64::MAX)?;
        if let Some(at) = body.long_number(|_| false)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn metaindex(table: &[u8], footer: &Footer) -> Result<(), DecodeError> {
    let body = open(table, footer.metaindex, "metaindex block", footer.start, table.len() as u64)?;
    let mut entries = Entries::default();
    let count = body.decode(&mut entries, table.len() as u64)?;
    if count == 0 {
        return Ok(());
    }
    let offset = usize::try_from(footer.metaindex.offset).unwrap_or(usize::MAX);
    Err(DecodeError::new(Kind::Value, offset, format!("{count} entries instead of none")))
}

fn gaps(owned: &mut [Handle], end: usize, found: &mut Vec<(usize, String)>) {
    owned.sort_unstable_by_key(|handle| handle.offset);
    let mut covered = 0;
    for range in owned.iter().filter_map(|handle| handle.range(end)) {
        if range.start > covered {
            found.push((covered, format!("{} bytes in no block", range.start - covered)));
        } else if range.start < covered {
            found.push((range.start, "metaindex block overlaps another block".to_owned()));
        }
        covered = covered.max(range.end);
    }
    if covered < end {
        found.push((covered, format!("{} bytes in no block", end - covered)));
    }
}

/// Encodes a table, byte for byte as TensorFlow's writer does.
///
/// # Errors
/// When the columns differ in length, the keys are not strictly increasing, or an entry is too
/// large for the format.
pub fn encode(keys: Rows<'_>, values: Rows<'_>) -> Result<Vec<u8>, RangeError> {
    if keys.len() != values.len() {
        let (keys, values) = (keys.len(), values.len());
        return Err(RangeError::new(format!("{keys} keys but {values} values")));
    }
    let mut writer = Writer::default();
    let mut previous: Option<&[u8]> = None;
    for (row, (key, value)) in keys.iter().zip(values.iter()).enumerate() {
        if previous.is_some_and(|previous| previous >= key) {
            return Err(RangeError::new(format!("key {row} is not greater than the key before")));
        }
        if u32::try_from(key.len().max(value.len())).is_err() {
            return Err(RangeError::new(format!("key or value {row} takes 4 GiB or more")));
        }
        writer.add(previous, key, value);
        previous = Some(key);
    }
    Ok(writer.finish(previous))
}

struct Writer {
    out: Vec<u8>,
    data: Builder,
    index: Builder,
    /// The block that was finished last and has no index entry yet.
    pending: Option<Handle>,
    separator: Vec<u8>,
    handle: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            out: Vec::new(),
            data: Builder::new(DATA_RESTARTS),
            index: Builder::new(INDEX_RESTARTS),
            pending: None,
            separator: Vec::new(),
            handle: Vec::new(),
        }
    }
}

impl Writer {
    fn add(&mut self, previous: Option<&[u8]>, key: &[u8], value: &[u8]) {
        if previous.is_some() && key.len() + value.len() >= LARGE_ENTRY {
            self.flush();
        }
        let previous = previous.unwrap_or_default();
        self.point(|out| separator(previous, key, out));
        self.data.add(previous, key, value);
        if self.data.size() >= BLOCK_SIZE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.data.is_empty() {
            self.pending = Some(self.data.finish(&mut self.out));
        }
    }

    /// Writes the index entry of the block that was finished last, if it has none yet.
    fn point(&mut self, separate: impl FnOnce(&mut Vec<u8>)) {
        if let Some(handle) = self.pending.take() {
            self.separator.clear();
            separate(&mut self.separator);
            self.handle.clear();
            handle.encode(&mut self.handle);
            self.index.add(&[], &self.separator, &self.handle);
        }
    }

    fn finish(mut self, last: Option<&[u8]>) -> Vec<u8> {
        self.flush();
        let metaindex = Builder::new(DATA_RESTARTS).finish(&mut self.out);
        self.point(|out| successor(last.unwrap_or_default(), out));
        let index = self.index.finish(&mut self.out);
        let end = self.out.len() + HANDLES;
        metaindex.encode(&mut self.out);
        index.encode(&mut self.out);
        self.out.resize(end, 0);
        self.out.extend_from_slice(&MAGIC.to_le_bytes());
        self.out
    }
}

/// A short key that is at least `last` and less than `next`.
fn separator(last: &[u8], next: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(last);
    let Some(at) = last.iter().zip(next).position(|(a, b)| a != b) else { return };
    if let (Some(&low), Some(&high)) = (last.get(at), next.get(at))
        && low < 0xff
        && low + 1 < high
    {
        out.truncate(at);
        out.push(low + 1);
    }
}

/// A short key that is at least `last`.
fn successor(last: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(last);
    if let Some(at) = last.iter().position(|&byte| byte != 0xff) {
        out.truncate(at);
        out.push(last.get(at).map_or(0, |byte| byte.saturating_add(1)));
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
pub(crate) mod tests;
