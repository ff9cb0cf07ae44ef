//! Tests of the table layer; a file of its own because malformed tables take some building.

use super::*;
use crate::crc;
use crate::rows::Column;

const GOLDEN: &str = "\
    00000608011a020801000115610809120812020801120208032008281835e1f28a2a00010f620801120412020802\
    280835593ce53500020f65330807120212002024280435f6c10c640105116d707479300801120612001202080320\
    2435d8ea82a200060d7363616c6172080312002020280435d9c69c430000000001000000002ebc2dbf0000000001\
    00000000c0f2a1b00001037400800100000000010000000058fa401685010892010f000000000000000000000000\
    0000000000000000000000000000000000000000000057fb808b247547db";

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// The index file of a small checkpoint, as TensorFlow wrote it.
pub fn golden() -> Vec<u8> {
    unhex(GOLDEN)
}

fn columns(entries: &[(&[u8], &[u8])]) -> (Column, Column) {
    let (mut keys, mut values) = (Column::default(), Column::default());
    for (key, value) in entries {
        keys.push(key);
        values.push(value);
    }
    (keys, values)
}

fn write(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let (keys, values) = columns(entries);
    encode(keys.rows(), values.rows()).unwrap()
}

/// A table of raw block bodies; `index` gets the handles and makes the index body.
fn assemble(bodies: &[Vec<u8>], index: impl Fn(&[Handle]) -> Vec<(Vec<u8>, Handle)>) -> Vec<u8> {
    let mut out = Vec::new();
    let seal = |body: &[u8], out: &mut Vec<u8>| {
        let handle = Handle { offset: out.len() as u64, size: body.len() as u64 };
        let mut stored = body.to_vec();
        stored.push(0);
        let checksum = crc::mask(crc::crc32c(&stored));
        stored.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&stored);
        handle
    };
    let handles: Vec<Handle> = bodies.iter().map(|body| seal(body, &mut out)).collect();
    let mut builder = Builder::new(1);
    for (key, handle) in index(&handles) {
        let mut value = Vec::new();
        handle.encode(&mut value);
        builder.add(&[], &key, &value);
    }
    let metaindex = Builder::new(16).finish(&mut out);
    let index = builder.finish(&mut out);
    let end = out.len() + HANDLES;
    metaindex.encode(&mut out);
    index.encode(&mut out);
    out.resize(end, 0);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out
}

fn block(keys: &[&[u8]]) -> Vec<u8> {
    let (mut builder, mut previous): (_, &[u8]) = (Builder::new(16), b"");
    for key in keys {
        builder.add(previous, key, b"");
        previous = key;
    }
    let mut out = Vec::new();
    let handle = builder.finish(&mut out);
    out.truncate(usize::try_from(handle.size).unwrap());
    out
}

fn fails(table: &[u8], kind: Kind, text: &str) {
    let error = decode(table, 1 << 24).unwrap_err();
    assert_eq!(error.kind, kind, "{}", error.message);
    assert!(error.message.contains(text), "{}", error.message);
}

#[test]
fn golden_table_round_trips() {
    let rows = decode(&golden(), 1 << 20).unwrap();
    let keys: Vec<&[u8]> = rows.keys.rows().iter().collect();
    assert_eq!(keys, [b"".as_slice(), b"a", b"b", b"e3", b"empty0", b"scalar"]);
    assert_eq!(encode(rows.keys.rows(), rows.values.rows()).unwrap(), golden());
    assert_eq!(warnings(&golden()).unwrap(), []);
}

#[test]
fn empty_table_round_trips() {
    let table = write(&[]);
    assert_eq!(table.len(), 13 + 13 + 48);
    assert_eq!(decode(&table, 0).unwrap(), Entries::default());
}

#[test]
fn large_entries_get_their_own_block() {
    let large = vec![7; LARGE_ENTRY];
    let table = write(&[(b"a", b"1"), (b"b", &large), (b"c", b"2")]);
    let footer = footer(&table).unwrap();
    let index = index(&table, &footer, 1 << 30).unwrap();
    assert_eq!(index.handles.len(), 3);
    assert_eq!(decode(&table, 1 << 30).unwrap().keys.data, b"abc");
}

#[test]
fn many_blocks_round_trip() {
    let names: Vec<Vec<u8>> = (0..4000).map(|i| format!("v/{i:05}").into_bytes()).collect();
    let value = vec![1; 300];
    let entries: Vec<(&[u8], &[u8])> =
        names.iter().map(|name| (name.as_slice(), value.as_slice())).collect();
    let table = write(&entries);
    let rows = decode(&table, 1 << 24).unwrap();
    assert_eq!(encode(rows.keys.rows(), rows.values.rows()).unwrap(), table);
}

