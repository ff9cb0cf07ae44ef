//! Repeated fields of a protobuf message: packed varints, and strings one by one.
//!
//! ```text
//! packed varints   varint64*
//! strings          (tag | varint64 length | bytes)*
//!
//! int     a varint is the two's complement of 64 bits, whatever the width
//! bool    any varint but 0 is true
//! ```
//!
//! Messages may be larger than memory, so every function takes a part of one, says how far it
//! came, and stops before a varint that the end of the part cuts.

use crate::error::{DecodeError, Error, Kind, RangeError};
use crate::rows::position;
use crate::varint::Cursor;

/// What a varint stands for, and what an element becomes: little-endian, of a width in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    low: i64,
    high: u64,
    truth: bool,
    width: usize,
}

impl Form {
    /// Checks that there are elements of this kind and width.
    ///
    /// # Errors
    /// When there are not.
    pub fn new(kind: &str, width: usize) -> Result<Self, RangeError> {
        if !matches!(width, 1 | 2 | 4 | 8) {
            return Err(RangeError::new(format!("width is {width}, expected 1, 2, 4 or 8")));
        }
        let unused = 64 - 8 * u32::try_from(width).unwrap_or(8);
        let (low, high) = match kind {
            "int" => (i64::MIN >> unused, (i64::MAX >> unused).cast_unsigned()),
            "uint" => (0, u64::MAX >> unused),
            "bool" if width == 1 => (i64::MIN, u64::MAX),
            _ => {
                return Err(RangeError::new(format!(
                    "elements are '{kind}' of {width} bytes, expected int, uint, or bool of 1"
                )));
            }
        };
        Ok(Self { low, high, truth: kind == "bool", width })
    }

    /// The element of a varint, or nothing where it is out of range.
    #[inline]
    fn element(self, value: u64) -> Option<u64> {
        if self.truth {
            return Some(u64::from(value != 0));
        }
        let negative = (self.low..0).contains(&value.cast_signed());
        (value <= self.high || negative).then_some(value)
    }
}

/// Skips up to `limit` varints.
///
/// Returns the bytes that they take, and how many they are.
///
/// # Errors
/// When one does not fit 64 bits.
pub fn skip(data: &[u8], limit: u64) -> Result<(usize, u64), DecodeError> {
    let mut cursor = Cursor::new(data, 0);
    let mut skipped = 0;
    while skipped < limit && !cursor.is_empty() {
        let before = cursor;
        match cursor.varint() {
            Ok(_) => skipped += 1,
            Err(error) if before.is_cut(&error) => return Ok((before.position(), skipped)),
            Err(error) => return Err(error),
        }
    }
    Ok((cursor.position(), skipped))
}

/// Decodes up to `limit` varints.
///
/// Returns the bytes that they take, and the elements.
///
/// # Errors
/// When one does not fit 64 bits, or is no such element.
pub fn decode(data: &[u8], limit: u64, form: Form) -> Result<(usize, Vec<u8>), DecodeError> {
    let mut cursor = Cursor::new(data, 0);
    // Every varint takes at least a byte.
    let most = usize::try_from(limit).unwrap_or(usize::MAX).min(data.len());
    let mut out = Vec::with_capacity(most.saturating_mul(form.width));
    for _ in 0..most {
        let before = cursor;
        if cursor.is_empty() {
            break;
        }
        let value = match cursor.varint() {
            Ok(value) => value,
            Err(error) if before.is_cut(&error) => return Ok((before.position(), out)),
            Err(error) => return Err(error),
        };
        let Some(element) = form.element(value) else {
            let message =
                format!("{} does not fit an element of {} bytes", value.cast_signed(), form.width);
            return Err(before.error(Kind::Value, message));
        };
        out.extend_from_slice(element.to_le_bytes().get(..form.width).unwrap_or_default());
    }
    Ok((cursor.position(), out))
}

/// Decodes up to `limit` varints, of a kind and a width that are named.
///
/// # Errors
/// As of [`decode`] and [`Form::new`].
pub fn decode_named(
    data: &[u8],
    limit: u64,
    kind: &str,
    width: usize,
) -> Result<(usize, Vec<u8>), Error> {
    let form = Form::new(kind, width).map_err(Error::Range)?;
    decode(data, limit, form).map_err(Error::Decode)
}

