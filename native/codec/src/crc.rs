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
//! xor cancel in the xor of two CRCs of equally long data. [`Crc::combine`], [`Crc::patch`] and
//! [`Crc::patch_runs`] follow from these two facts.

use crate::error::RangeError;

const MASK_DELTA: u32 = 0xa282_ead8;

/// Up to this many bytes a table is faster than two digests, whose setup costs more than the bytes.
const SHORT_RUN: usize = 12;

static CASTAGNOLI_STEPS: [u32; 256] = steps(Crc::Castagnoli.polynomial());
static CASTAGNOLI_UNSTEPS: [u8; 256] = unsteps(&steps(Crc::Castagnoli.polynomial()));
static ISO_HDLC_STEPS: [u32; 256] = steps(Crc::IsoHdlc.polynomial());
static CASTAGNOLI_POWERS: [u32; 64] = powers(Crc::Castagnoli.polynomial());
static ISO_HDLC_POWERS: [u32; 64] = powers(Crc::IsoHdlc.polynomial());

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

    const fn steps(self) -> &'static [u32; 256] {
        match self {
            Self::Castagnoli => &CASTAGNOLI_STEPS,
            Self::IsoHdlc => &ISO_HDLC_STEPS,
        }
    }

    const fn powers(self) -> &'static [u32; 64] {
        match self {
            Self::Castagnoli => &CASTAGNOLI_POWERS,
            Self::IsoHdlc => &ISO_HDLC_POWERS,
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
        let (mut result, mut rest) = (value, length);
        for power in self.powers() {
            if rest & 1 == 1 {
                result = multiply(result, *power, polynomial);
            }
            rest >>= 1;
            if rest == 0 {
                break;
            }
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
        equally_long(old, new)?;
        let change = self.extend(0, old) ^ self.extend(0, new);
        Ok(value ^ self.shift(change, tail))
    }

    /// The CRC of the whole after runs of `width` bytes each were replaced.
    ///
    /// `old` and `new` hold all runs, joined; `tails` says how many bytes of the whole come after
    /// each run. This is Horner's scheme in the order of the file: one product a run, by a power
    /// that is computed again only where the distance between two runs changes.
    ///
    /// # Errors
    /// When `old` and `new` differ in length or are not `tails.len()` runs of `width` bytes, when
    /// `width` is 0, or when a tail is negative or not at least `width` below the tail before it.
    pub fn patch_runs(
        self,
        value: u32,
        old: &[u8],
        new: &[u8],
        width: usize,
        tails: &[i64],
    ) -> Result<u32, RangeError> {
        equally_long(old, new)?;
        if width == 0 {
            return Err(RangeError::new("runs have a width of 0 bytes"));
        }
        if tails.len().checked_mul(width) != Some(old.len()) {
            let (length, count) = (old.len(), tails.len());
            let message = format!("old has {length} bytes, not {count} runs of {width} bytes");
            return Err(RangeError::new(message));
        }
        let runs = old.chunks_exact(width).zip(new.chunks_exact(width));
        let (mut change, mut before) = (0, None);
        let mut stride = Stride::new(self, 0);
        for (run, ((old, new), &tail)) in runs.zip(tails).enumerate() {
            let Ok(tail) = u64::try_from(tail) else {
                return Err(RangeError::new(format!("run {run} has a tail of {tail} bytes")));
            };
            if let Some(before) = before {
                let gap = fall(before, tail, width).ok_or_else(|| {
                    RangeError::new(format!(
                        "run {run} has a tail of {tail} bytes after one of {before}, \
                         which does not fall by {width}"
                    ))
                })?;
                if gap != stride.gap {
                    stride = Stride::new(self, gap);
                }
                change = stride.shift(change);
            }
            change ^= self.difference(old, new);
            before = Some(tail);
        }
        Ok(value ^ self.shift(change, before.unwrap_or(0)))
    }

    /// The xor of the CRCs of two runs of equal length.
    fn difference(self, old: &[u8], new: &[u8]) -> u32 {
        if old.len() > SHORT_RUN {
            return self.extend(0, old) ^ self.extend(0, new);
        }
        let steps = self.steps();
        old.iter().zip(new).fold(0, |register: u32, (old, new)| {
            register >> 8 ^ steps[usize::from(register.to_le_bytes()[0] ^ old ^ new)]
        })
    }
}

