//! Headers of zip archives, as far as `.keras` files have them; all numbers are little-endian.
//!
//! ```text
//! local header      50 4b 03 04 | needed u16 | flags u16 | method u16 | time u16 | date u16
//!                   | crc32 u32 | compressed u32 | size u32 | name length u16 | extra length u16
//!                   | name | extra
//! descriptor        [50 4b 07 08] | crc32 u32 | compressed u32 or u64 | size u32 or u64
//! central record    50 4b 01 02 | made by u16 | needed u16 | flags u16 | method u16 | time u16
//!                   | date u16 | crc32 u32 | compressed u32 | size u32 | name length u16
//!                   | extra length u16 | comment length u16 | disk u16 | internal u16
//!                   | attributes u32 | header offset u32 | name | extra | comment
//! zip64 end record  50 4b 06 06 | 44 u64 | made by u16 | needed u16 | disk u32 | start disk u32
//!                   | records here u64 | records u64 | length u64 | offset u64
//! zip64 locator     50 4b 06 07 | disk u32 | offset of the zip64 end record u64 | disks u32
//! end record        50 4b 05 06 | disk u16 | start disk u16 | records here u16 | records u16
//!                   | length u32 | offset u32 | comment length u16 | comment
//!
//! extra             (id u16 | length u16 | content)*, and up to 3 bytes of padding
//! zip64 extra       id 1 | of size, compressed, header offset (u64 each), disk (u32): those whose
//!                   field in the header has all bits set
//! unicode path      id 0x7075 | version u8 | crc32 of the name u32 | another name
//! ```

use crate::error::{DecodeError, Error, Kind, RangeError};
use crate::varint::Cursor;

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";
const RECORD: [u8; 4] = *b"PK\x01\x02";
const WIDE_END: [u8; 4] = *b"PK\x06\x06";
const LOCATOR: [u8; 4] = *b"PK\x06\x07";
const END: [u8; 4] = *b"PK\x05\x06";

const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
const WIDE_END_BYTES: usize = 56;
const RECORD_BYTES: usize = 46;

const ZIP64: u16 = 1;
const UNICODE_PATH: u16 = 0x7075;

/// What the end of an archive says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End<'a> {
    /// How many records the directory has.
    pub count: u64,
    /// Where the directory starts in the file.
    pub offset: u64,
    /// Bytes of the directory; the end records come right after it.
    pub length: u64,
    /// Whether the archive is on one disk.
    pub whole: bool,
    /// The comment of the archive.
    pub comment: &'a [u8],
}

/// One record of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The name of the member.
    pub name: &'a [u8],
    /// The version, and the system in the high byte, of the writer.
    pub made: u16,
    /// The version needed to read it.
    pub needed: u16,
    /// Flags.
    pub flags: u16,
    /// 0 stored, 8 deflated.
    pub method: u16,
    /// The time in the low, the date in the high half, as DOS has them.
    pub time: u32,
    /// CRC-32 of the contents.
    pub crc: u32,
    /// Bytes of the member in the file.
    pub compressed: u64,
    /// Bytes of its contents.
    pub size: u64,
    /// Attributes; the high half is the mode that Unix knows.
    pub attributes: u32,
    /// Where its local header is in the file.
    pub header: u64,
    /// Bytes of this record.
    pub length: usize,
}

/// One local header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local<'a> {
    /// The name of the member.
    pub name: &'a [u8],
    /// The version needed to read it.
    pub needed: u16,
    /// Flags.
    pub flags: u16,
    /// 0 stored, 8 deflated.
    pub method: u16,
    /// The time in the low, the date in the high half, as DOS has them.
    pub time: u32,
    /// CRC-32 of the contents.
    pub crc: u32,
    /// Bytes of the member in the file.
    pub compressed: u64,
    /// Bytes of its contents.
    pub size: u64,
    /// Bytes of this header.
    pub length: usize,
    /// Whether it has a zip64 extra.
    pub wide: bool,
}

