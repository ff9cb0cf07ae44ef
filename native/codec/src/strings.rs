//! Payload of a `DT_STRING` tensor.
//!
//! ```text
//! varint64 length*  |  u32 masked crc of the lengths  |  all strings, joined
//!
//! crc of the lengths = crc32c over each length as u32, or as u64 where it needs more than 32 bits
//! crc of the tensor  = the crc of the lengths, continued over the 4 bytes and all strings
//! ```
//!
//! Neither checksum covers the varints as stored. Lengths are checksummed, and the 4 bytes stored,
//! in the byte order of the machine that wrote the checkpoint.

use crate::crc::{crc32c_extend, mask, unmask};
use crate::error::{DecodeError, Kind, RangeError};
use crate::varint::{self, Cursor};

const CHECKSUM: usize = 4;
const BLOCK: usize = 16_384;

/// The running checksum of lengths, fed in blocks.
struct LengthCrc {
    crc: u32,
    big_endian: bool,
    block: Vec<u8>,
}

impl LengthCrc {
    fn new(crc: u32, big_endian: bool) -> Self {
        Self { crc, big_endian, block: Vec::with_capacity(BLOCK + 8) }
    }

    fn push(&mut self, length: u64) {
        match (u32::try_from(length), self.big_endian) {
            (Ok(length), false) => self.block.extend_from_slice(&length.to_le_bytes()),
            (Ok(length), true) => self.block.extend_from_slice(&length.to_be_bytes()),
            (Err(_), false) => self.block.extend_from_slice(&length.to_le_bytes()),
            (Err(_), true) => self.block.extend_from_slice(&length.to_be_bytes()),
        }
        if self.block.len() >= BLOCK {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.crc = crc32c_extend(self.crc, &self.block);
        self.block.clear();
    }

    fn finish(mut self) -> u32 {
        self.flush();
        self.crc
    }

    /// The checksum as stored.
    fn stored(crc: u32, big_endian: bool) -> [u8; CHECKSUM] {
        if big_endian { mask(crc).to_be_bytes() } else { mask(crc).to_le_bytes() }
    }
}

/// What [`scan`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes of the buffer that are done with.
    pub consumed: usize,
    /// Lengths that they held.
    pub parsed: u64,
    /// The sum of those lengths.
    pub payload: i64,
    /// The checksum of all lengths so far.
    pub crc: u32,
}

/// Reads up to `remaining` lengths, continuing the checksum `crc` of the lengths before.
///
/// Stops before a varint that the end of the buffer cuts, which is not an error.
///
/// # Errors
/// When a varint is malformed or not minimal, or the sum passes 2^63.
pub fn scan(data: &[u8], remaining: u64, crc: u32, big_endian: bool) -> Result<Scan, DecodeError> {
    let mut cursor = Cursor::new(data, 0);
    let mut lengths = LengthCrc::new(crc, big_endian);
    let mut found = Scan::default();
    while found.parsed < remaining && !cursor.is_empty() {
        let before = cursor;
        let length = match cursor.minimal_varint() {
            Ok(length) => length,
            Err(error) if before.is_cut(&error) => break,
            Err(error) => return Err(error),
        };
        found.payload = i64::try_from(length)
            .ok()
            .and_then(|length| found.payload.checked_add(length))
            .ok_or_else(|| before.error(Kind::Value, "string lengths add up to 2^63 or more"))?;
        lengths.push(length);
        found.parsed += 1;
    }
    Ok(Scan { consumed: cursor.position(), crc: lengths.finish(), ..found })
}

/// The strings of a whole payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    /// Bytes before the first string.
    pub header: usize,
    /// Where each string ends, counted from the end of the header.
    pub ends: Vec<i64>,
    /// The checksum of the tensor, not masked.
    pub crc: u32,
}

/// Decodes a whole payload of `count` strings.
///
/// # Errors
/// When it is malformed, the lengths differ from their checksum, or bytes are missing or left.
pub fn decode(data: &[u8], count: u64, big_endian: bool) -> Result<Strings, DecodeError> {
    // Every string takes at least the byte of its length, so this bounds the allocation below.
    let most = data.len().saturating_sub(CHECKSUM);
    let Some(count) = usize::try_from(count).ok().filter(|&count| count <= most) else {
        let message = format!("{count} strings need more than the {} bytes there are", data.len());
        return Err(DecodeError::new(Kind::Truncated, 0, message));
    };
    let mut cursor = Cursor::new(data, 0);
    let mut lengths = LengthCrc::new(0, big_endian);
    let mut ends = Vec::with_capacity(count);
    let mut total = 0u64;
    for index in 0..count {
        let before = cursor;
        let length = cursor.minimal_varint()?;
        total = total.saturating_add(length);
        if total > cursor.remaining() as u64 {
            let left = cursor.remaining();
            let message = format!("strings up to {index} take {total} bytes, {left} are left");
            return Err(before.error(Kind::Bounds, message));
        }
        lengths.push(length);
        ends.push(total.cast_signed());
    }
    let crc = lengths.finish();
    let stored = checksum(&mut cursor, crc, big_endian)?;
    if total != cursor.remaining() as u64 {
        let left = cursor.remaining();
        let message = format!("strings take {total} bytes, {left} are left");
        return Err(cursor.error(Kind::Bounds, message));
    }
    let header = cursor.position();
    let text = data.get(header..).unwrap_or_default();
    Ok(Strings { header, ends, crc: crc32c_extend(crc32c_extend(crc, &stored), text) })
}

