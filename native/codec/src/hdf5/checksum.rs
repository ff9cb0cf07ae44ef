//! The checksum of metadata: Bob Jenkins' lookup3, with 0 as the start.

use crate::error::{DecodeError, Kind};
use crate::hdf5::space::bad;

/// The checksum of some bytes.
#[must_use]
pub fn lookup3(data: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(u32::try_from(data.len() & 0xffff_ffff).unwrap_or(0));
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = data;
    while rest.len() > 12 {
        let (block, after) = rest.split_at(12);
        add(&mut a, &mut b, &mut c, block);
        mix(&mut a, &mut b, &mut c);
        rest = after;
    }
    if rest.is_empty() {
        return c;
    }
    let mut last = [0; 12];
    for (to, &from) in last.iter_mut().zip(rest) {
        *to = from;
    }
    add(&mut a, &mut b, &mut c, &last);
    finish(&mut a, &mut b, &mut c);
    c
}

fn add(a: &mut u32, b: &mut u32, c: &mut u32, block: &[u8]) {
    for (to, word) in [a, b, c].into_iter().zip(block.chunks_exact(4)) {
        *to = to.wrapping_add(word.first_chunk().map_or(0, |word| u32::from_le_bytes(*word)));
    }
}

fn mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    *a = a.wrapping_sub(*c) ^ c.rotate_left(4);
    *c = c.wrapping_add(*b);
    *b = b.wrapping_sub(*a) ^ a.rotate_left(6);
    *a = a.wrapping_add(*c);
    *c = c.wrapping_sub(*b) ^ b.rotate_left(8);
    *b = b.wrapping_add(*a);
    *a = a.wrapping_sub(*c) ^ c.rotate_left(16);
    *c = c.wrapping_add(*b);
    *b = b.wrapping_sub(*a) ^ a.rotate_left(19);
    *a = a.wrapping_add(*c);
    *c = c.wrapping_sub(*b) ^ b.rotate_left(4);
    *b = b.wrapping_add(*a);
}

fn finish(a: &mut u32, b: &mut u32, c: &mut u32) {
    let stir = |x: &mut u32, y: u32, by: u32| *x = (*x ^ y).wrapping_sub(y.rotate_left(by));
    stir(c, *b, 14);
    stir(a, *c, 11);
    stir(b, *a, 25);
    stir(c, *b, 16);
    stir(a, *c, 4);
    stir(b, *a, 14);
    stir(c, *b, 24);
}

/// Compares the last 4 bytes of a block with the checksum of the others.
pub fn verify(block: &[u8], offset: u64, what: &str) -> Result<(), DecodeError> {
    let Some((covered, stored)) = block.split_last_chunk::<4>() else {
        return Err(bad(Kind::Truncated, offset, format!("{what} is too short")));
    };
    let (stored, found) = (u32::from_le_bytes(*stored), lookup3(covered));
    if stored != found {
        let message = format!("{what} has the checksum {stored:#010x}, its bytes {found:#010x}");
        return Err(bad(Kind::Checksum, offset, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        assert_eq!(lookup3(b""), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago"), 0x1777_0551);
    }
}
