//! The bytes that are there, the bytes that are wanted, and who claims which.
//!
//! The walk sees a file through windows. A block that no window holds is written down as needed,
//! and the walk goes on elsewhere. Every block of metadata is claimed once: two that share a byte
//! are refused, so that work is never more than linear in the bytes of the file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::{DecodeError, Kind, RangeError};
use crate::varint::Cursor;

/// Why an object cannot be read.
#[derive(Debug)]
pub enum Stop {
    /// No window holds some of its bytes; which is written down.
    Missing,
    /// Its bytes are wrong, or what they ask for is not done.
    Bad(DecodeError),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::Bad(error)
    }
}

/// An error at a byte of the content.
pub fn bad(kind: Kind, offset: u64, message: impl Into<String>) -> DecodeError {
    DecodeError::new(kind, usize::try_from(offset).unwrap_or(usize::MAX), message)
}

/// Takes a result apart where the walk goes on without what is missing.
pub fn unless_missing<T>(result: Result<T, Stop>, missing: &mut bool) -> Result<Option<T>, Stop> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Missing) => {
            *missing = true;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// How a file writes addresses and lengths.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of an address.
    pub offsets: u8,
    /// Bytes of a length.
    pub lengths: u8,
    /// What is added to every address.
    pub base: u64,
}

#[derive(Clone, Copy)]
struct Span {
    offset: u64,
    length: u64,
    position: usize,
}

/// The content of a file, as far as it is there.
pub struct Space<'a> {
    /// How addresses and lengths are written.
    pub sizes: Sizes,
    /// Where the file ends, as the superblock has it.
    pub end: u64,
    /// Ranges that are needed, and in no window.
    pub needs: Vec<(u64, u64)>,
    content: &'a [u8],
    spans: Vec<Span>,
    claims: BTreeMap<u64, (u64, &'static str)>,
    left: u64,
}

impl<'a> Space<'a> {
    /// `windows` are offset and length of each part of `content`, in the order in which it has
    /// them; at most `cap` bytes of metadata are claimed.
    pub fn new(
        content: &'a [u8],
        windows: &[i64],
        size: u64,
        cap: u64,
    ) -> Result<Self, RangeError> {
        let mut spans = Vec::with_capacity(windows.len() / 2);
        let mut position = 0_usize;
        for pair in windows.chunks(2) {
            let &[offset, length] = pair else {
                return Err(RangeError::new("windows are no pairs of offset and length"));
            };
            let (Ok(offset), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
                return Err(RangeError::new("a window has a negative offset or length"));
            };
            let after = usize::try_from(length).ok().and_then(|count| position.checked_add(count));
            let Some(after) = after.filter(|&after| after <= content.len()) else {
                return Err(RangeError::new("windows are longer than the content"));
            };
            spans.push(Span { offset, length, position });
            position = after;
        }
        spans.sort_unstable_by_key(|span| span.offset);
        let apart = spans.windows(2).all(|two| two[0].offset + two[0].length <= two[1].offset);
        let inside = spans.last().is_none_or(|span| span.offset + span.length <= size);
        if position != content.len() || !apart || !inside {
            let message = "windows overlap, or are not as long as the content, or beyond its size";
            return Err(RangeError::new(message));
        }
        Ok(Self {
            sizes: Sizes { offsets: 8, lengths: 8, base: 0 },
            end: size,
            needs: Vec::new(),
            content,
            spans,
            claims: BTreeMap::new(),
            left: cap,
        })
    }

    /// The bytes of a range, which no one claims thereby.
    pub fn read(&mut self, offset: u64, length: u64, what: &str) -> Result<Cow<'a, [u8]>, Stop> {
        self.inside(offset, length, what)?;
        let first = self.spans.partition_point(|span| span.offset + span.length <= offset);
        let covered = self.spans.get(first..).unwrap_or_default();
        if let Some(span) = covered.first()
            && span.offset <= offset
            && offset + length <= span.offset + span.length
        {
            return Ok(Cow::Borrowed(self.part(span, offset, length)));
        }
        let mut found = Vec::new();
        let mut at = offset;
        for span in covered {
            if span.offset > at || at == offset + length {
                break;
            }
            let count = (span.offset + span.length).min(offset + length) - at;
            found.extend_from_slice(self.part(span, at, count));
            at += count;
        }
        if at == offset + length {
            return Ok(Cow::Owned(found));
        }
        self.needs.push((offset, length));
        Err(Stop::Missing)
    }

    /// Claims a block of metadata, and returns its bytes.
    pub fn block(
        &mut self,
        offset: u64,
        length: u64,
        what: &'static str,
    ) -> Result<Cow<'a, [u8]>, Stop> {
        self.claim(offset, length, what)?;
        let left = self.left.checked_sub(length);
        let message = "the metadata takes more memory than is allowed";
        self.left = left.ok_or_else(|| bad(Kind::Limit, offset, message))?;
        self.read(offset, length, what)
    }

    /// Claims a range for one owner.
    pub fn claim(
        &mut self,
        offset: u64,
        length: u64,
        what: &'static str,
    ) -> Result<(), DecodeError> {
        self.inside(offset, length, what)?;
        let end = offset + length;
        let before = self.claims.range(..end).next_back();
        if let Some((&start, &(stop, other))) = before
            && stop > offset
            && length > 0
        {
            let message =
                format!("{what} (bytes {offset} to {end}) overlaps {other} ({start} to {stop})");
            return Err(bad(Kind::Bounds, offset, message));
        }
        if length > 0 {
            self.claims.insert(offset, (end, what));
        }
        Ok(())
    }

    /// What is claimed, merged.
    pub fn claimed(&self) -> Vec<(u64, u64)> {
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (&start, &(end, _)) in &self.claims {
            match merged.last_mut() {
                Some(last) if last.0 + last.1 == start => last.1 = end - last.0,
                _ => merged.push((start, end - start)),
            }
        }
        merged
    }

    fn inside(&self, offset: u64, length: u64, what: &str) -> Result<(), DecodeError> {
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.end) {
            let message = format!(
                "{what} of {length} bytes at {offset} is beyond the end of the file, which is at {}",
                self.end
            );
            return Err(bad(Kind::Bounds, offset.min(self.end), message));
        }
        Ok(())
    }

    fn part(&self, span: &Span, offset: u64, length: u64) -> &'a [u8] {
        let start = usize::try_from(offset - span.offset).ok().map(|at| at + span.position);
        let count = usize::try_from(length).ok();
        let range = start.zip(count).map(|(start, count)| start..start + count);
        range.and_then(|range| self.content.get(range)).unwrap_or_default()
    }
}

