//! One block of a table: sorted entries with shared prefixes, restart points, a checked trailer.
//!
//! ```text
//! entry    varint32 shared | varint32 unshared | varint32 value length | unshared key | value
//! body     entry*  |  u32 restart[n]  |  u32 n            n >= 1, restart[0] = 0
//! trailer  u8 type (0 raw, 1 snappy)  |  u32 masked crc32c(stored body, type)
//! handle   varint64 offset | varint64 size                size is without the trailer
//! ```
//!
//! An entry at a restart shares nothing with the entry before. All numbers are little-endian.

use std::borrow::Cow;

use crate::crc;
use crate::error::{DecodeError, Kind};
use crate::rows::{Column, grow, position};
use crate::snappy;
use crate::varint::{self, Cursor};

/// Bytes after the body of every block: its type and its checksum.
pub const TRAILER: usize = 5;

const RAW: u8 = 0;
const SNAPPY: u8 = 1;
const WORD: usize = 4;

/// The most that one compressed block may hold; writers cut blocks at 256 KiB or one large entry.
const MAX_DECOMPRESSED: u64 = 32 << 20;

/// Where a block is in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Where its body starts.
    pub offset: u64,
    /// The length of its stored body, without the trailer.
    pub size: u64,
}

impl Handle {
    /// Reads the two varints of a handle.
    ///
    /// # Errors
    /// When a varint is malformed.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self { offset: cursor.varint()?, size: cursor.varint()? })
    }

    /// Appends the two varints.
    pub fn encode(self, out: &mut Vec<u8>) {
        varint::put(out, self.offset);
        varint::put(out, self.size);
    }

    /// How many bytes [`Self::encode`] appends.
    #[must_use]
    pub const fn length(self) -> usize {
        varint::length(self.offset) + varint::length(self.size)
    }

    /// The bytes of body and trailer as a range below `end`; `None` when they pass it.
    #[must_use]
    pub fn range(self, end: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        let stop = start.checked_add(usize::try_from(self.size).ok()?)?.checked_add(TRAILER)?;
        (stop <= end).then_some(start..stop)
    }
}

/// An entry as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    /// Bytes of its key that are those of the key before.
    pub(crate) shared: usize,
    /// The other bytes of its key.
    pub(crate) suffix: &'a [u8],
    pub(crate) value: &'a [u8],
    /// The three lengths take no more bytes than they need.
    pub(crate) minimal: bool,
}

impl<'a> Stored<'a> {
    /// Reads one; `enter` sees where it starts and what it shares before anything is hopped over.
    pub(crate) fn read(
        cursor: &mut Cursor<'a>,
        enter: impl FnOnce(usize, usize) -> Result<(), DecodeError>,
    ) -> Result<Self, DecodeError> {
        let start = cursor.position();
        let (shared, unshared) = (cursor.varint32()?, cursor.varint32()?);
        let length = cursor.varint32()?;
        let least = [shared, unshared, length].map(|number| varint::length(number as u64));
        let minimal = cursor.position() - start == least.iter().sum();
        enter(start, shared)?;
        let suffix = cursor.take(unshared as u64, "key")?;
        let value = cursor.take(length as u64, "value")?;
        Ok(Self { shared, suffix, value, minimal })
    }
}

/// The body of a block, checked and decompressed.
#[derive(Debug)]
pub struct Body<'a> {
    bytes: Cow<'a, [u8]>,
    start: usize,
}

impl<'a> Body<'a> {
    /// Checks the trailer of the block in `stored` (body and trailer), then decompresses.
    ///
    /// `start` is the offset of the block in its table, for errors; `limit` caps the body.
    ///
    /// # Errors
    /// When the checksum differs, the type is unknown, or the compressed body is malformed.
    pub fn open(stored: &'a [u8], start: usize, limit: u64) -> Result<Self, DecodeError> {
        let Some((covered, checksum)) = stored.split_last_chunk::<WORD>() else {
            return Err(DecodeError::new(Kind::Truncated, start, "block has no trailer"));
        };
        let at = start.saturating_add(covered.len());
        check(covered, u32::from_le_bytes(*checksum), at)?;
        match covered.split_last() {
            Some((&RAW, body)) => Ok(Self { bytes: Cow::Borrowed(body), start }),
            Some((&SNAPPY, body)) => {
                let cap = limit.min(MAX_DECOMPRESSED);
                let bytes = snappy::decompress(body, cap).map_err(|e| e.shifted(start))?;
                Ok(Self { bytes: Cow::Owned(bytes), start })
            }
            Some((other, body)) => {
                let message = format!("block type {other} is neither 0 (raw) nor 1 (snappy)");
                Err(DecodeError::new(Kind::Unsupported, start.saturating_add(body.len()), message))
            }
            None => Err(DecodeError::new(Kind::Truncated, start, "block has no type")),
        }
    }

    /// The decompressed body.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of the decompressed body.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the decompressed body has no byte at all, which no valid block has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The error offset of a position in the body; a compressed body only knows its start.
    fn locate(&self, at: usize) -> usize {
        match self.bytes {
            Cow::Borrowed(_) => self.start.saturating_add(at),
            Cow::Owned(_) => self.start,
        }
    }

