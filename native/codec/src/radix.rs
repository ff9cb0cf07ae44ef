//! Counts of values by a digit of their ordered key, for selection by rank.
//!
//! ```text
//! uint        key = bits
//! int         key = bits, sign flipped
//! float       key = bits, sign flipped if it was clear, all flipped if it was set
//! bfloat      the same for bfloat16, whose infinity is elsewhere than that of float16
//! magnitude   key = bits, sign cleared
//!
//! bin = key >> shift, 16 bits of it;  counted if key >> (shift + 16) == prefix
//! ```
//!
//! Keys compare as unsigned integers in the order of the values. A NaN has the key of the positive
//! NaN of the same payload, above infinity, whatever its sign is. -0 comes just before 0.

use crate::error::RangeError;

/// How many bins there are; a key of one byte reaches the first 256.
pub const BINS: usize = 1 << 16;

/// How many keys are made at a time, so that a vector unit makes them.
const GROUP: usize = 32;

/// So many tables take turns: adding to a bin twice in a row waits for the first to be stored.
const TABLES: usize = 4;

/// Fewer elements go straight to the counts, as clearing and adding up tables would cost more.
const FEW: usize = 1 << 14;

/// After so many elements the tables are added up, long before a count of 32 bits could overflow.
const FLUSH: usize = 1 << 24;

type Table = [u32; BINS];

/// What the bits of an element mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IEEE binary16, binary32 or binary64, by value.
    Float,
    /// bfloat16, by value.
    Bfloat,
    /// Any of these by absolute value.
    Magnitude,
    /// Two's complement.
    Int,
    /// Unsigned.
    Uint,
}

/// The elements that are counted: their kind and their bytes each, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elements {
    kind: Kind,
    width: usize,
}

impl Elements {
    /// Checks that there are elements of this kind and width.
    ///
    /// # Errors
    /// When there are not.
    pub fn new(kind: &str, width: usize) -> Result<Self, RangeError> {
        let (kind, widths): (_, &[usize]) = match kind {
            "float" => (Kind::Float, &[2, 4, 8]),
            "bfloat" => (Kind::Bfloat, &[2]),
            "magnitude" => (Kind::Magnitude, &[2, 4, 8]),
            "int" => (Kind::Int, &[1, 2, 4, 8]),
            "uint" => (Kind::Uint, &[1, 2, 4, 8]),
            _ => {
                return Err(RangeError::new(format!(
                    "kind is '{kind}', expected float, bfloat, magnitude, int or uint"
                )));
            }
        };
        if !widths.contains(&width) {
            return Err(RangeError::new(format!(
                "width is {width}, expected one of {widths:?} for this kind"
            )));
        }
        Ok(Self { kind, width })
    }

    const fn bits(self) -> u32 {
        match self.width {
            1 => 8,
            2 => 16,
            4 => 32,
            _ => 64,
        }
    }

    /// The bits of infinity, in a word of this width.
    const fn infinity(self) -> u64 {
        match (self.kind, self.width) {
            (Kind::Bfloat, _) => 0x7f80,
            (_, 2) => 0x7c00,
            (_, 4) => 0x7f80_0000,
            _ => 0x7ff0_0000_0000_0000,
        }
    }

    /// The bytes of the element that has this key; of a float the NaN without a sign.
    ///
    /// # Errors
    /// When no element has this key.
    pub fn value(self, key: u64) -> Result<Vec<u8>, RangeError> {
        let mask = u64::MAX >> (64 - self.bits());
        let sign = 1 << (self.bits() - 1);
        let bits = match self.kind {
            Kind::Int => key ^ sign,
            Kind::Float | Kind::Bfloat if key & sign != 0 => key ^ sign,
            Kind::Float | Kind::Bfloat => key ^ mask,
            Kind::Uint | Kind::Magnitude => key,
        };
        let reached = match self.kind {
            Kind::Uint | Kind::Int => true,
            Kind::Float | Kind::Bfloat => bits & sign == 0 || bits ^ sign <= self.infinity(),
            Kind::Magnitude => bits & sign == 0,
        };
        if key > mask || !reached {
            return Err(RangeError::new(format!("no element has the key {key:#x}")));
        }
        Ok(bits.to_le_bytes().into_iter().take(self.width).collect())
    }