/// Decodes the end of an archive, and checks that its directory is where it says.
///
/// `tail` is the last bytes of the file, 65,633 of them if it has as many; `size` is its length.
///
/// # Errors
/// When there is no end record, or it contradicts itself or the file.
pub fn end(tail: &[u8], size: u64) -> Result<End<'_>, Error> {
    let Some(base) = size.checked_sub(tail.len() as u64) else {
        let message = format!("a tail of {} bytes of a file of {size}", tail.len());
        return Err(RangeError::new(message).into());
    };
    let at = find_end(tail)?;
    let mut cursor = after_mark(tail, at);
    let (disk, start_disk) = (u16(&mut cursor)?, u16(&mut cursor)?);
    let (here, count) = (u16(&mut cursor)?, u16(&mut cursor)?);
    let (length, offset) = (u32(&mut cursor)?, u32(&mut cursor)?);
    let before = cursor;
    let (claimed, left) = (usize::from(u16(&mut cursor)?), cursor.remaining());
    if claimed != left {
        let message =
            format!("the end record has a comment of {claimed} bytes, {left} bytes follow it");
        return Err(before.error(Kind::Bounds, message).into());
    }
    let comment = cursor.take(left as u64, "comment")?;
    let mut found = End {
        count: count.into(),
        offset: offset.into(),
        length: length.into(),
        whole: disk == 0 && start_disk == 0 && here == count,
        comment,
    };
    let mut start = at;
    if let Some(locator) = marked_before(tail, at, LOCATOR_BYTES, LOCATOR) {
        start = wide_end(tail, locator, base, &mut found)?;
    }
    let (start, place) = (base.saturating_add(start as u64), start);
    if found.offset.checked_add(found.length) != Some(start) {
        let message = format!(
            "the directory has {} bytes from {} on, and should end at {start}, where the end \
             records start",
            found.length, found.offset
        );
        return Err(DecodeError::new(Kind::Bounds, place, message).into());
    }
    fits(found.count, found.length, place)?;
    Ok(found)
}

/// Where the end record is: with no comment it ends the file, else the last mark counts.
fn find_end(tail: &[u8]) -> Result<usize, DecodeError> {
    let last = tail.len().checked_sub(END_BYTES);
    let found = last.and_then(|last| {
        let bare = marked(tail, last, END) && tail.ends_with(&[0, 0]);
        if bare { Some(last) } else { (0..=last).rev().find(|&at| marked(tail, at, END)) }
    });
    found.ok_or_else(|| {
        let message = "no end record: not a zip archive, or cut short";
        DecodeError::new(Kind::Truncated, 0, message)
    })
}

/// Takes over what the zip64 end record says, and returns where it is in the tail.
fn wide_end(
    tail: &[u8],
    locator: usize,
    base: u64,
    found: &mut End<'_>,
) -> Result<usize, DecodeError> {
    let mut cursor = after_mark(tail, locator);
    let (disk, offset, disks) = (u32(&mut cursor)?, u64(&mut cursor)?, u32(&mut cursor)?);
    found.whole &= disk == 0 && disks == 1;
    let record = marked_before(tail, locator, WIDE_END_BYTES, WIDE_END)
        .filter(|&at| base.checked_add(at as u64) == Some(offset));
    let Some(at) = record else {
        let message = format!("no zip64 end record at {offset}, right before its locator");
        return Err(DecodeError::new(Kind::Bounds, locator, message));
    };
    let mut cursor = after_mark(tail, at);
    let rest = u64(&mut cursor)?;
    if rest != 44 {
        let message = format!("the zip64 end record goes on for {rest} bytes instead of 44");
        return Err(DecodeError::new(Kind::Value, at, message));
    }
    let _versions = u32(&mut cursor)?;
    let (disk, start_disk) = (u32(&mut cursor)?, u32(&mut cursor)?);
    let (here, count) = (u64(&mut cursor)?, u64(&mut cursor)?);
    let (length, offset) = (u64(&mut cursor)?, u64(&mut cursor)?);
    found.whole &= disk == 0 && start_disk == 0 && here == count;
    // The narrow fields hold the same numbers, or are full.
    for (what, narrow, full, wide) in [
        ("records", found.count, u64::from(u16::MAX), count),
        ("bytes of the directory", found.length, u64::from(u32::MAX), length),
        ("as the offset of the directory", found.offset, u64::from(u32::MAX), offset),
    ] {
        if narrow != full && narrow != wide {
            let message =
                format!("the end record says {narrow} {what}, the zip64 end record {wide}");
            return Err(DecodeError::new(Kind::Value, at, message));
        }
    }
    (found.count, found.length, found.offset) = (count, length, offset);
    Ok(at)
}