/// Finds up to `limit` strings that follow one another, each behind the same tag of one byte.
///
/// Returns where what follows them starts, which is behind the end of the part if that cuts the
/// last one, and for each its start and its length.
///
/// # Errors
/// When a length is malformed, or passes 2^63.
pub fn strings(data: &[u8], tag: u8, limit: u64) -> Result<(i64, Vec<i64>), DecodeError> {
    let mut found = Vec::new();
    let mut at = 0usize;
    let mut count = 0;
    while count < limit && data.get(at) == Some(&tag) {
        let rest = data.get(at + 1..).unwrap_or_default();
        let mut cursor = Cursor::new(rest, at + 1);
        let before = cursor;
        let length = match cursor.varint() {
            Ok(length) => length,
            Err(error) if before.is_cut(&error) => break,
            Err(error) => return Err(error),
        };
        let start = cursor.offset();
        let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
        let Some(end) = end.filter(|&end| i64::try_from(end).is_ok()) else {
            return Err(before.error(Kind::Value, format!("a string of {length} bytes")));
        };
        found.extend([position(start), position(end - start)]);
        at = end;
        count += 1;
    }
    Ok((position(at), found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::varint::put;

    fn packed(values: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        for value in values {
            put(&mut out, value.cast_unsigned());
        }
        out
    }

    fn form(kind: &str, width: usize) -> Form {
        Form::new(kind, width).unwrap()
    }

    #[test]
    fn elements_are_little_endian() {
        let data = packed(&[-2, 1, 300]);
        let (used, out) = decode(&data, 9, form("int", 2)).unwrap();
        assert_eq!((used, out), (data.len(), vec![0xfe, 0xff, 1, 0, 0x2c, 1]));
        let (used, out) = decode(&data, 1, form("int", 8)).unwrap();
        assert_eq!((used, out), (10, (-2i64).to_le_bytes().to_vec()));
    }

    #[test]
    fn ranges_are_those_of_the_width() {
        for (kind, width, low, high) in [
            ("int", 1, -128, 127),
            ("int", 2, -32_768, 32_767),
            ("int", 4, i64::from(i32::MIN), i64::from(i32::MAX)),
            ("uint", 1, 0, 255),
            ("uint", 2, 0, 65_535),
            ("uint", 4, 0, i64::from(u32::MAX)),
        ] {
            let form = form(kind, width);
            assert!(decode(&packed(&[low, high, 0]), 9, form).is_ok(), "{kind} {width}");
            for bad in [low - 1, high + 1, i64::MIN, i64::MAX] {
                let error = decode(&packed(&[0, bad]), 9, form).unwrap_err();
                assert_eq!((error.kind, error.offset), (Kind::Value, 1), "{kind} {width} {bad}");
            }
        }
        for (kind, width) in [("int", 8), ("uint", 8), ("bool", 1)] {
            assert!(decode(&packed(&[i64::MIN, i64::MAX, -1]), 9, form(kind, width)).is_ok());
        }
    }

    #[test]
    fn anything_but_zero_is_true() {
        let data = packed(&[0, 1, 2, -1]);
        assert_eq!(decode(&data, 9, form("bool", 1)).unwrap().1, [0, 1, 1, 1]);
    }

    #[test]
    fn no_other_elements() {
        for (kind, width) in [("int", 3), ("bool", 2), ("float", 4)] {
            assert!(Form::new(kind, width).is_err());
        }
    }

    #[test]
    fn a_part_stops_before_a_cut_varint() {
        let data = packed(&[1, 300, 1]);
        for end in 0..data.len() {
            let part = &data[..end];
            let whole = [0, 1, 1, 3][end];
            let (used, skipped) = skip(part, 9).unwrap();
            assert_eq!(used, whole);
            let (also, out) = decode(part, 9, form("uint", 2)).unwrap();
            assert_eq!((also, out.len() as u64), (used, 2 * skipped));
        }
        assert_eq!(skip(&data, 1).unwrap(), (1, 1));
        assert!(skip(&[0xff; 10], 9).is_err());
        assert!(decode(&[0xff; 10], 9, form("int", 8)).is_err());
    }

    #[test]
    fn strings_are_found_and_hopped_over() {
        let data = b"\x42\x02ab\x42\x00\x42\x80\x01long";
        assert_eq!(strings(data, 0x42, 9).unwrap(), (137, vec![2, 2, 6, 0, 9, 128]));
        assert_eq!(strings(data, 0x42, 2).unwrap(), (6, vec![2, 2, 6, 0]));
        assert_eq!(strings(data, 0x43, 9).unwrap(), (0, vec![]));
        assert_eq!(strings(&data[..8], 0x42, 9).unwrap(), (6, vec![2, 2, 6, 0]));
        let huge = [0x42, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(strings(&huge, 0x42, 9).unwrap_err().kind, Kind::Value);
    }
}