    /// Adds to each bin how many elements of `data` fall into it.
    ///
    /// # Errors
    /// When `data` ends within an element, `shift` leaves fewer than 16 bits above it (unless it is
    /// 0), `prefix` is more than the bits above the digit, or there are not [`BINS`] counts.
    pub fn count(
        self,
        data: &[u8],
        shift: u32,
        prefix: u64,
        counts: &mut [u64],
    ) -> Result<(), RangeError> {
        let bins = counts.len();
        let Ok(counts) = <&mut [u64; BINS]>::try_from(counts) else {
            return Err(RangeError::new(format!("there are {bins} counts, expected {BINS}")));
        };
        if !data.len().is_multiple_of(self.width) {
            let (length, width) = (data.len(), self.width);
            return Err(RangeError::new(format!(
                "data has {length} bytes, no multiple of {width}"
            )));
        }
        let highest = self.bits().saturating_sub(16);
        if shift > highest {
            let width = self.width;
            return Err(RangeError::new(format!(
                "shift is {shift}, at most {highest} with a width of {width}"
            )));
        }
        let above = highest - shift;
        if prefix.checked_shr(above).unwrap_or(0) != 0 {
            return Err(RangeError::new(format!(
                "prefix is {prefix:#x}, of at most {above} bits with a shift of {shift}"
            )));
        }
        let pass = Pass { shift, prefix: (above > 0).then_some(prefix) };
        match self.width {
            1 => self.tally::<u8, 1>(data, pass, counts),
            2 => self.tally::<u16, 2>(data, pass, counts),
            4 => self.tally::<u32, 4>(data, pass, counts),
            _ => self.tally::<u64, 8>(data, pass, counts),
        }
        Ok(())
    }

    fn tally<W: Word<SIZE>, const SIZE: usize>(
        self,
        data: &[u8],
        pass: Pass,
        counts: &mut [u64; BINS],
    ) {
        let (elements, _) = data.as_chunks::<SIZE>();
        match self.kind {
            Kind::Uint => tally(elements, pass, counts, |bits: W| bits),
            Kind::Int => tally(elements, pass, counts, W::flipped),
            Kind::Magnitude => tally(elements, pass, counts, W::unsigned),
            Kind::Float | Kind::Bfloat => {
                let infinity = W::low(self.infinity());
                tally(elements, pass, counts, |bits: W| bits.ordered(infinity));
            }
        }
    }
}

/// One pass over the elements: where the digit is, and what has to be above it, if anything is.
#[derive(Clone, Copy)]
struct Pass {
    shift: u32,
    prefix: Option<u64>,
}

/// An unsigned integer of `SIZE` bytes.
trait Word<const SIZE: usize>: Copy + Default + PartialEq {
    fn read(bytes: [u8; SIZE]) -> Self;
    fn low(bits: u64) -> Self;
    fn flipped(self) -> Self;
    fn unsigned(self) -> Self;
    fn ordered(self, infinity: Self) -> Self;
    fn digit(self, shift: u32) -> u16;
    fn above(self, shift: u32) -> Self;
}

macro_rules! word {
    ($type: ty, $size: literal) => {
        #[allow(clippy::cast_possible_truncation, clippy::cast_lossless)] // Low bits are meant.
        impl Word<$size> for $type {
            fn read(bytes: [u8; $size]) -> Self {
                Self::from_le_bytes(bytes)
            }

            fn low(bits: u64) -> Self {
                bits as Self
            }

            fn flipped(self) -> Self {
                self ^ !(Self::MAX >> 1)
            }

            fn unsigned(self) -> Self {
                self & (Self::MAX >> 1)
            }

            fn ordered(self, infinity: Self) -> Self {
                // In arithmetic, as the comparison of 64 bits is no vector instruction everywhere.
                let every = |top: Self| Self::wrapping_sub(0, top >> (Self::BITS - 1));
                let (negative, nan) = (every(self), every(infinity.wrapping_sub(self.unsigned())));
                self ^ (negative & !nan | !negative & !(Self::MAX >> 1))
            }

            fn digit(self, shift: u32) -> u16 {
                self.wrapping_shr(shift) as u16
            }

            fn above(self, shift: u32) -> Self {
                self.wrapping_shr(shift)
            }
        }
    };
}

word!(u8, 1);
word!(u16, 2);
word!(u32, 4);
word!(u64, 8);

