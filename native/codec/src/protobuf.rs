//! Fields of a protobuf message: just the wire format, no schema.
//!
//! ```text
//! message  (tag value)*         tag = varint32 field number << 3 | wire type
//! wire     0 varint   1 eight bytes   2 varint length, bytes   5 four bytes
//! ```
//!
//! Groups (3 and 4) and the unassigned types 6 and 7 are refused. Unknown fields are the caller's
//! business: it sees where each field starts and ends, and can carry it verbatim.

use crate::error::{DecodeError, Kind};
use crate::varint::{self, Cursor};

const MAX_TAG_BYTES: usize = 5;

/// The value of a field, by wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64,
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field number.
    pub number: u32,
    /// Where its tag starts in the message.
    pub start: usize,
    /// Where its value ends in the message.
    pub end: usize,
    /// Its value.
    pub value: Value<'a>,
    base: usize,
}

impl<'a> Field<'a> {
    /// An error at the tag of this field.
    pub fn error(&self, kind: Kind, message: impl Into<String>) -> DecodeError {
        DecodeError::new(kind, self.base.saturating_add(self.start), message)
    }

    #[cold]
    fn wrong(&self, expected: &str) -> DecodeError {
        let found = match self.value {
            Value::Varint(_) => "a varint",
            Value::Fixed64 => "8 bytes",
            Value::Bytes(_) => "a length and bytes",
            Value::Fixed32(_) => "4 bytes",
        };
        let number = self.number;
        self.error(Kind::Wire, format!("field {number} holds {found} instead of {expected}"))
    }

    /// The value as an int64.
    ///
    /// # Errors
    /// When the wire type is another.
    #[inline]
    pub fn int64(&self) -> Result<i64, DecodeError> {
        match self.value {
            Value::Varint(value) => Ok(value.cast_signed()),
            _ => Err(self.wrong("a varint")),
        }
    }

    /// The value as an int32 or an enum.
    ///
    /// # Errors
    /// When the wire type is another or the value does not fit 32 bits.
    #[inline]
    pub fn int32(&self) -> Result<i32, DecodeError> {
        let value = self.int64()?;
        i32::try_from(value).map_err(|_| {
            let number = self.number;
            self.error(Kind::Value, format!("field {number} holds {value}, more than 32 bits"))
        })
    }

    /// The value as a fixed32.
    ///
    /// # Errors
    /// When the wire type is another.
    #[inline]
    pub fn fixed32(&self) -> Result<u32, DecodeError> {
        match self.value {
            Value::Fixed32(value) => Ok(value),
            _ => Err(self.wrong("4 bytes")),
        }
    }

    /// The value as bytes, with their offset for errors.
    ///
    /// # Errors
    /// When the wire type is another.
    #[inline]
    pub fn bytes(&self) -> Result<(&'a [u8], usize), DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok((bytes, self.base.saturating_add(self.end - bytes.len()))),
            _ => Err(self.wrong("a length and bytes")),
        }
    }

    /// The fields of the message that this field holds.
    ///
    /// # Errors
    /// When the wire type is another.
    #[inline]
    pub fn message(&self) -> Result<Fields<'a>, DecodeError> {
        self.bytes().map(|(bytes, base)| Fields::new(bytes, base))
    }
}

/// The fields of a message, in the order in which they are stored.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    cursor: Cursor<'a>,
    base: usize,
}

impl<'a> Fields<'a> {
    /// Starts at the first field; `base` is where the message starts, for errors.
    #[must_use]
    pub const fn new(message: &'a [u8], base: usize) -> Self {
        Self { cursor: Cursor::new(message, base), base }
    }

    /// The next field; `None` at the end of the message.
    ///
    /// # Errors
    /// When the field is malformed or has a wire type that is refused.
    #[inline(always)]
    #[allow(clippy::inline_always)] // A million records have ten million fields.
    pub fn read(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        if self.cursor.is_empty() {
            return Ok(None);
        }
        let before = self.cursor;
        let tag = self.cursor.varint()?;
        let start = before.position();
        let number = match u32::try_from(tag >> 3) {
            Ok(number) if number > 0 && self.cursor.position() - start <= MAX_TAG_BYTES => number,
            _ => return Err(refused(before, tag)),
        };
        let value = match tag & 7 {
            0 => Value::Varint(self.cursor.varint()?),
            1 => self.cursor.take(8, "field").map(|_| Value::Fixed64)?,
            2 => {
                let length = self.cursor.varint()?;
                Value::Bytes(self.cursor.take(length, "field")?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.cursor.array("field")?)),
            _ => return Err(refused(before, tag)),
        };
        let end = self.cursor.position();
        Ok(Some(Field { number, start, end, value, base: self.base }))
    }
}

#[cold]
fn refused(at: Cursor<'_>, tag: u64) -> DecodeError {
    let (number, wire) = (tag >> 3, tag & 7);
    at.error(Kind::Wire, format!("field number {number} with wire type {wire} is not allowed"))
}

/// Appends a varint field, also when it is 0.
pub fn put_varint(out: &mut Vec<u8>, number: u32, value: i64) {
    varint::put(out, u64::from(number) << 3);
    varint::put(out, value.cast_unsigned());
}

/// Appends a fixed32 field, also when it is 0.
pub fn put_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    varint::put(out, u64::from(number) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of bytes.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    varint::put(out, u64::from(number) << 3 | 2);
    varint::put(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, DecodeError> {
        let (mut fields, mut found) = (Fields::new(message, 100), Vec::new());
        while let Some(field) = fields.read()? {
            found.push((field.number, field.value));
        }
        Ok(found)
    }

    #[test]
    fn written_fields_are_read() {
        let mut out = Vec::new();
        put_varint(&mut out, 1, -1);
        put_bytes(&mut out, 2, b"hi");
        put_fixed32(&mut out, 16, 0xdead_beef);
        let expected = [
            (1, Value::Varint(u64::MAX)),
            (2, Value::Bytes(b"hi")),
            (16, Value::Fixed32(0xdead_beef)),
        ];
        assert_eq!(all(&out).unwrap(), expected);
    }

    #[test]
    fn malformed_fields_are_refused() {
        let fails = |message: &[u8]| all(message).map_err(|e| (e.kind, e.offset)).unwrap_err();
        assert_eq!(fails(&[0x0b]), (Kind::Wire, 100));
        assert_eq!(fails(&[0x0c]), (Kind::Wire, 100));
        assert_eq!(fails(&[0x0e]), (Kind::Wire, 100));
        assert_eq!(fails(&[0x00, 0x00]), (Kind::Wire, 100));
        assert_eq!(fails(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), (Kind::Wire, 100));
        assert_eq!(fails(&[0x08]), (Kind::Truncated, 101));
        assert_eq!(fails(&[0x09, 1, 2]), (Kind::Truncated, 101));
        assert_eq!(fails(&[0x12, 9, 1]), (Kind::Truncated, 102));
        assert_eq!(fails(&[0x0d, 1]), (Kind::Truncated, 101));
    }

    #[test]
    fn accessors_check_the_wire_type() {
        let field = Fields::new(&[0x08, 0x05], 0).read().unwrap().unwrap();
        assert_eq!(field.int32().unwrap(), 5);
        assert!(field.bytes().is_err() && field.fixed32().is_err());
        let wide = Fields::new(&[0x08, 0xff, 0xff, 0xff, 0xff, 0x0f], 0).read().unwrap().unwrap();
        assert_eq!(wide.int32().unwrap_err().kind, Kind::Value);
    }
}
