//! Random values by element index.
//!
//! Philox4x32-10 of J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel Random Numbers:
//! As Easy as 1, 2, 3" (2011). A value depends on the key, the stream and the index of its element,
//! so that any part of a tensor can be drawn, in any order.
//!
//! ```text
//! key      = 64 bits, as two words, the low one first
//! counter  = index / 2 (64 bits), stream (64 bits), as four words, the low one first
//! word i   = output words 0 and 1 (even index) or 2 and 3 (odd index), the low one first
//!
//! bits     uint32: the high 32 bits of the word
//! uniform  float32: the high 24 bits / 2^24;  float64: the high 53 bits / 2^53
//! normal   the inverse of the normal distribution at (the high 53 bits + 1/2) / 2^53, in float64;
//!          rounded once for float32
//! ```

use crate::error::RangeError;
use crate::normal;

const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
const INCREMENTS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: usize = 10;

/// How many blocks are computed side by side: as many as two lanes of 64 bits and registers hold.
const SIDE: usize = 2;

/// How many words are drawn at a time.
const BATCH: usize = normal::BATCH;

/// What is drawn, and how it is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// 32 random bits.
    Bits,
    /// Uniform in [0, 1), as float32.
    Uniform32,
    /// Uniform in [0, 1), as float64.
    Uniform64,
    /// Standard normal, as float32.
    Normal32,
    /// Standard normal, as float64.
    Normal64,
}

impl Draw {
    /// The draw of this kind and dtype.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(kind: &str, dtype: &str) -> Result<Self, RangeError> {
        match (kind, dtype) {
            ("bits", "uint32") => Ok(Self::Bits),
            ("uniform", "float32") => Ok(Self::Uniform32),
            ("uniform", "float64") => Ok(Self::Uniform64),
            ("normal", "float32") => Ok(Self::Normal32),
            ("normal", "float64") => Ok(Self::Normal64),
            ("bits", _) => Err(RangeError::new(format!("dtype is '{dtype}', expected uint32"))),
            ("uniform" | "normal", _) => {
                Err(RangeError::new(format!("dtype is '{dtype}', expected float32 or float64")))
            }
            _ => {
                Err(RangeError::new(format!("kind is '{kind}', expected bits, uniform or normal")))
            }
        }
    }

    const fn size(self) -> usize {
        match self {
            Self::Bits | Self::Uniform32 | Self::Normal32 => 4,
            Self::Uniform64 | Self::Normal64 => 8,
        }
    }

    /// Stores the values of a batch of words, of which the last are not there if `out` is short.
    #[allow(clippy::cast_possible_truncation)] // One rounding to float32 is meant.
    fn store(self, words: &[u64; BATCH], out: &mut [u8]) {
        match self {
            Self::Bits => store(out, words.map(|word| high(word, 32).to_le_bytes())),
            Self::Uniform32 => store(out, words.map(|word| uniform32(word).to_le_bytes())),
            Self::Uniform64 => store(out, words.map(|word| uniform64(word).to_le_bytes())),
            Self::Normal32 => {
                let values = normal::inverse(&words.map(|word| word >> 11));
                store(out, values.map(|value| (value as f32).to_le_bytes()));
            }
            Self::Normal64 => {
                let values = normal::inverse(&words.map(|word| word >> 11));
                store(out, values.map(f64::to_le_bytes));
            }
        }
    }
}

/// The high bits of a word, at most 32 of them.
#[allow(clippy::cast_possible_truncation)] // No more than 32 bits are left.
fn high(word: u64, bits: u32) -> u32 {
    (word >> 32) as u32 >> (32 - bits)
}

#[allow(clippy::cast_precision_loss)] // 24 bits are exact.
fn uniform32(word: u64) -> f32 {
    high(word, 24).cast_signed() as f32 * (1.0 / 16_777_216.0)
}

#[allow(clippy::cast_precision_loss)] // 53 bits are exact.
fn uniform64(word: u64) -> f64 {
    (word >> 11).cast_signed() as f64 * (1.0 / 9_007_199_254_740_992.0)
}

fn store<const SIZE: usize>(out: &mut [u8], values: [[u8; SIZE]; BATCH]) {
    let (places, _) = out.as_chunks_mut::<SIZE>();
    for (place, value) in places.iter_mut().zip(values) {
        *place = value;
    }
}

/// The elements whose values are drawn: runs of `width` elements, `step` apart.
#[derive(Clone, Copy, Debug)]
pub struct Runs<'a> {
    starts: &'a [i64],
    width: usize,
    step: i64,
}