    fn error(&self, at: usize, kind: Kind, message: impl Into<String>) -> DecodeError {
        DecodeError::new(kind, self.locate(at), message)
    }

    /// An error at a position in the body as one in the table.
    fn placed(&self, error: DecodeError) -> DecodeError {
        DecodeError { offset: self.locate(error.offset), ..error }
    }

    /// Splits the body into its entries and its restart points.
    fn split(&self) -> Result<(&[u8], &[u8]), DecodeError> {
        let Some((rest, count)) = self.bytes.split_last_chunk::<WORD>() else {
            return Err(self.error(0, Kind::Truncated, "block body is shorter than 4 bytes"));
        };
        let count = u32::from_le_bytes(*count) as usize;
        let entries = rest.len() / WORD;
        if count == 0 || count > entries {
            let message = format!("block claims {count} restarts, between 1 and {entries} fit");
            return Err(self.error(rest.len(), Kind::Bounds, message));
        }
        rest.split_at_checked(rest.len() - count * WORD)
            .ok_or_else(|| self.error(0, Kind::Bounds, "block restarts pass the block"))
    }

    /// Appends every entry to `rows`, after checking all lengths, restarts and the key order.
    ///
    /// The first key must also be greater than the last key that `rows` has already.
    ///
    /// # Errors
    /// When the body is malformed, keys are not strictly increasing, or `rows` would pass `limit`.
    pub fn decode(&self, rows: &mut Entries, limit: u64) -> Result<usize, DecodeError> {
        let (entries, restarts) = self.split()?;
        let mut walk = Walk::new(restarts, entries.len());
        let before = rows.keys.ends.len();
        let mut cursor = Cursor::new(entries, 0);
        while !cursor.is_empty() {
            let at = cursor.position();
            Stored::read(&mut cursor, |at, shared| walk.enter(at, shared))
                .and_then(|entry| {
                    let Stored { shared, suffix, value, .. } = entry;
                    rows.append(shared, suffix, value, limit).map_err(|error| error.shifted(at))
                })
                .map_err(|error| self.placed(error))?;
        }
        walk.finish().map_err(|error| self.placed(error))?;
        Ok(rows.keys.ends.len() - before)
    }

    /// Where the first entry is of which a length takes more bytes than it needs, or one of the
    /// numbers that `value` looks for.
    ///
    /// # Errors
    /// When the lengths of an entry do not fit the body.
    pub(crate) fn long_number(
        &self,
        value: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<usize>, DecodeError> {
        let (entries, _) = self.split()?;
        let mut cursor = Cursor::new(entries, 0);
        while !cursor.is_empty() {
            let at = cursor.position();
            let entry = Stored::read(&mut cursor, |_, _| Ok(())).map_err(|e| self.placed(e))?;
            if !entry.minimal || value(entry.value) {
                return Ok(Some(self.locate(at)));
            }
        }
        Ok(None)
    }
}

fn check(covered: &[u8], stored: u32, at: usize) -> Result<(), DecodeError> {
    let (stored, computed) = (crc::unmask(stored), crc::crc32c(covered));
    if stored == computed {
        return Ok(());
    }
    let message = format!("block checksum mismatch: stored {stored:08x}, computed {computed:08x}");
    Err(DecodeError::new(Kind::Checksum, at, message))
}

/// The restart points of a body, consumed as the entries that they point to are reached.
///
/// Errors are at positions in the body.
struct Walk<'a> {
    restarts: &'a [u8],
    next: usize,
    end: usize,
}

impl<'a> Walk<'a> {
    const fn new(restarts: &'a [u8], end: usize) -> Self {
        Self { restarts, next: 0, end }
    }

    fn peek(&self) -> Option<usize> {
        let bytes = self.restarts.get(self.next * WORD..)?.first_chunk::<WORD>()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    }

    fn error(&self, kind: Kind, message: String) -> DecodeError {
        DecodeError::new(kind, self.end + self.next * WORD, message)
    }

    /// An entry starts at `at`: it may share a prefix only where no restart points to.
    fn enter(&mut self, at: usize, shared: usize) -> Result<(), DecodeError> {
        let next = self.next;
        match self.peek() {
            Some(restart) if restart == at => {
                if shared != 0 {
                    let message = format!("entry at restart {next} shares {shared} bytes");
                    return Err(DecodeError::new(Kind::Order, at, message));
                }
                self.next += 1;
                Ok(())
            }
            Some(restart) if restart < at || at == 0 => {
                let message = format!("restart {next} points to {restart}, where no entry starts");
                Err(self.error(Kind::Bounds, message))
            }
            _ => Ok(()),
        }
    }