fn tally<W: Word<SIZE>, const SIZE: usize>(
    elements: &[[u8; SIZE]],
    pass: Pass,
    counts: &mut [u64; BINS],
    key: impl Fn(W) -> W + Copy,
) {
    if elements.len() < FEW {
        digits(elements, pass, key, |bins| {
            for &bin in bins {
                let count = &mut counts[usize::from(bin)];
                *count = count.wrapping_add(1);
            }
        });
        return;
    }
    let mut space = vec![0; TABLES * BINS];
    let (tables, _) = space.as_chunks_mut::<BINS>();
    let Ok(tables) = <&mut [Table; TABLES]>::try_from(tables) else { return };
    for part in elements.chunks(FLUSH) {
        digits(part, pass, key, |bins| add(bins, tables));
        flush(tables, counts);
    }
}

/// Hands on the digits of the elements that are counted, a group at a time.
#[inline]
fn digits<W: Word<SIZE>, const SIZE: usize>(
    elements: &[[u8; SIZE]],
    pass: Pass,
    key: impl Fn(W) -> W,
    mut each: impl FnMut(&[u16]),
) {
    let (groups, tail) = elements.as_chunks::<GROUP>();
    let Some(prefix) = pass.prefix else {
        for group in groups {
            each(&group.map(|bytes| key(W::read(bytes)).digit(pass.shift)));
        }
        for bytes in tail {
            each(&[key(W::read(*bytes)).digit(pass.shift)]);
        }
        return;
    };
    let (prefix, above) = (W::low(prefix), pass.shift + 16);
    for group in groups {
        let keys = group.map(|bytes| key(W::read(bytes)));
        let matches = keys.map(|key| key.above(above) == prefix);
        if !matches.iter().fold(false, |any, &is| any | is) {
            continue;
        }
        if matches.iter().fold(true, |all, &is| all & is) {
            each(&keys.map(|key| key.digit(pass.shift)));
            continue;
        }
        // Without a branch for each element, as nothing predicts which ones match.
        let (mut found, mut count) = ([0; GROUP], 0);
        for (key, is) in keys.iter().zip(matches) {
            found[count % GROUP] = key.digit(pass.shift);
            count = count.wrapping_add(usize::from(is));
        }
        each(found.get(..count).unwrap_or_default());
    }
    for bytes in tail {
        let key = key(W::read(*bytes));
        if key.above(above) == prefix {
            each(&[key.digit(pass.shift)]);
        }
    }
}

#[inline]
fn add(bins: &[u16], [a, b, c, d]: &mut [Table; TABLES]) {
    let (rows, tail) = bins.as_chunks::<TABLES>();
    for &[i, j, k, l] in rows {
        for (table, bin) in [(&mut *a, i), (&mut *b, j), (&mut *c, k), (&mut *d, l)] {
            let count = &mut table[usize::from(bin)];
            *count = count.wrapping_add(1);
        }
    }
    for &bin in tail {
        let count = &mut a[usize::from(bin)];
        *count = count.wrapping_add(1);
    }
}