#[test]
fn separators_and_successors() {
    let separate = |a: &[u8], b: &[u8]| {
        let mut out = Vec::new();
        separator(a, b, &mut out);
        out
    };
    assert_eq!(separate(b"x/04914", b"x/04915"), b"x/04914");
    assert_eq!(separate(b"abc", b"axe"), b"ac");
    assert_eq!(separate(b"ab", b"abc"), b"ab");
    assert_eq!(separate(b"a\xff", b"b"), b"a\xff");
    let succeed = |a: &[u8]| {
        let mut out = Vec::new();
        successor(a, &mut out);
        out
    };
    assert_eq!(succeed(b"scalar"), b"t");
    assert_eq!(succeed(b"\xff\xff"), b"\xff\xff");
    assert_eq!(succeed(b"\xffa1"), b"\xffb");
}

#[test]
fn encode_refuses_bad_columns() {
    let (keys, values) = columns(&[(b"b", b""), (b"a", b"")]);
    assert!(encode(keys.rows(), values.rows()).is_err());
    let (keys, values) = columns(&[(b"a", b""), (b"a", b"")]);
    assert!(encode(keys.rows(), values.rows()).is_err());
    assert!(encode(keys.rows(), Rows::new(b"", &[]).unwrap()).is_err());
}

#[test]
fn footer_is_validated() {
    fails(&golden()[..47], Kind::Truncated, "shorter than its footer");
    fails(&golden()[1..], Kind::Bounds, "passes");
    let mut table = golden();
    *table.last_mut().unwrap() ^= 1;
    fails(&table, Kind::Unsupported, "magic");
    let mut table = golden();
    table[169..174].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x7f]);
    fails(&table, Kind::Bounds, "passes");
}

#[test]
fn checksums_are_validated() {
    let mut table = golden();
    table[20] ^= 1;
    fails(&table, Kind::Checksum, "block checksum mismatch");
    let mut table = golden();
    table[150] ^= 1;
    fails(&table, Kind::Checksum, "block checksum mismatch");
}

#[test]
fn index_is_validated() {
    let bodies = [block(&[b"a", b"c"]), block(&[b"e", b"f"])];
    let good = assemble(&bodies, |h| vec![(b"d".into(), h[0]), (b"g".into(), h[1])]);
    assert!(decode(&good, 100).is_ok());
    let early = assemble(&bodies, |h| vec![(b"b".into(), h[0]), (b"g".into(), h[1])]);
    fails(&early, Kind::Order, "separator of the block is less");
    let late = assemble(&bodies, |h| vec![(b"e".into(), h[0]), (b"g".into(), h[1])]);
    fails(&late, Kind::Order, "first key of the block");
    let twice = assemble(&bodies, |h| vec![(b"d".into(), h[0]), (b"g".into(), h[0])]);
    fails(&twice, Kind::Order, "starts before");
    let beyond = |h: &[Handle]| vec![(b"d".to_vec(), Handle { offset: 1 << 62, ..h[0] })];
    fails(&assemble(&bodies, beyond), Kind::Bounds, "passes");
    let sparse = |h: &[Handle]| vec![(b"d".to_vec(), Handle { size: 1 << 34, ..h[0] })];
    fails(&assemble(&bodies, sparse), Kind::Bounds, "passes");
    let empty = assemble(&[block(&[])], |h| vec![(b"d".into(), h[0])]);
    fails(&empty, Kind::Value, "no entry");
    let swapped = [block(&[b"e"]), block(&[b"a"])];
    let swapped = assemble(&swapped, |h| vec![(b"f".into(), h[0]), (b"g".into(), h[1])]);
    fails(&swapped, Kind::Order, "");
}

#[test]
fn limit_is_exact() {
    let table = write(&[(b"a", b"12"), (b"b", b"345")]);
    assert!(decode(&table, 7).is_ok());
    assert_eq!(decode(&table, 6).unwrap_err().kind, Kind::Limit);
}

#[test]
fn warnings_name_what_is_ignored() {
    let texts = |table: &[u8]| -> Vec<(usize, String)> { warnings(table).unwrap() };
    let mut table = golden();
    table[180] = 1;
    assert_eq!(texts(&table), [(172, "footer padding is not zero".to_owned())]);
    let mut table = golden();
    table[134] ^= 1;
    let found = texts(&table);
    assert_eq!(found.len(), 1);
    assert!(found[0].1.starts_with("metaindex: block checksum mismatch"), "{found:?}");
    let bodies = [block(&[b"a"]), block(&[b"b"])];
    let gap = assemble(&bodies, |h| vec![(b"c".into(), h[1])]);
    assert_eq!(texts(&gap), [(0, format!("{} bytes in no block", bodies[0].len() + 5))]);
}

#[test]
fn no_truncation_or_flip_panics() {
    let table = golden();
    for end in 0..table.len() {
        assert!(decode(&table[..end], 1 << 20).is_err());
    }
    for at in 0..table.len() {
        for bit in 0..8 {
            let mut bad = table.clone();
            bad[at] ^= 1 << bit;
            let _ = (decode(&bad, 1 << 20), warnings(&bad));
        }
    }
}