fn checksum(
    cursor: &mut Cursor<'_>,
    crc: u32,
    big_endian: bool,
) -> Result<[u8; CHECKSUM], DecodeError> {
    let before = *cursor;
    let found: [u8; CHECKSUM] = cursor.array("checksum of the lengths")?;
    if found == LengthCrc::stored(crc, big_endian) {
        return Ok(found);
    }
    let value = if big_endian { u32::from_be_bytes(found) } else { u32::from_le_bytes(found) };
    let message = format!(
        "string length checksum mismatch: stored {:08x}, computed {crc:08x}",
        unmask(value)
    );
    Err(before.error(Kind::Checksum, message))
}

/// The header for strings of these lengths, and the checksum after it, to be continued.
///
/// # Errors
/// When a length is negative or the sum passes 2^63.
pub fn encode(lengths: &[i64], big_endian: bool) -> Result<(Vec<u8>, u32), RangeError> {
    let mut header = Vec::with_capacity(lengths.len() + CHECKSUM);
    let mut crc = LengthCrc::new(0, big_endian);
    let mut total = 0i64;
    for (index, &length) in lengths.iter().enumerate() {
        let Ok(unsigned) = u64::try_from(length) else {
            return Err(RangeError::new(format!("string {index} has length {length}")));
        };
        let Some(sum) = total.checked_add(length) else {
            return Err(RangeError::new("string lengths add up to 2^63 or more"));
        };
        total = sum;
        varint::put(&mut header, unsigned);
        crc.push(unsigned);
    }
    let crc = crc.finish();
    let stored = LengthCrc::stored(crc, big_endian);
    header.extend_from_slice(&stored);
    Ok((header, crc32c_extend(crc, &stored)))
}

/// The lengths of consecutive strings from their ends.
#[must_use]
pub fn lengths(ends: &[i64]) -> Vec<i64> {
    let starts = std::iter::once(&0).chain(ends);
    ends.iter().zip(starts).map(|(end, start)| end.saturating_sub(*start)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc;
    use crate::rows::position;

    fn payload(strings: &[&[u8]], big_endian: bool) -> (Vec<u8>, u32) {
        let lengths: Vec<i64> = strings.iter().map(|text| position(text.len())).collect();
        let (mut data, crc) = encode(&lengths, big_endian).unwrap();
        let text = strings.concat();
        data.extend_from_slice(&text);
        (data, crc32c_extend(crc, &text))
    }

    #[test]
    fn golden_empty_tensor() {
        let (data, crc) = payload(&[], false);
        assert_eq!(data, [0xd8, 0xea, 0x82, 0xa2]);
        assert_eq!(mask(crc), 0x640c_c1f6);
    }

    #[test]
    fn round_trip_in_both_orders() {
        let long = [9; 300];
        for big_endian in [false, true] {
            let (data, crc) = payload(&[b"", b"ab", &long], big_endian);
            let found = decode(&data, 3, big_endian).unwrap();
            assert_eq!(found, Strings { header: 8, ends: vec![0, 2, 302], crc });
            assert_eq!(lengths(&found.ends), [0, 2, 300]);
            assert_eq!(decode(&data, 3, !big_endian).unwrap_err().kind, Kind::Checksum);
        }
    }

    #[test]
    fn scan_continues_over_any_cut() {
        let (data, _) = encode(&[0, 200, 70_000, 1], false).unwrap();
        let header = 1 + 2 + 3 + 1;
        let whole = scan(&data[..header], 4, 0, false).unwrap();
        assert_eq!((whole.consumed, whole.parsed, whole.payload), (header, 4, 70_201));
        for cut in 0..header {
            let first = scan(&data[..cut], 4, 0, false).unwrap();
            let rest = &data[first.consumed..header];
            let second = scan(rest, 4 - first.parsed, first.crc, false).unwrap();
            assert_eq!(first.consumed + second.consumed, header);
            assert_eq!(second.crc, whole.crc);
        }
        assert_eq!(scan(&data, 2, 0, false).unwrap().consumed, 3);
    }

    #[test]
    fn long_lengths_are_checksummed_as_eight_bytes() {
        let (header, crc) = encode(&[1, 1 << 32], false).unwrap();
        let lengths = [&1u32.to_le_bytes()[..], &(1u64 << 32).to_le_bytes()].concat();
        let expected = crc::crc32c(&lengths);
        assert_eq!(header[6..], mask(expected).to_le_bytes());
        assert_eq!(crc, crc32c_extend(expected, &header[6..]));
    }

    #[test]
    fn malformed_payloads_are_refused() {
        let kind = |data: &[u8], count| decode(data, count, false).unwrap_err().kind;
        let (data, _) = payload(&[b"ab", b"c"], false);
        assert_eq!(kind(&data, 1), Kind::Checksum);
        assert_eq!(kind(&data, u64::MAX), Kind::Truncated);
        assert_eq!(kind(&data[..data.len() - 1], 2), Kind::Bounds);
        assert_eq!(kind(&[data.as_slice(), b"x"].concat(), 2), Kind::Bounds);
        assert_eq!(kind(&[0x80, 0x00, 0, 0, 0, 0], 1), Kind::Varint);
        assert_eq!(kind(&[0xff; 20], 1), Kind::Varint);
        assert_eq!(kind(b"", 0), Kind::Truncated);
        let mut flipped = data.clone();
        flipped[3] ^= 1;
        assert_eq!(kind(&flipped, 2), Kind::Checksum);
        assert!(encode(&[-1], false).is_err());
        assert!(encode(&[i64::MAX, 1], false).is_err());
    }

    #[test]
    fn scan_refuses_malformed_varints() {
        assert_eq!(scan(&[0xff; 12], 1, 0, false).unwrap_err().kind, Kind::Varint);
        assert_eq!(scan(&[0x81, 0x00], 1, 0, false).unwrap_err().kind, Kind::Varint);
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1];
        assert_eq!(scan(&huge, 2, 0, false).unwrap_err().kind, Kind::Value);
    }
}