fn flush(tables: &mut [Table; TABLES], counts: &mut [u64; BINS]) {
    for table in tables {
        for (count, more) in counts.iter_mut().zip(table.iter_mut()) {
            *count = count.wrapping_add(u64::from(std::mem::take(more)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys by the definition, one at a time.
    fn count(elements: Elements, data: &[u8], shift: u32, prefix: u64) -> Vec<u64> {
        let mut counts = vec![0; BINS];
        elements.count(data, shift, prefix, &mut counts).unwrap();
        counts
    }

    /// The key whose digits the counts tell, from the top.
    fn key(elements: Elements, bytes: &[u8]) -> u64 {
        let mut key = 0;
        let mut shift = elements.bits().saturating_sub(16);
        loop {
            let counts = count(elements, bytes, shift, key);
            let bin = counts.iter().position(|&count| count == 1).unwrap();
            assert_eq!(counts.iter().sum::<u64>(), 1);
            key = key << 16 | u64::try_from(bin).unwrap();
            if shift == 0 {
                return key;
            }
            shift -= 16;
        }
    }

    #[test]
    fn keys_rise_with_floats() {
        let rising = [f32::NEG_INFINITY, -1.5, -1e-45, -0.0, 0.0, 1e-45, 1.5, f32::INFINITY];
        let elements = Elements::new("float", 4).unwrap();
        let mut keys: Vec<u64> =
            rising.iter().map(|value| key(elements, &value.to_le_bytes())).collect();
        let nan = key(elements, &f32::NAN.to_le_bytes());
        assert_eq!(nan, key(elements, &(-f32::NAN).to_le_bytes()));
        keys.push(nan);
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:x?}");
        for (value, key) in rising.iter().zip(&keys) {
            assert_eq!(elements.value(*key).unwrap(), value.to_le_bytes());
        }
    }

    #[test]
    fn every_key_of_16_bits_is_inverted() {
        for kind in ["float", "bfloat", "magnitude", "int", "uint"] {
            let elements = Elements::new(kind, 2).unwrap();
            let (mut reached, mut refused) = (vec![0; BINS], 0);
            for key in 0..=u16::MAX {
                let Ok(bytes) = elements.value(u64::from(key)) else {
                    refused += 1;
                    continue;
                };
                elements.count(&bytes, 0, 0, &mut reached).unwrap();
                assert_eq!(reached[usize::from(key)], 1, "{kind} {key:#x}");
            }
            let unreached = match kind {
                "float" => 0x3ff,
                "bfloat" => 0x7f,
                "magnitude" => 0x8000,
                _ => 0,
            };
            assert_eq!(refused, unreached, "{kind}");
        }
    }

    #[test]
    fn nan_of_half_types_is_above_their_infinity() {
        for (kind, infinity) in [("float", 0x7c00_u16), ("bfloat", 0x7f80)] {
            let elements = Elements::new(kind, 2).unwrap();
            let top = key(elements, &infinity.to_le_bytes());
            for nan in [infinity + 1, 0x7fff, 0x8001 + infinity, 0xffff] {
                assert!(key(elements, &nan.to_le_bytes()) > top, "{kind} {nan:#x}");
            }
            assert_eq!(
                key(elements, &(0x8000 | infinity).to_le_bytes()),
                u64::from(0x7fff - infinity)
            );
        }
    }

    #[test]
    fn tables_are_added_up_beyond_a_flush() {
        let data: Vec<u8> = (0..=255).cycle().take(FLUSH + 1000).collect();
        let counts = count(Elements::new("uint", 1).unwrap(), &data, 0, 0);
        for (bin, &found) in counts.iter().enumerate() {
            let expected = if bin > 255 { 0 } else { FLUSH / 256 + 3 + usize::from(bin < 232) };
            assert_eq!(found, u64::try_from(expected).unwrap(), "{bin}");
        }
    }

    #[test]
    fn few_and_many_agree_in_every_pass() {
        let mut state = 1_u64;
        let data: Vec<u8> = (0..(2 * FEW + 7) * 8)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Few values, so that prefixes match often.
                state.to_be_bytes()[0] & 0x81
            })
            .collect();
        for (kind, width) in [("int", 2), ("float", 4), ("uint", 8), ("magnitude", 8)] {
            let elements = Elements::new(kind, width).unwrap();
            let data = &data[..(2 * FEW + 7) * width];
            let (mut shift, mut prefix) = (elements.bits() - 16, 0);
            loop {
                let whole = count(elements, data, shift, prefix);
                let mut parts = vec![0; BINS];
                for part in data.chunks(1001 * width) {
                    elements.count(part, shift, prefix, &mut parts).unwrap();
                }
                assert_eq!(whole, parts, "{kind} {width} {shift}");
                if shift == 0 {
                    break;
                }
                let (fullest, _) =
                    whole.iter().enumerate().max_by_key(|(_, count)| **count).unwrap();
                (prefix, shift) = (prefix << 16 | u64::try_from(fullest).unwrap(), shift - 16);
            }
        }
    }

    #[test]
    fn arguments_are_checked() {
        for (kind, width) in [("float", 1), ("float", 3), ("bfloat", 4), ("int", 0), ("bool", 1)] {
            assert!(Elements::new(kind, width).is_err(), "{kind} {width}");
        }
        let words = Elements::new("uint", 4).unwrap();
        let refused = |data: &[u8], shift: u32, prefix: u64, bins: usize| {
            words.count(data, shift, prefix, &mut vec![0; bins]).is_err()
        };
        assert!(!refused(&[0; 8], 0, 0xffff, BINS));
        assert!(refused(&[0; 7], 0, 0, BINS));
        assert!(refused(&[0; 8], 17, 0, BINS));
        assert!(refused(&[0; 8], u32::MAX, 0, BINS));
        assert!(refused(&[0; 8], 16, 1, BINS));
        assert!(refused(&[0; 8], 0, 0x1_0000, BINS));
        assert!(refused(&[0; 8], 0, 0, BINS - 1));
        assert!(words.value(1 << 32).is_err());
    }
}
