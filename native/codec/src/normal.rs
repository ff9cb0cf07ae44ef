//! The inverse of the cumulative normal distribution.
//!
//! M. J. Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied
//! Statistics 37 (1988), routine PPND16: about 16 digits.
//!
//! A probability comes as `(2 n + 1) / 2^54` with `n` below `2^53`: all are in the open interval,
//! and both `p - 1/2` and the smaller of `p` and `1 - p` are exact in float64.

#![allow(clippy::excessive_precision)] // The digits are those of the publication.

/// How many probabilities are inverted at a time.
pub const BATCH: usize = 256;

const UNIT: f64 = 1.0 / 18_014_398_509_481_984.0; // 2^-54
const HALF: i64 = 1 << 53;
const LAST: u64 = (1 << 53) - 1;

/// How far from one half the centre reaches.
const SPLIT: f64 = 0.425;
/// Where the expansion of a tail starts, as the square root of minus the logarithm.
const TAIL_START: f64 = 1.6;
/// Where the far tail starts.
const FAR: f64 = 5.0;

/// A numerator and a denominator, from the highest power to the lowest.
struct Rational([f64; 8], [f64; 8]);

const CENTRE: Rational = Rational(
    [
        2.509_080_928_730_122_672_7e3,
        3.343_057_558_358_812_810_5e4,
        6.726_577_092_700_870_085_3e4,
        4.592_195_393_154_987_145_7e4,
        1.373_169_376_550_946_112_5e4,
        1.971_590_950_306_551_442_7e3,
        1.331_416_678_917_843_774_5e2,
        3.387_132_872_796_366_608_0e0,
    ],
    [
        5.226_495_278_852_854_561_0e3,
        2.872_908_573_572_194_267_4e4,
        3.930_789_580_009_271_061_0e4,
        2.121_379_430_158_659_586_7e4,
        5.394_196_021_424_751_107_7e3,
        6.871_870_074_920_579_083_0e2,
        4.231_333_070_160_091_125_2e1,
        1.0,
    ],
);

const TAIL: Rational = Rational(
    [
        7.745_450_142_783_414_076_40e-4,
        2.272_384_498_926_918_458_33e-2,
        2.417_807_251_774_506_117_70e-1,
        1.270_458_252_452_368_382_58e0,
        3.647_848_324_763_204_605_04e0,
        5.769_497_221_460_691_405_50e0,
        4.630_337_846_156_545_295_90e0,
        1.423_437_110_749_683_577_34e0,
    ],
    [
        1.050_750_071_644_416_843_24e-9,
        5.475_938_084_995_344_946_00e-4,
        1.519_866_656_361_645_719_66e-2,
        1.481_039_764_274_800_745_90e-1,
        6.897_673_349_851_000_045_50e-1,
        1.676_384_830_183_803_849_40e0,
        2.053_191_626_637_758_821_87e0,
        1.0,
    ],
);

const FAR_TAIL: Rational = Rational(
    [
        2.010_334_399_292_288_132_65e-7,
        2.711_555_568_743_487_578_15e-5,
        1.242_660_947_388_078_438_60e-3,
        2.653_218_952_657_612_309_30e-2,
        2.965_605_718_285_048_912_30e-1,
        1.784_826_539_917_291_335_80e0,
        5.463_784_911_164_114_369_90e0,
        6.657_904_643_501_103_777_20e0,
    ],
    [
        2.044_263_103_389_939_785_64e-15,
        1.421_511_758_316_445_888_70e-7,
        1.846_318_317_510_054_681_80e-5,
        7.868_691_311_456_132_591_00e-4,
        1.487_536_129_085_061_485_25e-2,
        1.369_298_809_227_358_053_10e-1,
        5.998_322_065_558_879_376_90e-1,
        1.0,
    ],
);

impl Rational {
    #[inline]
    fn at(&self, x: f64, factor: f64) -> f64 {
        let horner = |[highest, others @ ..]: &[f64; 8]| {
            others.iter().fold(*highest, |sum, power| sum * x + power)
        };
        horner(&self.0) * factor / horner(&self.1)
    }
}

/// Inverts the probabilities `(2 n + 1) / 2^54`; of `n` the low 53 bits count.
#[must_use]
pub fn inverse(numbers: &[u64; BATCH]) -> [f64; BATCH] {
    let offsets = numbers.map(|number| signed(2 * (number & LAST) + 1) - HALF);
    // The centre is computed for all, without a branch. One in seven is a tail, computed again.
    let mut values = offsets.map(|offset| {
        let q = scaled(offset);
        CENTRE.at(SPLIT * SPLIT - q * q, q)
    });
    let (mut rows, mut count) = ([0; BATCH], 0);
    for (row, offset) in offsets.iter().enumerate() {
        rows[count % BATCH] = row;
        count = count.wrapping_add(usize::from(scaled(*offset).abs() > SPLIT));
    }
    let rows = rows.get(..count).unwrap_or(&rows);
    let mut depths = [0.0; BATCH];
    for (depth, &row) in depths.iter_mut().zip(rows) {
        *depth = (-libm::log(scaled(HALF - offsets[row].abs()))).sqrt();
    }
    let mut distances = [0.0; BATCH];
    for (distance, depth) in distances.iter_mut().zip(&depths).take(rows.len()) {
        *distance = TAIL.at(depth - TAIL_START, 1.0);
    }
    for ((&row, depth), distance) in rows.iter().zip(depths).zip(distances) {
        let distance = if depth <= FAR { distance } else { FAR_TAIL.at(depth - FAR, 1.0) };
        values[row] = if offsets[row] < 0 { -distance } else { distance };
    }
    values
}

fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

#[allow(clippy::cast_precision_loss)] // The magnitude is at most 2^53.
fn scaled(number: i64) -> f64 {
    number as f64 * UNIT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: u64) -> f64 {
        inverse(&[number; BATCH])[BATCH - 1]
    }

    #[test]
    fn quantiles_of_tables() {
        // p = 0.5 + 2^-54, and the others to the 53 bits of n.
        let cases = [
            (0.5, 0.0),
            (0.75, 0.674_489_750_196_081_743_20),
            (0.95, 1.644_853_626_951_472_714_86),
            (0.99, 2.326_347_874_040_841_100_89),
            (0.999, 3.090_232_306_167_813_541_54),
            (1.0 - 1e-6, 4.753_424_308_822_898_948_19),
        ];
        for (p, expected) in cases {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let number = (p * 2.0_f64.powi(53)) as u64;
            assert!((of(number) - expected).abs() < 1e-9, "{p}: {}", of(number));
        }
    }

    #[test]
    fn ends_are_finite_and_halves_are_mirrored() {
        assert!((of(0) + 8.292_361_075_813_596).abs() < 1e-9, "{}", of(0));
        for number in (0..64).map(|bit| u64::MAX >> bit & LAST).chain(0..1000) {
            let mirrored = -of(LAST - number);
            assert_eq!(of(number).to_bits(), mirrored.to_bits(), "{number}");
            assert!(of(number).is_finite());
        }
    }

    #[test]
    fn values_rise_over_the_seams() {
        for seam in [0.075, 0.925, (-25.0_f64).exp()] {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let middle = (seam * 2.0_f64.powi(53)) as u64;
            let around: Vec<f64> = (0..9).map(|step| of(middle - 40_000 + step * 10_000)).collect();
            assert!(around.is_sorted(), "{around:?}");
        }
    }
}
