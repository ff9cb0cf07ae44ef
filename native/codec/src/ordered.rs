//! Keys of slice entries: an order-preserving code of a tensor name and a slice.
//!
//! ```text
//! key        number(0) | string(name) | number(rank) | (signed(start) signed(length))*
//! number     one byte: how many bytes follow; the value, big-endian, no leading zero
//! string     the bytes, with 00 -> 00 ff and ff -> ff 00; then 00 01
//! signed     L = 1..10 bytes, -2^(7L-1) <= n < 2^(7L-1), two's complement, big-endian,
//!            the leading bits xored with L ones and a zero (for n >= 0; inverted for n < 0)
//! ```
//!
//! A full extent is start 0, length -1. Decoding accepts only what encoding produces.

use crate::error::{DecodeError, Kind, RangeError};
use crate::record::{Extent, MAX_RANK, check_extent};
use crate::varint::Cursor;

const MAX_SIGNED: usize = 10;

/// The key of one slice of the tensor `name`.
///
/// # Errors
/// When an extent is impossible or there are too many.
pub fn encode(name: &[u8], slices: &[Extent]) -> Result<Vec<u8>, RangeError> {
    if slices.len() > MAX_RANK {
        return Err(RangeError::new(format!("slice has more than {MAX_RANK} dimensions")));
    }
    let mut out = Vec::with_capacity(name.len() + 4 + 4 * slices.len());
    put_number(&mut out, 0);
    put_string(&mut out, name);
    put_number(&mut out, slices.len() as u64);
    for &(start, length) in slices {
        check_extent(start, length)?;
        put_signed(&mut out, start);
        put_signed(&mut out, length);
    }
    Ok(out)
}

/// The tensor name and the slice of a key.
///
/// # Errors
/// When the key is not what [`encode`] produces for any name and slice.
pub fn decode(key: &[u8]) -> Result<(Vec<u8>, Vec<Extent>), DecodeError> {
    let mut cursor = Cursor::new(key, 0);
    if number(&mut cursor)? != 0 {
        return Err(DecodeError::new(Kind::Unsupported, 0, "key is not a slice key"));
    }
    let name = string(&mut cursor)?;
    let before = cursor;
    let rank = number(&mut cursor)?;
    if rank > MAX_RANK as u64 {
        return Err(before.error(Kind::Value, format!("slice has rank {rank}")));
    }
    let mut slices = Vec::new();
    for _ in 0..rank {
        let before = cursor;
        let (start, length) = (signed(&mut cursor)?, signed(&mut cursor)?);
        check_extent(start, length).map_err(|error| before.error(Kind::Value, error.0))?;
        slices.push((start, length));
    }
    if !cursor.is_empty() {
        let left = cursor.remaining();
        return Err(cursor.error(Kind::Bounds, format!("{left} bytes after the last extent")));
    }
    Ok((name, slices))
}

fn put_number(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    let skip = (value.leading_zeros() / 8) as usize;
    out.push((bytes.len() - skip).to_le_bytes()[0]);
    out.extend(bytes.iter().skip(skip));
}

fn number(cursor: &mut Cursor<'_>) -> Result<u64, DecodeError> {
    let before = *cursor;
    let [length] = cursor.array("number")?;
    let bytes = cursor.take(u64::from(length), "number")?;
    if bytes.first() == Some(&0) || bytes.len() > 8 {
        return Err(before.error(Kind::Value, "number has leading zeros or more than 8 bytes"));
    }
    Ok(bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            0x00 => out.extend_from_slice(&[0x00, 0xff]),
            0xff => out.extend_from_slice(&[0xff, 0x00]),
            _ => out.push(byte),
        }
    }
    out.extend_from_slice(&[0x00, 0x01]);
}