impl<'a> Runs<'a> {
    /// Checks that every index is from 0 to 2^63 - 1.
    ///
    /// # Errors
    /// When one is not.
    pub fn new(starts: &'a [i64], width: usize, step: i64) -> Result<Self, RangeError> {
        let last = i64::try_from(width.saturating_sub(1)).ok();
        let reach = last.and_then(|last| last.checked_mul(step));
        for (run, &start) in starts.iter().enumerate() {
            let end = reach.and_then(|reach| start.checked_add(reach));
            if start < 0 || end.is_none_or(|end| end < 0) {
                return Err(RangeError::new(format!(
                    "run {run} has an index that is not from 0 to 2^63 - 1: \
                     {width} elements from {start}, {step} apart"
                )));
            }
        }
        Ok(Self { starts, width, step })
    }
}

/// A generator of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: u64,
    stream: u64,
}

impl Philox {
    /// The generator of this key and stream.
    #[must_use]
    pub const fn new(key: u64, stream: u64) -> Self {
        Self { key, stream }
    }

    /// How many bytes the values of the runs take.
    ///
    /// # Errors
    /// When they are more than memory can hold.
    pub fn length(draw: Draw, runs: Runs<'_>) -> Result<usize, RangeError> {
        let count = runs.starts.len().checked_mul(runs.width);
        let length = count.and_then(|count| count.checked_mul(draw.size()));
        length.filter(|&length| isize::try_from(length).is_ok()).ok_or_else(|| {
            let (count, width) = (runs.starts.len(), runs.width);
            RangeError::new(format!("{count} runs of {width} elements are too many"))
        })
    }

    /// Fills `out` with the values of the runs, joined.
    ///
    /// # Errors
    /// When `out` does not have the [`Philox::length`] of the runs.
    pub fn fill(self, draw: Draw, runs: Runs<'_>, out: &mut [u8]) -> Result<(), RangeError> {
        let (length, there) = (Self::length(draw, runs)?, out.len());
        if length != there {
            let message = format!("values take {length} bytes, there are {there}");
            return Err(RangeError::new(message));
        }
        let (mut starts, mut rest) = (runs.starts.iter(), 0);
        let (mut index, step) = (0, runs.step.cast_unsigned());
        for part in out.chunks_mut(BATCH * draw.size()) {
            let mut batch = [0; BATCH];
            let mut words = &mut batch[..part.len() / draw.size()];
            while !words.is_empty() {
                if rest == 0 {
                    let Some(start) = starts.next() else { break };
                    (index, rest) = (start.cast_unsigned(), runs.width);
                }
                let (now, later) = words.split_at_mut(rest.min(words.len()));
                rest -= now.len();
                index = self.words(index, step, now);
                words = later;
            }
            draw.store(&batch, part);
        }
        Ok(())
    }

    /// Fills `words` with those of the indices from `first` on; returns the index after them.
    fn words(self, first: u64, step: u64, words: &mut [u64]) -> u64 {
        let mut index = first;
        let mut next = |step: u64| {
            let this = index;
            index = index.wrapping_add(step);
            this
        };
        if step == 1 {
            // Both words of a block are used, but for one before the first whole block and one
            // after the last.
            let (before, words) = words.split_at_mut(usize::from(first & 1 == 1).min(words.len()));
            for word in before {
                *word = self.word(next(1));
            }
            let (sides, after) = words.as_chunks_mut::<{ 2 * SIDE }>();
            for side in sides {
                let blocks = [next(2), next(2)].map(|index| index >> 1);
                let [[a, b], [c, d]] = self.blocks(blocks);
                *side = [a, b, c, d];
            }
            for pair in after.chunks_mut(2) {
                let [block] = self.blocks([next(pair.len() as u64) >> 1]);
                pair.copy_from_slice(&block[..pair.len()]);
            }
        } else {
            let (sides, after) = words.as_chunks_mut::<SIDE>();
            for side in sides {
                let indices = [next(step), next(step)];
                let blocks = self.blocks(indices.map(|index| index >> 1));
                for ((word, index), block) in side.iter_mut().zip(indices).zip(blocks) {
                    *word = half(index, block);
                }
            }
            for word in after {
                *word = self.word(next(step));
            }
        }
        index
    }

    fn word(self, index: u64) -> u64 {
        let [block] = self.blocks([index >> 1]);
        half(index, block)
    }

    /// The two words of each block, lane by lane. Lanes hold 32 bits each, in 64.
    #[inline]
    fn blocks<const N: usize>(self, counters: [u64; N]) -> [[u64; 2]; N] {
        let [mut k0, mut k1] = [word32(self.key), word32(self.key >> 32)];
        let mut x0 = counters.map(low);
        let mut x1 = counters.map(|counter| counter >> 32);
        let mut x2 = [low(self.stream); N];
        let mut x3 = [self.stream >> 32; N];
        for _ in 0..ROUNDS {
            for lane in 0..N {
                let product0 = x0[lane].wrapping_mul(MULTIPLIERS[0]);
                let product1 = x2[lane].wrapping_mul(MULTIPLIERS[1]);
                x0[lane] = product1 >> 32 ^ x1[lane] ^ u64::from(k0);
                x1[lane] = low(product1);
                x2[lane] = product0 >> 32 ^ x3[lane] ^ u64::from(k1);
                x3[lane] = low(product0);
            }
            k0 = k0.wrapping_add(INCREMENTS[0]);
            k1 = k1.wrapping_add(INCREMENTS[1]);
        }
        std::array::from_fn(|lane| [x0[lane] | x1[lane] << 32, x2[lane] | x3[lane] << 32])
    }
}

