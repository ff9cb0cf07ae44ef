//! `FarmHash` Fingerprint64, by which a `SavedModel` names the bytes of its variables index.
//!
//! Little-endian words; one of five formulas by length: 0, 1..3, 4..7, 8..16, 17..32, 33..64, and a
//! loop over 64-byte chunks whose last chunk overlaps the one before.

#![allow(clippy::many_single_char_names)] // The letters of the published description.

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const SEED: u64 = 81;

type Pair = (u64, u64);

/// The 64-bit fingerprint of `data`.
#[must_use]
pub fn fingerprint64(data: &[u8]) -> u64 {
    match data.len() {
        0..=16 => up_to_16(data),
        17..=32 => up_to_32(data),
        33..=64 => up_to_64(data),
        _ => long(data),
    }
}

fn word(data: &[u8], at: usize) -> u64 {
    let found = data.get(at..).and_then(<[u8]>::first_chunk::<8>);
    found.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn half(data: &[u8], at: usize) -> u64 {
    let found = data.get(at..).and_then(<[u8]>::first_chunk::<4>);
    found.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
}

fn byte(data: &[u8], at: usize) -> u64 {
    data.get(at).map_or(0, |&byte| u64::from(byte))
}

const fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}

const fn mul(a: u64, b: u64) -> u64 {
    a.wrapping_mul(b)
}

const fn mix(value: u64) -> u64 {
    value ^ value >> 47
}

const fn fold(u: u64, v: u64, by: u64) -> u64 {
    let a = mix(mul(u ^ v, by));
    mul(mix(mul(v ^ a, by)), by)
}

fn up_to_16(data: &[u8]) -> u64 {
    let length = data.len() as u64;
    let by = add(K2, length * 2);
    match data.len() {
        0 => K2,
        1..=3 => {
            let y = byte(data, 0) + (byte(data, data.len() / 2) << 8);
            let z = length + (byte(data, data.len() - 1) << 2);
            mul(mix(mul(y, K2) ^ mul(z, K0)), K2)
        }
        4..=7 => fold(length + (half(data, 0) << 3), half(data, data.len() - 4), by),
        _ => {
            let a = add(word(data, 0), K2);
            let b = word(data, data.len() - 8);
            let c = add(mul(b.rotate_right(37), by), a);
            let d = mul(add(a.rotate_right(25), b), by);
            fold(c, d, by)
        }
    }
}

fn up_to_32(data: &[u8]) -> u64 {
    let by = add(K2, data.len() as u64 * 2);
    let (y, z) = ends(data, mul(word(data, 0), K1), by);
    fold(y, z, by)
}

/// The two values that the formulas for 17..32 and 33..64 bytes share.
fn ends(data: &[u8], a: u64, by: u64) -> Pair {
    let b = word(data, 8);
    let c = mul(word(data, data.len() - 8), by);
    let d = mul(word(data, data.len() - 16), K2);
    let y = add(add(add(a, b).rotate_right(43), c.rotate_right(30)), d);
    (y, add(add(a, add(b, K2).rotate_right(18)), c))
}

fn up_to_64(data: &[u8]) -> u64 {
    let by = add(K2, data.len() as u64 * 2);
    let a = mul(word(data, 0), K2);
    let (y, tail) = ends(data, a, by);
    let z = fold(y, tail, by);
    let e = mul(word(data, 16), by);
    let f = word(data, 24);
    let g = mul(add(y, word(data, data.len() - 32)), by);
    let h = mul(add(z, word(data, data.len() - 24)), by);
    let left = add(add(add(e, f).rotate_right(43), g.rotate_right(30)), h);
    fold(left, add(add(e, add(f, a).rotate_right(18)), g), by)
}

fn weak(chunk: &[u8], at: usize, a: u64, b: u64) -> Pair {
    let (w, x, y, z) =
        (word(chunk, at), word(chunk, at + 8), word(chunk, at + 16), word(chunk, at + 24));
    let a = add(a, w);
    let b = add(add(b, a), z).rotate_right(21);
    let sum = add(add(a, x), y);
    (add(sum, z), add(add(b, sum.rotate_right(44)), a))
}

struct State {
    x: u64,
    y: u64,
    z: u64,
    v: Pair,
    w: Pair,
}

impl State {
    /// One chunk of 64 bytes; the last chunk uses another multiplier and other small factors.
    fn step(&mut self, chunk: &[u8], by: u64, last: bool) {
        let factor = if last { 9 } else { 1 };
        let x = add(add(add(self.x, self.y), self.v.0), word(chunk, 8));
        let y = add(add(self.y, self.v.1), word(chunk, 48));
        let x = mul(x.rotate_right(37), by) ^ mul(self.w.1, factor);
        let carried = add(mul(self.v.0, factor), word(chunk, 40));
        let y = add(mul(y.rotate_right(42), by), carried);
        let z = mul(add(self.z, self.w.0).rotate_right(33), by);
        self.v = weak(chunk, 0, mul(self.v.1, by), add(x, self.w.0));
        self.w = weak(chunk, 32, add(z, self.w.1), add(y, word(chunk, 16)));
        (self.x, self.y, self.z) = (z, y, x);
    }
}

fn long(data: &[u8]) -> u64 {
    let y = add(mul(SEED, K1), 113);
    let z = mul(mix(add(mul(y, K2), 113)), K2);
    let x = add(mul(SEED, K2), word(data, 0));
    let mut state = State { x, y, z, v: (0, 0), w: (0, 0) };
    let whole = (data.len() - 1) / 64 * 64;
    for chunk in data.get(..whole).unwrap_or_default().chunks_exact(64) {
        state.step(chunk, K1, false);
    }
    let by = add(K1, (state.z & 0xff) << 1);
    state.w.0 = add(state.w.0, (data.len() as u64 - 1) & 63);
    state.v.0 = add(state.v.0, state.w.0);
    state.w.0 = add(state.w.0, state.v.0);
    state.step(data.get(data.len() - 64..).unwrap_or_default(), by, true);
    let left = add(add(fold(state.v.0, state.w.0, by), mul(mix(state.y), K0)), state.z);
    fold(left, add(fold(state.v.1, state.w.1, by), state.x), by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_index() {
        assert_eq!(fingerprint64(&crate::table::tests::golden()), 236_576_835_171_936_222);
    }

    #[test]
    fn empty() {
        assert_eq!(fingerprint64(b""), K2);
    }
}