/// The fields of a block, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'b> {
    cursor: Cursor<'b>,
    sizes: Sizes,
}

impl<'b> Fields<'b> {
    /// The fields of `data`, which starts at `offset` of the content.
    pub fn new(data: &'b [u8], offset: u64, sizes: Sizes) -> Self {
        let base = usize::try_from(offset).unwrap_or(usize::MAX);
        Self { cursor: Cursor::new(data, base), sizes }
    }

    /// Where the next field is, in the content.
    pub fn offset(&self) -> u64 {
        self.cursor.offset() as u64
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.cursor.remaining()
    }

    /// Bytes that were read.
    pub fn done(&self) -> usize {
        self.cursor.position()
    }

    /// An error at the next field.
    pub fn bad(&self, kind: Kind, message: impl Into<String>) -> DecodeError {
        self.cursor.error(kind, message)
    }

    /// The next bytes.
    pub fn take(&mut self, length: u64, what: &str) -> Result<&'b [u8], DecodeError> {
        self.cursor.take(length, what)
    }

    /// The next bytes, as fields.
    pub fn part(&mut self, length: u64, what: &str) -> Result<Self, DecodeError> {
        let offset = self.offset();
        Ok(Self::new(self.take(length, what)?, offset, self.sizes))
    }

    /// Skips to a multiple of 8 bytes from the start.
    pub fn align(&mut self, what: &str) -> Result<(), DecodeError> {
        let over = self.done() % 8;
        if over > 0 {
            self.take(8 - over as u64, what)?;
        }
        Ok(())
    }

    /// A little-endian number of up to 8 bytes.
    pub fn number(&mut self, width: u8, what: &str) -> Result<u64, DecodeError> {
        let bytes = self.take(width.into(), what)?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// The next byte.
    pub fn byte(&mut self, what: &str) -> Result<u8, DecodeError> {
        Ok(self.take(1, what)?.first().copied().unwrap_or_default())
    }

    /// The next 2 bytes.
    pub fn short(&mut self, what: &str) -> Result<u16, DecodeError> {
        Ok(self.take(2, what)?.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes)))
    }

    /// The next 4 bytes.
    pub fn word(&mut self, what: &str) -> Result<u32, DecodeError> {
        Ok(self.take(4, what)?.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)))
    }

    /// A length, as wide as the file has them.
    pub fn length(&mut self, what: &str) -> Result<u64, DecodeError> {
        self.number(self.sizes.lengths, what)
    }

    /// An address as an offset in the content, unless it is undefined.
    pub fn address(&mut self, what: &str) -> Result<Option<u64>, DecodeError> {
        let before = *self;
        let address = self.number(self.sizes.offsets, what)?;
        if address == u64::MAX >> (64 - 8 * u32::from(self.sizes.offsets)) {
            return Ok(None);
        }
        let moved = address.checked_add(self.sizes.base);
        moved.map(Some).ok_or_else(|| before.bad(Kind::Bounds, format!("{what} is beyond 2^64")))
    }

    /// An address that must be there.
    pub fn place(&mut self, what: &str) -> Result<u64, DecodeError> {
        let before = *self;
        self.address(what)?.ok_or_else(|| before.bad(Kind::Value, format!("{what} has no address")))
    }

    /// A version that must be among those that are known.
    pub fn version(&mut self, known: &[u8], what: &str) -> Result<u8, DecodeError> {
        let before = *self;
        let version = self.byte(what)?;
        if !known.contains(&version) {
            let message = format!("{what} has version {version}, known are {known:?}");
            return Err(before.bad(Kind::Unsupported, message));
        }
        Ok(version)
    }

    /// A signature.
    pub fn signature(&mut self, expected: &[u8], what: &str) -> Result<(), DecodeError> {
        let before = *self;
        let found = self.take(expected.len() as u64, what)?;
        if found != expected {
            let (expected, found) = (expected.escape_ascii(), found.escape_ascii());
            let message = format!("{what} starts with \"{expected}\", here is \"{found}\"");
            return Err(before.bad(Kind::Value, message));
        }
        Ok(())
    }
}
