//! Raw Snappy blocks (not the framed format): the compressed form of a table block.
//!
//! ```text
//! varint32 length of the decoded bytes, then elements:
//!   literal   1..5 tag bytes, then the bytes
//!   copy      2, 3 or 5 bytes, 1..64 bytes out
//! ```

use crate::error::{DecodeError, Kind};

/// More than any element can expand: a copy turns 3 bytes into 64.
const MAX_EXPANSION: usize = 22;

/// Decompresses `data`, refusing a claimed length above `limit` before anything is allocated.
///
/// # Errors
/// When the claimed length is above `limit` or what the input could produce, or the input is not
/// a Snappy block.
pub fn decompress(data: &[u8], limit: u64) -> Result<Vec<u8>, DecodeError> {
    let claimed = snap::raw::decompress_len(data)
        .map_err(|error| DecodeError::new(Kind::Snappy, 0, error.to_string()))?;
    let possible = data.len().saturating_mul(MAX_EXPANSION);
    if claimed > possible {
        let length = data.len();
        let message = format!("snappy block of {length} bytes claims to hold {claimed}");
        return Err(DecodeError::new(Kind::Snappy, 0, message));
    }
    if claimed as u64 > limit {
        let message = format!("snappy block holds {claimed} bytes, the limit is {limit}");
        return Err(DecodeError::new(Kind::Limit, 0, message));
    }
    snap::raw::Decoder::new()
        .decompress_vec(data)
        .map_err(|error| DecodeError::new(Kind::Snappy, 0, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_copies() {
        // 6 bytes: the literal "ab", then a copy of 4 bytes from 2 back.
        assert_eq!(decompress(b"\x06\x04ab\x01\x02", 100).unwrap(), b"ababab");
        assert_eq!(decompress(b"\x00", 0).unwrap(), b"");
    }

    #[test]
    fn best_case_expansion_is_allowed() {
        let compressed = snap::raw::Encoder::new().compress_vec(&vec![7; 1 << 20]).unwrap();
        assert_eq!(decompress(&compressed, 1 << 20).unwrap(), vec![7; 1 << 20]);
        assert_eq!(decompress(&compressed, (1 << 20) - 1).unwrap_err().kind, Kind::Limit);
    }

    #[test]
    fn claims_are_capped_before_allocating() {
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, b'a'];
        assert_eq!(decompress(&claim, u64::MAX).unwrap_err().kind, Kind::Snappy);
        assert_eq!(decompress(b"", 10).unwrap_err().kind, Kind::Snappy);
        assert_eq!(decompress(b"\x06\x04ab\x01\x09", 100).unwrap_err().kind, Kind::Snappy);
    }
}