    /// All entries were read: no restart may be left, but for the one of an empty body.
    fn finish(&mut self) -> Result<(), DecodeError> {
        if self.end == 0 && self.peek() == Some(0) {
            self.next += 1;
        }
        let (next, end) = (self.next, self.end);
        match self.peek() {
            None => Ok(()),
            Some(restart) if restart >= end => {
                let message = format!(
                    "restart {next} points to {restart} beyond the entries, which end at {end}"
                );
                Err(self.error(Kind::Bounds, message))
            }
            Some(restart) => {
                let message = format!("restart {next} points to {restart}, where no entry starts");
                Err(self.error(Kind::Bounds, message))
            }
        }
    }
}

/// Decoded entries: strictly increasing keys, and the value of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// The keys.
    pub keys: Column,
    /// The values.
    pub values: Column,
    last: usize,
    block: usize,
}

impl Entries {
    /// The key of the newest entry; `None` when there is none.
    #[must_use]
    pub fn last_key(&self) -> Option<&[u8]> {
        if self.keys.ends.is_empty() { None } else { self.keys.data.get(self.last..) }
    }

    /// Starts another block: its first entry shares nothing with the block before.
    pub fn start_block(&mut self) {
        self.block = self.keys.ends.len();
    }

    /// Appends one entry whose key shares `shared` bytes with the key before it in its block.
    ///
    /// Errors are at 0: the caller knows where the entry is.
    fn append(
        &mut self,
        shared: usize,
        suffix: &[u8],
        value: &[u8],
        limit: u64,
    ) -> Result<(), DecodeError> {
        let unplaced = |kind, message: String| DecodeError::new(kind, 0, message);
        let first = self.keys.ends.len() == self.block;
        let previous = self.keys.data.get(self.last..).unwrap_or_default();
        if shared > if first { 0 } else { previous.len() } {
            let length = if first { 0 } else { previous.len() };
            let message = format!("key shares {shared} bytes with a key of {length}");
            return Err(unplaced(Kind::Bounds, message));
        }
        let total = [self.values.data.len(), shared, suffix.len(), value.len()]
            .iter()
            .fold(self.keys.data.len() as u64, |sum, &part| sum.saturating_add(part as u64));
        if total > limit {
            let message = format!("keys and values hold {total} bytes, the limit is {limit}");
            return Err(unplaced(Kind::Limit, message));
        }
        let rest = previous.get(shared..).unwrap_or_default();
        if !self.keys.ends.is_empty() && rest >= suffix {
            return Err(unplaced(Kind::Order, "key is not greater than the key before".into()));
        }
        let start = self.keys.data.len();
        grow(&mut self.keys.data, shared.saturating_add(suffix.len()))
            .and_then(|()| grow(&mut self.values.data, value.len()))
            .map_err(|error| unplaced(Kind::Limit, error.to_string()))?;
        if let Some(end) = self.last.checked_add(shared).filter(|&end| end <= start) {
            self.keys.data.extend_from_within(self.last..end);
        }
        self.last = start;
        self.keys.push(suffix);
        self.values.push(value);
        Ok(())
    }
}

/// Builds the body of one block.
#[derive(Clone, Debug)]
pub struct Builder {
    body: Vec<u8>,
    restarts: Vec<u32>,
    interval: usize,
    counter: usize,
}

impl Builder {
    /// An empty block with a restart point every `interval` entries.
    #[must_use]
    pub fn new(interval: usize) -> Self {
        Self { body: Vec::new(), restarts: vec![0], interval, counter: 0 }
    }

    /// Whether no entry was added since the last [`finish`](Self::finish).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The length that the body would have if it was finished now.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len() + self.restarts.len() * WORD + WORD
    }

    /// Adds an entry; `previous` is the key added before, and is ignored at a restart.
    pub fn add(&mut self, previous: &[u8], key: &[u8], value: &[u8]) {
        let mut shared = 0;
        if self.counter == self.interval {
            self.restarts.push(word(self.body.len()));
            self.counter = 0;
        } else if !self.is_empty() {
            shared = previous.iter().zip(key).take_while(|(a, b)| a == b).count();
        }
        varint::put(&mut self.body, shared as u64);
        varint::put(&mut self.body, (key.len() - shared) as u64);
        varint::put(&mut self.body, value.len() as u64);
        self.body.extend_from_slice(key.get(shared..).unwrap_or_default());
        self.body.extend_from_slice(value);
        self.counter += 1;
    }

    /// Appends body and trailer to `out`, empties the builder and returns where the block is.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Handle {
        let start = out.len();
        out.append(&mut self.body);
        for restart in &self.restarts {
            out.extend_from_slice(&restart.to_le_bytes());
        }
        out.extend_from_slice(&word(self.restarts.len()).to_le_bytes());
        let size = out.len() - start;
        out.push(RAW);
        let checksum = crc::mask(crc::crc32c(out.get(start..).unwrap_or_default()));
        out.extend_from_slice(&checksum.to_le_bytes());
        self.restarts.truncate(1);
        self.counter = 0;
        Handle { offset: start as u64, size: size as u64 }
    }
}

/// An offset in a block as stored; the table checks beforehand that it fits.
fn word(value: usize) -> u32 {
    u32::try_from(position(value)).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
