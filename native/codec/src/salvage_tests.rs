//! Tests of damaged tables: which entries come back, and what is said of the others.

use super::*;
use crate::table::encode;
use crate::table::tests::golden;

const LIMIT: u64 = 1 << 20;

fn table(count: usize, width: usize) -> Vec<u8> {
    let (mut keys, mut values) = (Column::default(), Column::default());
    for number in 0..count {
        keys.push(format!("layer/{number:06}").as_bytes());
        values.push(&vec![u8::try_from(number % 251).unwrap(); width]);
    }
    encode(keys.rows(), values.rows()).unwrap()
}

/// Two data blocks and a short one.
fn blocks() -> Vec<u8> {
    table(2000, 300)
}

fn states(found: &Salvaged) -> Vec<State> {
    found.regions.iter().map(|region| region.state).collect()
}

#[test]
fn sound_tables_are_read_whole() {
    for index in [golden(), blocks()] {
        let found = read(&index, LIMIT);
        let rows = crate::table::decode(&index, LIMIT).unwrap();
        assert_eq!((&found.keys, &found.values), (&rows.keys, &rows.values));
        let good = |state: &State| *state == State::Good;
        assert!(states(&found).iter().all(good), "{:?}", found.regions);
    }
}

#[test]
fn one_byte_is_put_right() {
    let index = golden();
    let rows = crate::table::decode(&index, LIMIT).unwrap();
    for at in [0, 1, 40, 90, 120, 127, 128, 129, 132] {
        let mut damaged = index.clone();
        damaged[at] ^= 0x21;
        let found = read(&damaged, LIMIT);
        assert_eq!(found.regions[0].state, State::Repaired, "{at}: {:?}", found.regions);
        assert_eq!((found.keys, found.values), (rows.keys.clone(), rows.values.clone()));
    }
}

#[test]
fn a_bad_block_loses_only_itself() {
    let mut index = blocks();
    index[1000..1200].fill(0xa5);
    let found = read(&index, LIMIT);
    assert_eq!(states(&found)[0], State::Doubtful);
    assert_eq!(states(&found)[1], State::Good);
    let rows = crate::table::decode(&blocks(), LIMIT).unwrap();
    let trusted = found.region.iter().filter(|&&region| region > 0).count();
    let first = found.keys.ends.len() - trusted;
    for (at, key) in (rows.keys.ends.len() - trusted..).zip(first..found.keys.ends.len()) {
        assert_eq!(found.keys.rows().get(key), rows.keys.rows().get(at));
        assert_eq!(found.values.rows().get(key), rows.values.rows().get(at));
    }
    assert!(trusted > 1000);
}

#[test]
fn blocks_are_found_without_the_index_block() {
    let index = blocks();
    let rows = crate::table::decode(&index, LIMIT).unwrap();
    for cut in [index.len() - 48, index.len() - 60, index.len() - 8] {
        let found = read(&index[..cut], LIMIT);
        assert_eq!(found.keys, rows.keys, "{:?}", found.regions);
        assert_eq!(found.values, rows.values);
        assert_eq!(found.complete, cut != index.len() - 60);
    }
    let mut damaged = index.clone();
    let at = index.len() - 70;
    damaged[at..at + 9].fill(0xff);
    let found = read(&damaged, LIMIT);
    assert_eq!(found.keys, rows.keys);
    assert!(states(&found).contains(&State::Directory), "{:?}", found.regions);
    assert!(!states(&found).contains(&State::Lost), "{:?}", found.regions);
}

#[test]
fn blocks_behind_a_bad_one_are_found_without_the_index_block() {
    let mut index = blocks();
    let length = index.len();
    // The end of the first block is damaged as well: only the end of the second tells where it is.
    let first = found_range(&index, 0);
    index[5000..6000].fill(0x55);
    index[first - 30..first].fill(0x99);
    let found = read(&index[..length - 48], LIMIT);
    assert_eq!(found.regions[1].state, State::Good, "{:?}", found.regions);
    assert_eq!(found.regions[1].start, first);
}

fn found_range(index: &[u8], number: usize) -> usize {
    read(index, LIMIT).regions[number].end
}

#[test]
fn nothing_is_claimed_of_garbage() {
    for garbage in [vec![], vec![0; 100], vec![0xff; 5000], b"text ".repeat(1000)] {
        let found = read(&garbage, LIMIT);
        assert!(found.regions.iter().all(|region| region.state != State::Good));
    }
    assert_eq!(read(&blocks(), 100).keys.ends.len(), 0);
}

#[test]
fn registers_run_backward() {
    let bytes = b"everything that there is";
    let mut register = u32::MAX;
    for &byte in bytes {
        let next = forward(register, byte);
        assert_eq!(crc::backward(next, byte), register);
        assert_eq!(crc::between(register, next), Some(byte));
        register = next;
    }
    assert_eq!(!register, crc::crc32c(bytes));
    assert_eq!(crc::between(0, 0xdead_beef), None);
}
