//! CRC-32C and CRC-32, and what their linearity allows.
//!
//! ```text
//!                 polynomial (reflected)   init, final xor   used by
//! CRC-32C         82f63b78                 ffffffff          table blocks, tensors
//! CRC-32          edb88320                 ffffffff          zip members
//!
//! masked(crc) = rotate_right(crc, 15) + a282ead8   (mod 2^32)
//! ```
//!
//! A CRC register is a polynomial over GF(2) modulo the generator. Appending `n` zero bytes
//! multiplies it by `x^(8n)`, which takes `O(log n)` products here ([`Crc::shift`]); init and final
//! xor cancel in the xor of two CRCs of equally long data. [`Crc::combine`] and [`Crc::patch`]
//! follow from these two facts.

use crate::error::RangeError;

const MASK_DELTA: u32 = 0xa282_ead8;

/// One of the two CRC-32 variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crc {
    /// CRC-32C (Castagnoli): check value `e3069283`.
    Castagnoli,
    /// CRC-32/ISO-HDLC, the CRC of zip and gzip: check value `cbf43926`.
    IsoHdlc,
}

impl Crc {
    const fn polynomial(self) -> u32 {
        match self {
            Self::Castagnoli => 0x82f6_3b78,
            Self::IsoHdlc => 0xedb8_8320,
        }
    }

    /// Continues `value`, the CRC of the bytes before, over `data`; 0 starts.
    #[must_use]
    pub fn extend(self, value: u32, data: &[u8]) -> u32 {
        let algorithm = match self {
            Self::Castagnoli => crc_fast::CrcAlgorithm::Crc32Iscsi,
            Self::IsoHdlc => crc_fast::CrcAlgorithm::Crc32IsoHdlc,
        };
        let mut digest = crc_fast::Digest::new_with_init_state(algorithm, u64::from(!value));
        digest.update(data);
        low32(digest.finalize())
    }

    /// The register `value` after `length` zero bytes, without init and final xor.
    #[must_use]
    pub fn shift(self, value: u32, length: u64) -> u32 {
        let polynomial = self.polynomial();
        // Reflected order: the top bit is x^0, so that x^8, one byte, is bit 23.
        let mut power = 1 << 23;
        let (mut result, mut rest) = (value, length);
        while rest != 0 {
            if rest & 1 == 1 {
                result = multiply(result, power, polynomial);
            }
            power = multiply(power, power, polynomial);
            rest >>= 1;
        }
        result
    }

    /// The CRC of two parts from the CRC of each and the length of the second.
    #[must_use]
    pub fn combine(self, first: u32, second: u32, second_length: u64) -> u32 {
        self.shift(first, second_length) ^ second
    }

    /// The CRC of the whole after `old` was replaced by `new`, with `tail` bytes after them.
    ///
    /// # Errors
    /// When `old` and `new` differ in length.
    pub fn patch(self, value: u32, old: &[u8], new: &[u8], tail: u64) -> Result<u32, RangeError> {
        if old.len() != new.len() {
            let (old, new) = (old.len(), new.len());
            return Err(RangeError::new(format!("old has {old} bytes, new has {new}")));
        }
        let change = self.extend(0, old) ^ self.extend(0, new);
        Ok(value ^ self.shift(change, tail))
    }
}

/// The product of two registers modulo the generator polynomial.
fn multiply(left: u32, right: u32, polynomial: u32) -> u32 {
    let (mut product, mut right) = (0, right);
    for bit in (0..32).rev() {
        if left >> bit & 1 == 1 {
            product ^= right;
        }
        right = right >> 1 ^ if right & 1 == 1 { polynomial } else { 0 };
    }
    product
}

#[allow(clippy::cast_possible_truncation)] // A 32-bit register that travels in 64 bits.
const fn low32(value: u64) -> u32 {
    value as u32
}

/// The CRC-32C of `data`.
#[must_use]
pub fn crc32c(data: &[u8]) -> u32 {
    Crc::Castagnoli.extend(0, data)
}

/// Continues the CRC-32C `value` over `data`.
#[must_use]
pub fn crc32c_extend(value: u32, data: &[u8]) -> u32 {
    Crc::Castagnoli.extend(value, data)
}

/// The form in which a CRC-32C is stored beside the bytes that it covers.
#[must_use]
pub const fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

/// The inverse of [`mask`].
#[must_use]
pub const fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(MASK_DELTA).rotate_left(15)
}

/// The CRC-32C of each consecutive segment: `data[..ends[0]]`, `data[ends[0]..ends[1]]`, ...
///
/// # Errors
/// When the ends decrease or pass the end of `data`.
pub fn segments(data: &[u8], ends: &[i64]) -> Result<Vec<u32>, RangeError> {
    crate::rows::Rows::new(data, ends)
        .map(|rows| (0..rows.len()).map(|row| crc32c(rows.get(row))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Crc; 2] = [Crc::Castagnoli, Crc::IsoHdlc];

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 % 251).to_le_bytes()[0]).collect()
    }

    #[test]
    fn check_values() {
        assert_eq!(Crc::Castagnoli.extend(0, b"123456789"), 0xe306_9283);
        assert_eq!(Crc::IsoHdlc.extend(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn mask_of_nothing_and_back() {
        assert_eq!(mask(0), 0xa282_ead8);
        for value in [0, 1, 0x8000_0000, 0xffff_ffff, 0x1234_5678] {
            assert_eq!(unmask(mask(value)), value);
        }
    }

    #[test]
    fn extend_and_combine_agree_with_the_whole() {
        let data = bytes(1000);
        for crc in BOTH {
            let whole = crc.extend(0, &data);
            for cut in [0, 1, 7, 64, 500, 999, 1000] {
                let (first, second) = data.split_at(cut);
                assert_eq!(crc.extend(crc.extend(0, first), second), whole);
                let parts = (crc.extend(0, first), crc.extend(0, second));
                assert_eq!(crc.combine(parts.0, parts.1, second.len() as u64), whole);
            }
        }
    }

    #[test]
    fn patch_agrees_with_the_whole() {
        let old = bytes(777);
        let mut new = old.clone();
        new[100..130].fill(0xee);
        for crc in BOTH {
            let patched = crc.patch(crc.extend(0, &old), &old[100..130], &new[100..130], 647);
            assert_eq!(patched.unwrap(), crc.extend(0, &new));
        }
    }

    #[test]
    fn patch_of_unequal_lengths_is_refused() {
        assert!(Crc::IsoHdlc.patch(0, b"ab", b"abc", 0).is_err());
    }

    #[test]
    fn segments_are_checked() {
        assert_eq!(segments(b"abc", &[0, 1, 3]).unwrap(), [0, crc32c(b"a"), crc32c(b"bc")]);
        assert!(segments(b"abc", &[2, 1]).is_err());
        assert!(segments(b"abc", &[4]).is_err());
        assert!(segments(b"abc", &[-1]).is_err());
    }
}