fn string(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, DecodeError> {
    let mut text = Vec::new();
    loop {
        let before = *cursor;
        let [byte] = cursor.array("name")?;
        if byte != 0x00 && byte != 0xff {
            text.push(byte);
            continue;
        }
        let [escape] = cursor.array("name")?;
        match (byte, escape) {
            (0x00, 0x01) => return Ok(text),
            (0x00, 0xff) => text.push(0x00),
            (0xff, 0x00) => text.push(0xff),
            _ => {
                let message = format!("name has the unknown escape {byte:02x} {escape:02x}");
                return Err(before.error(Kind::Unsupported, message));
            }
        }
    }
}

/// How many bytes `value` takes: its significant bits and a sign bit, 7 bits a byte.
fn signed_length(value: i64) -> usize {
    let magnitude = if value < 0 { !value } else { value };
    (64 - magnitude.leading_zeros() as usize) / 7 + 1
}

/// The bits that mark a length, at the top of the first two bytes.
fn signed_header(length: usize) -> u16 {
    !u16::MAX.checked_shr(u32::try_from(length).unwrap_or(16)).unwrap_or(0)
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    let length = signed_length(value);
    let mut bytes = i128::from(value).to_be_bytes();
    let skip = bytes.len() - length;
    let header = signed_header(length).to_be_bytes();
    for (byte, bits) in bytes.iter_mut().skip(skip).zip(header) {
        *byte ^= bits;
    }
    out.extend(bytes.iter().skip(skip));
}

fn signed(cursor: &mut Cursor<'_>) -> Result<i64, DecodeError> {
    let before = *cursor;
    let mut peek = *cursor;
    let [first] = peek.array("extent")?;
    let sign: u8 = if first & 0x80 == 0 { 0xff } else { 0 };
    let mut length = (first ^ sign).leading_ones() as usize;
    if length == 8 {
        let [second] = peek.array("extent")?;
        length += (second ^ sign).leading_ones() as usize;
    }
    if length > MAX_SIGNED {
        return Err(before.error(Kind::Value, "extent takes more than 10 bytes"));
    }
    let stored = cursor.take(length as u64, "extent")?;
    let mut bytes = [sign; 16];
    for (to, from) in bytes.iter_mut().skip(16 - length).zip(stored) {
        *to = *from;
    }
    let header = signed_header(length).to_be_bytes();
    for (byte, bits) in bytes.iter_mut().skip(16 - length).zip(header) {
        *byte ^= bits;
    }
    let value = i64::try_from(i128::from_be_bytes(bytes)).ok();
    value.filter(|&value| signed_length(value) == length).ok_or_else(|| {
        before.error(Kind::Value, format!("extent of {length} bytes is not minimal or too large"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_key() {
        let key = crate::table::tests::unhex("00666f6f00010102807f8189");
        assert_eq!(encode(b"foo", &[(0, -1), (1, 9)]).unwrap(), key);
        assert_eq!(decode(&key).unwrap(), (b"foo".to_vec(), vec![(0, -1), (1, 9)]));
    }

    #[test]
    fn golden_signed_numbers() {
        let code = |value| {
            let mut out = Vec::new();
            put_signed(&mut out, value);
            out
        };
        assert_eq!(code(0), [0x80]);
        assert_eq!(code(-1), [0x7f]);
        assert_eq!(code(9), [0x89]);
        assert_eq!(code(64), [0xc0, 0x40]);
        assert_eq!(code(4_999_999_997), [0xf9, 0x2a, 0x05, 0xf1, 0xfd]);
    }

    #[test]
    fn signed_numbers_round_trip_in_order() {
        let mut values: Vec<i64> = (0..63).flat_map(|s| [1 << s, (1 << s) - 1, -1 << s]).collect();
        values.extend([i64::MAX, i64::MIN, i64::MIN + 1]);
        values.sort_unstable();
        values.dedup();
        let mut previous = Vec::new();
        for value in values {
            let mut out = Vec::new();
            put_signed(&mut out, value);
            assert_eq!(signed(&mut Cursor::new(&out, 0)).unwrap(), value);
            assert!(previous < out, "{value}");
            previous = out;
        }
    }

    #[test]
    fn any_name_round_trips() {
        for name in [b"".as_slice(), b"\x00", b"\xff\xff\x00\x01", b"a\x00b\xffc"] {
            let key = encode(name, &[(5, 1 << 40)]).unwrap();
            assert_eq!(decode(&key).unwrap(), (name.to_vec(), vec![(5, 1 << 40)]));
        }
        assert!(encode(b"", &[(-1, 1)]).is_err());
        assert!(encode(b"", &[(0, 1); 255]).is_err());
    }

    #[test]
    fn malformed_keys_are_refused() {
        let kind = |key: &[u8]| decode(key).unwrap_err().kind;
        assert_eq!(kind(b""), Kind::Truncated);
        assert_eq!(kind(b"\x01\x05a\x00\x01\x00"), Kind::Unsupported);
        assert_eq!(kind(b"\x00a\x00\x02"), Kind::Unsupported);
        assert_eq!(kind(b"\x00a\xff\xff"), Kind::Unsupported);
        assert_eq!(kind(b"\x00a"), Kind::Truncated);
        assert_eq!(kind(b"\x00a\x00\x01\x01\x00"), Kind::Value);
        assert_eq!(kind(b"\x00a\x00\x01\x02\x01\x00"), Kind::Value);
        assert_eq!(kind(b"\x00a\x00\x01\x01\x01\x80"), Kind::Truncated);
        assert_eq!(kind(b"\x00a\x00\x01\x01\x01\xc0\x00\x81"), Kind::Value);
        assert_eq!(kind(b"\x00a\x00\x01\x01\x01\x80\x80"), Kind::Value);
        assert_eq!(kind(b"\x00a\x00\x01\x01\x01\xff\xff\xff"), Kind::Value);
        assert_eq!(kind(b"\x00a\x00\x01\x00\x00"), Kind::Bounds);
    }
}