/// The word of this index, of the two in its block.
const fn half(index: u64, [even, odd]: [u64; 2]) -> u64 {
    if index & 1 == 0 { even } else { odd }
}

const fn low(word: u64) -> u64 {
    word & 0xffff_ffff
}

#[allow(clippy::cast_possible_truncation)] // The low word is meant.
const fn word32(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(index: u64, key: u64, stream: u64) -> [u64; 2] {
        Philox::new(key, stream).blocks([index])[0]
    }

    /// The words of a published vector, which has them in this order.
    fn pairs([a, b, c, d]: [u64; 4]) -> [u64; 2] {
        [a | b << 32, c | d << 32]
    }

    fn drawn(draw: Draw, starts: &[i64], width: usize, step: i64) -> Vec<u8> {
        let runs = Runs::new(starts, width, step).unwrap();
        let mut out = vec![0xaa; Philox::length(draw, runs).unwrap()];
        Philox::new(0x1234_5678_9abc_def0, 7).fill(draw, runs, &mut out).unwrap();
        out
    }

    const DRAWS: [Draw; 5] =
        [Draw::Bits, Draw::Uniform32, Draw::Uniform64, Draw::Normal32, Draw::Normal64];

    #[test]
    fn published_vectors() {
        assert_eq!(words(0, 0, 0), pairs([0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]));
        assert_eq!(
            words(u64::MAX, u64::MAX, u64::MAX),
            pairs([0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd])
        );
        assert_eq!(
            words(0x85a3_08d3_243f_6a88, 0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e),
            pairs([0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1])
        );
    }

    #[test]
    fn a_value_depends_on_its_index_alone() {
        for draw in DRAWS {
            let whole = drawn(draw, &[0], 700, 1);
            let value = |index: usize| &whole[index * draw.size()..(index + 1) * draw.size()];
            for (start, width, step) in [
                (0_i64, 700, 1_i64),
                (1, 699, 1),
                (5, 1, 1),
                (3, 2, 1),
                (7, 300, 2),
                (699, 700, -1),
                (9, 4, 0),
            ] {
                let starts = [start, start, start + step.signum()];
                let starts = if width > 600 { &starts[..1] } else { &starts };
                let indices = starts.iter().flat_map(|start| {
                    (0..width).map(move |at| start + step * i64::try_from(at).unwrap())
                });
                let expected: Vec<u8> = indices
                    .flat_map(|index| value(usize::try_from(index).unwrap()).to_vec())
                    .collect();
                assert_eq!(drawn(draw, starts, width, step), expected, "{draw:?} {start} {step}");
            }
        }
    }

    #[test]
    fn uniform_values_are_below_one() {
        assert!(uniform32(u64::MAX) < 1.0 && uniform64(u64::MAX) < 1.0);
        assert_eq!((uniform32(0).to_bits(), uniform64(0).to_bits()), (0, 0));
    }

    #[test]
    fn last_indices_are_drawn() {
        let last = drawn(Draw::Bits, &[i64::MAX - 2], 3, 1);
        assert_eq!(last, drawn(Draw::Bits, &[i64::MAX - 2, i64::MAX - 1, i64::MAX], 1, i64::MAX));
    }

    #[test]
    fn arguments_are_checked() {
        assert!(Runs::new(&[0, -1], 1, 1).is_err());
        assert!(Runs::new(&[-1], 0, 1).is_err());
        assert!(Runs::new(&[3], 5, -1).is_err());
        assert!(Runs::new(&[i64::MAX], 2, 1).is_err());
        assert!(Runs::new(&[0], usize::MAX, 1).is_err());
        assert!(Runs::new(&[0], 3, i64::MAX).is_err());
        assert!(Runs::new(&[], usize::MAX, i64::MIN).is_ok());
        assert!(Draw::named("bits", "float32").is_err());
        assert!(Draw::named("normal", "uint32").is_err());
        assert!(Draw::named("gamma", "float32").is_err());
        let runs = Runs::new(&[0], 2, 1).unwrap();
        assert!(Philox::new(0, 0).fill(Draw::Bits, runs, &mut [0; 7]).is_err());
        let many = Runs::new(&[0; 4], 1 << 60, 0).unwrap();
        assert!(Philox::length(Draw::Uniform64, many).is_err());
    }
}
