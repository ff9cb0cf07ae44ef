//! HDF5 metadata: what reads from the whole reads the same from windows, and asks for no more.

#![no_main]

use ckptkit_codec::hdf5::{self, Outcome};
use ckptkit_fuzz::{LIMIT, split};
use libfuzzer_sys::fuzz_target;

/// Gives every block with a checksum the one that its bytes have, where its length is known.
fn repair(data: &mut [u8]) {
    let mut at = 0;
    while let Some(rest) = data.get(at..).filter(|rest| rest.len() > 48) {
        let length = match rest.first_chunk::<6>() {
            Some([0x89, b'H', b'D', b'F', ..]) if matches!(rest.get(8), Some(2 | 3)) => 48,
            Some([b'O', b'H', b'D', b'R', 2, flags]) => {
                let start = 6 + usize::from(flags >> 5 & 1) * 16 + usize::from(flags >> 4 & 1) * 4;
                let width = 1 << (flags & 3);
                let field = rest.get(start..start + width).unwrap_or_default();
                let size = field.iter().rev().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
                start + width + 4 + usize::try_from(size.min(1 << 20)).unwrap_or(0)
            }
            Some([b'B', b'T', b'H', b'D', ..]) => 38,
            Some([b'F', b'R', b'H', b'P', ..]) => 146,
            Some([b'F', b'A', b'H', b'D', ..]) => 28,
            Some([b'E', b'A', b'H', b'D', ..]) => 72,
            _ => 0,
        };
        let block = data.get_mut(at..at + length);
        if let Some((covered, checksum)) = block.and_then(<[u8]>::split_last_chunk_mut::<4>) {
            *checksum = hdf5::lookup3(covered).to_le_bytes();
        }
        at += 1;
    }
}

fn tables(data: &[u8]) -> Option<String> {
    let size = i64::try_from(data.len()).expect("it is short");
    match hdf5::scan(data, &[0, size], data.len() as u64, LIMIT) {
        Ok(Outcome::Tables(tables)) => Some(format!("{tables:?}")),
        Ok(Outcome::Needs(_)) => panic!("everything was there"),
        Err(_) => None,
    }
}

/// Reads as a caller does: only what is asked for, in pages of some size.
fn paged(data: &[u8], page: usize) -> Option<String> {
    let (mut content, mut windows, mut there) = (Vec::new(), Vec::new(), vec![false; data.len()]);
    loop {
        match hdf5::scan(&content, &windows, data.len() as u64, LIMIT) {
            Ok(Outcome::Tables(tables)) => return Some(format!("{tables:?}")),
            Err(_) => return None,
            Ok(Outcome::Needs(needs)) => {
                let before = content.len();
                for need in needs.chunks(2) {
                    let at = |index: usize| usize::try_from(need[index]).expect("never negative");
                    let (first, last) = (at(0) / page, (at(0) + at(1)).div_ceil(page));
                    for start in (first..last).map(|number| number * page) {
                        let part = start..(start + page).min(data.len());
                        if !there[start] {
                            there[start] = true;
                            windows.extend([part.start, part.len()].map(|n| n as i64));
                            content.extend_from_slice(&data[part]);
                        }
                    }
                }
                assert!(content.len() > before, "it asked for what it has");
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (number, data) = split(data);
    let mut data = data.to_vec();
    let _ = tables(&data);
    repair(&mut data);
    let page = usize::try_from(number % 1000).expect("it is small") + 64;
    assert_eq!(tables(&data), paged(&data, page));
});
