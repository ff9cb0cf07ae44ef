//! Payload of a `DT_VARIANT` tensor: serialised messages, which this library never looks into.
//!
//! ```text
//! (varint64 length | message | u32 masked running crc)*
//!
//! running crc = crc32c over, per element: the length as u64, the message, the 4 stored bytes
//! crc of the tensor = the running crc after the last element
//! ```

use crate::crc::{crc32c_extend, mask, unmask};
use crate::error::{DecodeError, Kind};
use crate::rows::{Rows, position};
use crate::varint::{self, Cursor};

/// The least that an element takes: a length of 0 and its checksum.
const LEAST: usize = 5;

/// The messages of a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variants {
    /// Start and end of each message in the payload, in turn.
    pub ranges: Vec<i64>,
    /// The checksum of the tensor, not masked.
    pub crc: u32,
}

/// Decodes a whole payload of `count` messages.
///
/// # Errors
/// When it is malformed, a checksum differs, or bytes are missing or left.
pub fn decode(data: &[u8], count: u64) -> Result<Variants, DecodeError> {
    let most = data.len() / LEAST;
    let Some(count) = usize::try_from(count).ok().filter(|&count| count <= most) else {
        let message = format!("{count} variants need more than the {} bytes there are", data.len());
        return Err(DecodeError::new(Kind::Truncated, 0, message));
    };
    let mut cursor = Cursor::new(data, 0);
    let mut found = Variants { ranges: Vec::with_capacity(count * 2), crc: 0 };
    for index in 0..count {
        let length = cursor.minimal_varint()?;
        let start = cursor.position();
        let message = cursor.take(length, "variant")?;
        found.ranges.extend([position(start), position(cursor.position())]);
        let crc = crc32c_extend(crc32c_extend(found.crc, &length.to_le_bytes()), message);
        let before = cursor;
        let stored: [u8; 4] = cursor.array("variant checksum")?;
        let expected = unmask(u32::from_le_bytes(stored));
        if expected != crc {
            let message = format!(
                "checksum mismatch of variant {index}: stored {expected:08x}, computed {crc:08x}"
            );
            return Err(before.error(Kind::Checksum, message));
        }
        found.crc = crc32c_extend(crc, &stored);
    }
    if !cursor.is_empty() {
        let left = cursor.remaining();
        return Err(cursor.error(Kind::Bounds, format!("{left} bytes after the last variant")));
    }
    Ok(found)
}

/// The payload that holds these messages, and the checksum of the tensor, not masked.
#[must_use]
pub fn encode(messages: Rows<'_>) -> (Vec<u8>, u32) {
    let (mut out, mut crc) = (Vec::new(), 0);
    for message in messages.iter() {
        let length = message.len() as u64;
        varint::put(&mut out, length);
        out.extend_from_slice(message);
        crc = crc32c_extend(crc32c_extend(crc, &length.to_le_bytes()), message);
        let stored = mask(crc).to_le_bytes();
        out.extend_from_slice(&stored);
        crc = crc32c_extend(crc, &stored);
    }
    (out, crc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> (Vec<u8>, u32) {
        encode(Rows::new(b"abcde", &[2, 2, 5]).unwrap())
    }

    #[test]
    fn round_trip() {
        let (data, crc) = payload();
        let expected = Variants { ranges: vec![1, 3, 8, 8, 13, 16], crc };
        assert_eq!(decode(&data, 3).unwrap(), expected);
        assert_eq!(decode(b"", 0).unwrap(), Variants::default());
    }

    #[test]
    fn malformed_payloads_are_refused() {
        let (data, _) = payload();
        let kind = |data: &[u8], count| decode(data, count).unwrap_err().kind;
        assert_eq!(kind(&data, 2), Kind::Bounds);
        assert_eq!(kind(&data, u64::MAX), Kind::Truncated);
        assert_eq!(kind(&data[..data.len() - 1], 3), Kind::Truncated);
        for at in [1, 4, 8, 15] {
            let mut bad = data.clone();
            bad[at] ^= 1;
            assert_eq!(kind(&bad, 3), Kind::Checksum);
        }
        let long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0, 0];
        assert_eq!(kind(&long, 1), Kind::Truncated);
        assert_eq!(kind(&[0x80, 0, 0, 0, 0, 0], 1), Kind::Varint);
    }
}