/// Decodes a whole directory of `count` records.
///
/// # Errors
/// When a record is malformed, or bytes are missing or left.
pub fn directory(data: &[u8], count: u64) -> Result<Vec<Record<'_>>, DecodeError> {
    let mut records = Vec::with_capacity(fits(count, data.len() as u64, 0)?);
    let mut cursor = Cursor::new(data, 0);
    for _ in 0..count {
        records.push(record(&mut cursor)?);
    }
    if !cursor.is_empty() {
        let left = cursor.remaining();
        let message = format!("{left} bytes after the last of {count} records of the directory");
        return Err(cursor.error(Kind::Bounds, message));
    }
    Ok(records)
}

fn record<'a>(cursor: &mut Cursor<'a>) -> Result<Record<'a>, DecodeError> {
    let before = *cursor;
    mark(cursor, RECORD, "record of the directory")?;
    let made = u16(cursor)?;
    let fields = Fields::read(cursor)?;
    let (comment, disk) = (u16(cursor)?, u16(cursor)?);
    let _internal = u16(cursor)?;
    let (attributes, header) = (u32(cursor)?, u32(cursor)?);
    let (name, mut wide) = fields.name(cursor)?;
    let _comment = cursor.take(comment.into(), "comment")?;
    let (size, compressed) = fields.sizes(&before, &mut wide)?;
    let header = widened(header, &before, &mut wide, "header offset")?;
    let disk = match (disk, &mut wide) {
        (u16::MAX, Some(wide)) => u32(wide)?,
        _ => u32::from(disk),
    };
    if disk != 0 {
        return Err(before.error(Kind::Unsupported, format!("member on disk {disk}, not on 0")));
    }
    Ok(Record {
        name,
        made,
        needed: fields.needed,
        flags: fields.flags,
        method: fields.method,
        time: fields.time,
        crc: fields.crc,
        compressed,
        size,
        attributes,
        header,
        length: cursor.position() - before.position(),
    })
}

/// Decodes the local header that a buffer starts with.
///
/// # Errors
/// When it is malformed, or the buffer ends within it.
pub fn local(data: &[u8]) -> Result<Local<'_>, DecodeError> {
    let mut cursor = Cursor::new(data, 0);
    let before = cursor;
    mark(&mut cursor, LOCAL, "local header")?;
    let fields = Fields::read(&mut cursor)?;
    let (name, mut wide) = fields.name(&mut cursor)?;
    let is_wide = wide.is_some();
    let (size, compressed) = fields.sizes(&before, &mut wide)?;
    Ok(Local {
        name,
        needed: fields.needed,
        flags: fields.flags,
        method: fields.method,
        time: fields.time,
        crc: fields.crc,
        compressed,
        size,
        length: cursor.position(),
        wide: is_wide,
    })
}

/// Where the CRC-32 is in the descriptor that a buffer starts with, and the descriptor's length.
///
/// Nothing says which of its four forms a descriptor has, but that it repeats what is known.
///
/// # Errors
/// When the buffer starts with none of these numbers.
pub fn descriptor(
    data: &[u8],
    crc: u32,
    compressed: u64,
    size: u64,
) -> Result<(usize, usize), DecodeError> {
    for lead in [DESCRIPTOR.as_slice(), &[]] {
        for width in [8, 4] {
            let mut form = lead.to_vec();
            form.extend(crc.to_le_bytes());
            for number in [compressed, size] {
                form.extend(number.to_le_bytes().iter().take(width));
            }
            let fits = width == 8 || u32::try_from(compressed.max(size)).is_ok();
            if fits && data.starts_with(&form) {
                return Ok((lead.len(), form.len()));
            }
        }
    }
    let message = format!(
        "no descriptor after the data with CRC-32 {crc:08x}, {compressed} bytes and {size} bytes"
    );
    Err(DecodeError::new(Kind::Value, 0, message))
}

/// What local headers and records have in common: from the version needed to the lengths.
struct Fields {
    needed: u16,
    flags: u16,
    method: u16,
    time: u32,
    crc: u32,
    compressed: u32,
    size: u32,
    name: u16,
    extra: u16,
}

