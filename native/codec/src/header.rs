//! `BundleHeaderProto`: the value of the empty key, first in every index.
//!
//! ```text
//! BundleHeaderProto  1 num_shards int32 | 2 endianness enum | 3 version VersionDef
//! VersionDef         1 producer int32 | 2 min_consumer int32 | 3 bad_consumers int32*
//! ```

use crate::error::{DecodeError, Kind};
use crate::protobuf::{self, Field, Fields, Value};
use crate::varint::Cursor;

/// The fields of a header; absent ones are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The number of data files.
    pub shards: i32,
    /// 0 little, 1 big; other numbers are passed through.
    pub endianness: i32,
    /// The format version of the writer.
    pub producer: i32,
    /// The least version that may read it.
    pub min_consumer: i32,
    /// Versions that must not read it.
    pub bad_consumers: Vec<i32>,
}

/// Decodes a header; unknown fields are skipped.
///
/// # Errors
/// When the message is malformed.
pub fn decode(value: &[u8]) -> Result<Header, DecodeError> {
    let mut header = Header::default();
    let mut fields = Fields::new(value, 0);
    while let Some(field) = fields.read()? {
        match field.number {
            1 => header.shards = field.int32()?,
            2 => header.endianness = field.int32()?,
            3 => version(field.message()?, &mut header)?,
            _ => {}
        }
    }
    Ok(header)
}

fn version(mut fields: Fields<'_>, header: &mut Header) -> Result<(), DecodeError> {
    while let Some(field) = fields.read()? {
        match field.number {
            1 => header.producer = field.int32()?,
            2 => header.min_consumer = field.int32()?,
            3 => bad_consumers(&field, &mut header.bad_consumers)?,
            _ => {}
        }
    }
    Ok(())
}

/// Repeated numbers may be packed into one field or stored as one field each.
fn bad_consumers(field: &Field<'_>, out: &mut Vec<i32>) -> Result<(), DecodeError> {
    if let Value::Varint(_) = field.value {
        out.push(field.int32()?);
        return Ok(());
    }
    let (bytes, base) = field.bytes()?;
    let mut cursor = Cursor::new(bytes, base);
    while !cursor.is_empty() {
        let before = cursor;
        let value = cursor.varint()?.cast_signed();
        let narrow = i32::try_from(value);
        out.push(narrow.map_err(|_| {
            before.error(Kind::Value, format!("bad consumer {value} takes more than 32 bits"))
        })?);
    }
    Ok(())
}

/// The header that TensorFlow writes for `shards` data files.
#[must_use]
pub fn encode(shards: i32) -> Vec<u8> {
    let mut out = Vec::new();
    put_shards(&mut out, shards);
    protobuf::put_bytes(&mut out, 3, &[0x08, 0x01]);
    out
}

/// The same header for another number of data files; every other byte is kept.
///
/// # Errors
/// When the message is malformed.
pub fn splice(value: &[u8], shards: i32) -> Result<Vec<u8>, DecodeError> {
    if decode(value)?.shards == shards {
        return Ok(value.to_vec());
    }
    let mut out = Vec::with_capacity(value.len() + 6);
    let mut fields = Fields::new(value, 0);
    let mut written = false;
    while let Some(field) = fields.read()? {
        if !written {
            put_shards(&mut out, shards);
            written = true;
        }
        if field.number != 1 {
            out.extend_from_slice(value.get(field.start..field.end).unwrap_or_default());
        }
    }
    if !written {
        put_shards(&mut out, shards);
    }
    Ok(out)
}

fn put_shards(out: &mut Vec<u8>, shards: i32) {
    if shards != 0 {
        protobuf::put_varint(out, 1, i64::from(shards));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_header_round_trips() {
        let value = encode(3);
        assert_eq!(value, [0x08, 3, 0x1a, 2, 0x08, 1]);
        let expected = Header { shards: 3, producer: 1, ..Header::default() };
        assert_eq!(decode(&value).unwrap(), expected);
        assert_eq!(decode(b"").unwrap(), Header::default());
    }

    #[test]
    fn splice_keeps_the_rest() {
        let value = [0x10, 1, 0x1a, 2, 0x08, 1, 0x7a, 1, 9];
        assert_eq!(splice(&value, 2).unwrap()[..2], [0x08, 2]);
        assert_eq!(splice(&value, 2).unwrap()[2..], value);
        assert_eq!(splice(&splice(&value, 2).unwrap(), 300).unwrap()[..3], [0x08, 0xac, 2]);
        assert_eq!(splice(&splice(&value, 2).unwrap(), 0).unwrap(), value);
        assert_eq!(splice(&[0x08, 0x82, 0], 2).unwrap(), [0x08, 0x82, 0]);
    }

    #[test]
    fn bad_consumers_packed_or_not() {
        let packed = [0x1a, 5, 0x1a, 3, 1, 2, 3];
        let single = [0x1a, 4, 0x18, 1, 0x18, 2];
        assert_eq!(decode(&packed).unwrap().bad_consumers, [1, 2, 3]);
        assert_eq!(decode(&single).unwrap().bad_consumers, [1, 2]);
        assert!(decode(&[0x1a, 3, 0x1a, 1, 0x80]).is_err());
    }

    #[test]
    fn malformed_headers_are_refused() {
        assert_eq!(decode(&[0x0a, 1, 1]).unwrap_err().kind, Kind::Wire);
        assert_eq!(decode(&[0x08]).unwrap_err().kind, Kind::Truncated);
        let wide = [0x08, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(decode(&wide).unwrap_err().kind, Kind::Value);
    }
}