/// A shift by a distance that is used again: the products of its power with `x^0` to `x^31`.
///
/// A product is then the xor of the rows at the bits that are set, which depend on no other row.
struct Stride {
    /// How many zero bytes a register is shifted over.
    gap: u64,
    /// The row of each bit of a register, from the top bit, which is `x^0`.
    rows: [u32; 32],
}

impl Stride {
    fn new(crc: Crc, gap: u64) -> Self {
        let mut power = crc.shift(1 << 31, gap);
        let rows = std::array::from_fn(|_| {
            let row = power;
            power = times_x(power, crc.polynomial());
            row
        });
        Self { gap, rows }
    }

    /// The same as [`Crc::shift`] by the gap.
    fn shift(&self, value: u32) -> u32 {
        let mut bit: u32 = 1 << 31;
        self.rows.iter().fold(0, |product, row| {
            let taken = if value & bit == 0 { 0 } else { *row };
            bit >>= 1;
            product ^ taken
        })
    }
}

fn equally_long(old: &[u8], new: &[u8]) -> Result<(), RangeError> {
    if old.len() == new.len() {
        return Ok(());
    }
    let (old, new) = (old.len(), new.len());
    Err(RangeError::new(format!("old has {old} bytes, new has {new}")))
}

/// By how much a tail is below the one before it, if the run of `width` bytes fits between.
fn fall(before: u64, tail: u64, width: usize) -> Option<u64> {
    before.checked_sub(tail).filter(|&gap| gap >= width as u64)
}

/// The product of two registers modulo the generator polynomial.
const fn multiply(left: u32, right: u32, polynomial: u32) -> u32 {
    let (mut product, mut right, mut bit) = (0, right, 32);
    while bit > 0 {
        bit -= 1;
        if left >> bit & 1 == 1 {
            product ^= right;
        }
        right = times_x(right, polynomial);
    }
    product
}

/// `x^(8 * 2^i)` for each bit `i` of a length in bytes.
const fn powers(polynomial: u32) -> [u32; 64] {
    // Reflected order: the top bit is x^0, so that x^8, one byte, is bit 23.
    let mut powers = [1 << 23; 64];
    let mut bit = 1;
    while bit < 64 {
        powers[bit] = multiply(powers[bit - 1], powers[bit - 1], polynomial);
        bit += 1;
    }
    powers
}

/// The register one bit further.
const fn times_x(register: u32, polynomial: u32) -> u32 {
    register >> 1 ^ if register & 1 == 1 { polynomial } else { 0 }
}

/// The index of each step by its highest byte, which no two have in common.
#[allow(clippy::indexing_slicing)] // Evaluated by the compiler.
const fn unsteps(steps: &[u32; 256]) -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0u8;
    loop {
        table[(steps[index as usize] >> 24) as usize] = index;
        if index == u8::MAX {
            return table;
        }
        index += 1;
    }
}

/// The register after each byte, without init and final xor.
const fn steps(polynomial: u32) -> [u32; 256] {
    let mut steps = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let (mut register, mut bit) = (byte, 0);
        while bit < 8 {
            register = times_x(register, polynomial);
            bit += 1;
        }
        steps[byte as usize] = register;
        byte += 1;
    }
    steps
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

/// The register of a CRC-32C after one more byte; it is `!crc` of the bytes so far.
#[inline]
#[must_use]
pub fn forward(register: u32, byte: u8) -> u32 {
    (register >> 8) ^ step((register.to_le_bytes()[0]) ^ byte)
}

/// The register before a byte after which it is this one.
#[inline]
#[must_use]
pub fn backward(register: u32, byte: u8) -> u32 {
    let index = unstep(register);
    ((register ^ step(index)) << 8) | u32::from(index ^ byte)
}

/// The byte that takes one register to another, if one does.
#[inline]
#[must_use]
pub fn between(before: u32, after: u32) -> Option<u8> {
    let index = unstep(after);
    let byte = index ^ before.to_le_bytes()[0];
    (forward(before, byte) == after).then_some(byte)
}

fn step(index: u8) -> u32 {
    CASTAGNOLI_STEPS.get(usize::from(index)).copied().unwrap_or_default()
}