impl Fields {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            needed: u16(cursor)?,
            flags: u16(cursor)?,
            method: u16(cursor)?,
            time: u32(cursor)?,
            crc: u32(cursor)?,
            compressed: u32(cursor)?,
            size: u32(cursor)?,
            name: u16(cursor)?,
            extra: u16(cursor)?,
        })
    }

    /// The name, and what the zip64 extra holds, if there is one.
    fn name<'a>(
        &self,
        cursor: &mut Cursor<'a>,
    ) -> Result<(&'a [u8], Option<Cursor<'a>>), DecodeError> {
        let name = cursor.take(self.name.into(), "name")?;
        let base = cursor.offset();
        let extra = cursor.take(self.extra.into(), "extra")?;
        Ok((name, wide(extra, base, name)?))
    }

    fn sizes(
        &self,
        before: &Cursor<'_>,
        wide: &mut Option<Cursor<'_>>,
    ) -> Result<(u64, u64), DecodeError> {
        let size = widened(self.size, before, wide, "size")?;
        Ok((size, widened(self.compressed, before, wide, "compressed size")?))
    }
}

/// The content of the zip64 extra, after a walk over all extras.
fn wide<'a>(extra: &'a [u8], base: usize, name: &[u8]) -> Result<Option<Cursor<'a>>, DecodeError> {
    let mut cursor = Cursor::new(extra, base);
    let mut found = None;
    while cursor.remaining() >= 4 {
        let before = cursor;
        let (id, length) = (u16(&mut cursor)?, u16(&mut cursor)?);
        let start = cursor.offset();
        let content = cursor.take(length.into(), "extra field")?;
        if id == ZIP64 && found.replace(Cursor::new(content, start)).is_some() {
            return Err(before.error(Kind::Value, "a second zip64 extra"));
        }
        if id == UNICODE_PATH && content.get(5..) != Some(name) {
            return Err(before.error(Kind::Value, "an extra that gives the member another name"));
        }
    }
    Ok(found)
}

fn widened(
    narrow: u32,
    before: &Cursor<'_>,
    wide: &mut Option<Cursor<'_>>,
    what: &str,
) -> Result<u64, DecodeError> {
    if narrow != u32::MAX {
        return Ok(narrow.into());
    }
    match wide {
        Some(wide) => u64(wide),
        None => {
            Err(before.error(Kind::Value, format!("{what} is in a zip64 extra, there is none")))
        }
    }
}

/// The count, if this many bytes can hold that many records.
fn fits(count: u64, length: u64, place: usize) -> Result<usize, DecodeError> {
    let fitting = usize::try_from(count).ok().filter(|_| count <= length / RECORD_BYTES as u64);
    fitting.ok_or_else(|| {
        let message =
            format!("{count} members need more than the {length} bytes that the directory has");
        DecodeError::new(Kind::Bounds, place, message)
    })
}

fn marked(data: &[u8], at: usize, mark: [u8; 4]) -> bool {
    data.get(at..).is_some_and(|rest| rest.starts_with(&mark))
}

/// Where something of a size with a mark is that ends at `end`.
fn marked_before(data: &[u8], end: usize, size: usize, mark: [u8; 4]) -> Option<usize> {
    end.checked_sub(size).filter(|&at| marked(data, at, mark))
}

/// A cursor behind the mark that is there.
fn after_mark(data: &[u8], at: usize) -> Cursor<'_> {
    let at = at.saturating_add(4);
    Cursor::new(data.get(at..).unwrap_or_default(), at)
}

fn mark(cursor: &mut Cursor<'_>, mark: [u8; 4], what: &str) -> Result<(), DecodeError> {
    let before = *cursor;
    let found: [u8; 4] = cursor.array(what)?;
    if found == mark {
        return Ok(());
    }
    let (mark, found) = (u32::from_be_bytes(mark), u32::from_be_bytes(found));
    let message = format!("a {what} starts with {mark:08x}, found {found:08x}");
    Err(before.error(Kind::Unsupported, message))
}

fn u16(cursor: &mut Cursor<'_>) -> Result<u16, DecodeError> {
    Ok(u16::from_le_bytes(cursor.array("zip header")?))
}

fn u32(cursor: &mut Cursor<'_>) -> Result<u32, DecodeError> {
    Ok(u32::from_le_bytes(cursor.array("zip header")?))
}

fn u64(cursor: &mut Cursor<'_>) -> Result<u64, DecodeError> {
    Ok(u64::from_le_bytes(cursor.array("zip header")?))
}

#[cfg(test)]
#[path = "zip_tests.rs"]
mod tests;
