//! Sums of floating-point values and of their squares, in float64.
//!
//! ```text
//! element i is added to lane i mod 16, in order
//! sum = the lanes, added pairwise: j and j+8, then j and j+4, j and j+2, j and j+1
//! ```
//!
//! So a sum depends on the values and on how many they are, and on no vector unit.

use crate::error::RangeError;

const LANES: usize = 16;

/// How many binary16 values are converted at a time: whole turns of the lanes.
const HALVES: usize = 64 * LANES;

/// How the values are stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE binary16.
    Float16,
    /// The upper half of an IEEE binary32.
    Bfloat16,
    /// IEEE binary32.
    Float32,
    /// IEEE binary64.
    Float64,
}

impl Dtype {
    /// The dtype of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self, RangeError> {
        match name {
            "float16" => Ok(Self::Float16),
            "bfloat16" => Ok(Self::Bfloat16),
            "float32" => Ok(Self::Float32),
            "float64" => Ok(Self::Float64),
            _ => Err(RangeError::new(format!(
                "dtype is '{name}', expected float16, bfloat16, float32 or float64"
            ))),
        }
    }

    const fn width(self) -> usize {
        match self {
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }
}

/// The sum of `(value - shift) ** power` over the values in `data`; 0 of none.
///
/// # Errors
/// When `power` is neither 1 nor 2, or `data` ends within a value.
pub fn power_sum(data: &[u8], dtype: Dtype, power: u32, shift: f64) -> Result<f64, RangeError> {
    if !data.len().is_multiple_of(dtype.width()) {
        let (length, width) = (data.len(), dtype.width());
        return Err(RangeError::new(format!("data has {length} bytes, no multiple of {width}")));
    }
    match power {
        1 => Ok(sum(data, dtype, |value| value - shift)),
        2 => Ok(sum(data, dtype, |value| {
            let distance = value - shift;
            distance * distance
        })),
        _ => Err(RangeError::new(format!("power is {power}, expected 1 or 2"))),
    }
}

fn sum(data: &[u8], dtype: Dtype, term: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = Lanes([0.0; LANES]);
    match dtype {
        Dtype::Float16 => {
            for part in data.as_chunks().0.chunks(HALVES) {
                let mut values = [0.0; HALVES];
                for (value, bytes) in values.iter_mut().zip(part) {
                    *value = half(u16::from_le_bytes(*bytes));
                }
                lanes.add(&values[..part.len()], |value| term(f64::from(value)));
            }
        }
        Dtype::Bfloat16 => lanes.add(data.as_chunks().0, |bytes| {
            let bits = u32::from(u16::from_le_bytes(bytes)) << 16;
            term(f64::from(f32::from_bits(bits)))
        }),
        Dtype::Float32 => {
            lanes.add(data.as_chunks().0, |bytes| term(f64::from(f32::from_le_bytes(bytes))));
        }
        Dtype::Float64 => lanes.add(data.as_chunks().0, |bytes| term(f64::from_le_bytes(bytes))),
    }
    lanes.sum()
}

struct Lanes([f64; LANES]);

impl Lanes {
    /// Adds a value to each lane in turn; all calls but the last have whole turns.
    fn add<T: Copy>(&mut self, values: &[T], term: impl Fn(T) -> f64) {
        let mut lanes = self.0;
        let (turns, last) = values.as_chunks::<LANES>();
        for turn in turns {
            for (lane, value) in lanes.iter_mut().zip(turn) {
                *lane += term(*value);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(last) {
            *lane += term(*value);
        }
        self.0 = lanes;
    }

    fn sum(self) -> f64 {
        let mut lanes = self.0;
        let mut width = LANES;
        while width > 1 {
            width /= 2;
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
        }
        lanes[0]
    }
}

/// A binary16 as float32, exactly.
fn half(bits: u16) -> f32 {
    const SUBNORMAL: u32 = 113 << 23; // 2^-14
    let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    let shifted = magnitude << 13;
    // No subnormal float32 comes in between: a thread that flushes these to zero would lose it.
    let subnormal = f32::from_bits(shifted + SUBNORMAL) - f32::from_bits(SUBNORMAL);
    let others = shifted + if magnitude < 0x7c00 { 112 << 23 } else { 224 << 23 };
    let value = if magnitude < 0x0400 { subnormal.to_bits() } else { others };
    f32::from_bits(value | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn sums_of_every_length_are_exact_on_integers() {
        for count in 0..100u8 {
            let values: Vec<f32> = (0..count).map(f32::from).collect();
            let data = bytes(&values);
            let sum = |power: u32, shift: f64| {
                power_sum(&data, Dtype::Float32, power, shift).unwrap().to_bits()
            };
            let whole = (0..count).fold(0.0, |sum, value| sum + f64::from(value) - 0.5);
            assert_eq!(sum(1, 0.5), whole.to_bits());
            let squares = (0..count).fold(0.0, |sum, value| sum + (f64::from(value) + 2.0).powi(2));
            assert_eq!(sum(2, -2.0), squares.to_bits());
        }
    }

    #[test]
    fn elements_go_to_their_lane() {
        const LARGE: f64 = 9_007_199_254_740_992.0; // 2^53, to which one 1 adds nothing, but 2 does.
        let of = |ones: [usize; 2]| {
            let mut values = [0.0; 33];
            values[0] = LARGE;
            values[ones[0]] = 1.0;
            values[ones[1]] = 1.0;
            let data: Vec<u8> = values.iter().flat_map(|value: &f64| value.to_le_bytes()).collect();
            power_sum(&data, Dtype::Float64, 1, 0.0).unwrap().to_bits()
        };
        for lost in [[16, 32], [8, 4], [2, 1], [24, 17]] {
            assert_eq!(of(lost), LARGE.to_bits(), "{lost:?}");
        }
        for kept in [[17, 25], [3, 11], [4, 28], [7, 31], [1, 13]] {
            assert_eq!(of(kept), (LARGE + 2.0).to_bits(), "{kept:?}");
        }
    }

    #[test]
    fn every_half_is_exact() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
            let magnitude = match (exponent, fraction > 0.0) {
                (31, true) => f64::NAN,
                (31, false) => f64::INFINITY,
                (0, _) => fraction * 2.0_f64.powi(-24),
                _ => (fraction + 1024.0) * 2.0_f64.powi(exponent - 25),
            };
            let expected = if bits >> 15 == 1 { -magnitude } else { magnitude };
            let found = f64::from(half(bits));
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan());
        }
    }

    #[test]
    fn arguments_are_checked() {
        assert!(power_sum(&[0; 7], Dtype::Float32, 1, 0.0).is_err());
        assert!(power_sum(&[0; 8], Dtype::Float32, 0, 0.0).is_err());
        assert!(power_sum(&[0; 8], Dtype::Float32, 3, 0.0).is_err());
        assert!(Dtype::named("float8").is_err());
        assert_eq!(Dtype::named("bfloat16"), Ok(Dtype::Bfloat16));
    }
}