/// The index of the only step with the highest byte of a register.
fn unstep(register: u32) -> u8 {
    CASTAGNOLI_UNSTEPS.get(usize::from(register.to_le_bytes()[3])).copied().unwrap_or_default()
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
    use crate::rows::position;

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
    fn steps_continue_a_register() {
        for crc in BOTH {
            for byte in 0..=255 {
                let register = crc.extend(0, &[byte]) ^ crc.extend(0, &[0]);
                assert_eq!(crc.steps()[usize::from(byte)], register);
            }
        }
    }

    #[test]
    fn a_stride_shifts_as_far_as_its_gap() {
        for crc in BOTH {
            for gap in [0, 1, 4, 777, 1 << 40, u64::MAX] {
                let stride = Stride::new(crc, gap);
                for value in [0, 1, 1 << 31, 0x1234_5678, u32::MAX] {
                    assert_eq!(stride.shift(value), crc.shift(value, gap));
                }
            }
        }
    }

    /// Replaces the runs in front of the tails, and compares with the CRC of the new whole.
    fn assert_runs(width: usize, tails: &[i64]) {
        let whole = bytes(2000);
        let (mut after, mut old, mut new) = (whole.clone(), Vec::new(), Vec::new());
        for &tail in tails {
            let stop = whole.len() - usize::try_from(tail).unwrap();
            let run = stop - width..stop;
            after[run.clone()].iter_mut().for_each(|byte| *byte = !*byte ^ byte.rotate_left(3));
            old.extend(&whole[run.clone()]);
            new.extend(&after[run]);
        }
        for crc in BOTH {
            let patched = crc.patch_runs(crc.extend(0, &whole), &old, &new, width, tails);
            assert_eq!(patched.unwrap(), crc.extend(0, &after), "{width} {tails:?}");
        }
    }

    #[test]
    fn patch_of_runs_agrees_with_the_whole() {
        for width in [1, 2, 4, 8, SHORT_RUN, SHORT_RUN + 1, 64, 80] {
            assert_runs(width, &[]);
            assert_runs(width, &[0]);
            assert_runs(width, &[1900, 1300, 700, 100]);
            assert_runs(width, &[1700, 1600, 1400, 1300, 1100, 350, 0]);
            let touching: Vec<i64> = (0..12).rev().map(|run| position(run * width)).collect();
            assert_runs(width, &touching);
        }
    }

    #[test]
    fn patch_of_runs_far_apart_is_the_patch_of_each() {
        let tails = [i64::MAX, 1 << 50, 3, 0];
        let (old, new) = (b"abcd", b"wxyz");
        let mut value = 5;
        for (run, &tail) in tails.iter().enumerate() {
            let (old, new) = (&old[run..=run], &new[run..=run]);
            value = Crc::Castagnoli.patch(value, old, new, tail.unsigned_abs()).unwrap();
        }
        assert_eq!(Crc::Castagnoli.patch_runs(5, old, new, 1, &tails), Ok(value));
    }

    #[test]
    fn runs_are_checked() {
        let patch = |old: &[u8], width: usize, tails: &[i64]| {
            Crc::Castagnoli.patch_runs(0, old, b"abcd", width, tails)
        };
        assert!(patch(b"ABCD", 2, &[2, 0]).is_ok());
        assert!(patch(b"ABC", 2, &[2, 0]).is_err());
        assert!(patch(b"ABCD", 0, &[]).is_err());
        assert!(patch(b"ABCD", 2, &[]).is_err());
        assert!(patch(b"ABCD", 2, &[4, 2, 0]).is_err());
        assert!(patch(b"ABCD", usize::MAX, &[4, 2]).is_err());
        for tails in [[1, 0], [2, 2], [0, 2], [2, -1], [-1, -3], [i64::MAX, i64::MIN]] {
            assert!(patch(b"ABCD", 2, &tails).is_err(), "{tails:?}");
        }
    }

    #[test]
    fn segments_are_checked() {
        assert_eq!(segments(b"abc", &[0, 1, 3]).unwrap(), [0, crc32c(b"a"), crc32c(b"bc")]);
        assert!(segments(b"abc", &[2, 1]).is_err());
        assert!(segments(b"abc", &[4]).is_err());
        assert!(segments(b"abc", &[-1]).is_err());
    }
}
