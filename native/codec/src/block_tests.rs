//! Tests of single blocks; a file of their own, as those of tables.

use super::*;

fn open(body: &[u8]) -> Vec<u8> {
    let mut stored = body.to_vec();
    stored.push(RAW);
    let checksum = crc::mask(crc::crc32c(&stored));
    stored.extend_from_slice(&checksum.to_le_bytes());
    stored
}

fn decode(body: &[u8]) -> Result<Entries, DecodeError> {
    let stored = open(body);
    let mut rows = Entries::default();
    Body::open(&stored, 100, 1 << 20)?.decode(&mut rows, 1 << 20)?;
    Ok(rows)
}

#[test]
fn empty_block_is_eight_bytes() {
    let mut out = Vec::new();
    let handle = Builder::new(16).finish(&mut out);
    assert_eq!(handle, Handle { offset: 0, size: 8 });
    assert_eq!(out, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0xc0, 0xf2, 0xa1, 0xb0]);
    assert_eq!(decode(&out[..8]).unwrap(), Entries::default());
}

#[test]
fn round_trip_with_restarts() {
    let keys: Vec<Vec<u8>> = (100..150).map(|i| format!("key{i}").into_bytes()).collect();
    let (mut builder, mut previous) = (Builder::new(16), Vec::new());
    for key in &keys {
        builder.add(&previous, key, b"v");
        previous.clone_from(key);
    }
    let mut out = Vec::new();
    let handle = builder.finish(&mut out);
    let rows = decode(&out[..usize::try_from(handle.size).unwrap()]).unwrap();
    let found: Vec<&[u8]> = rows.keys.rows().iter().collect();
    assert_eq!(found, keys.iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(rows.values.data, vec![b'v'; 50]);
}

fn fails(body: &[u8], kind: Kind, offset: usize, text: &str) {
    let error = decode(body).unwrap_err();
    assert_eq!((error.kind, error.offset), (kind, offset), "{}", error.message);
    assert!(error.message.contains(text), "{}", error.message);
}

const ONE: &[u8] = &[0, 1, 1, b'a', b'x'];
const TWO: &[u8] = &[0, 1, 0, b'b'];

fn body(entries: &[&[u8]], restarts: &[u32]) -> Vec<u8> {
    let mut body = entries.concat();
    for word in restarts {
        body.extend_from_slice(&word.to_le_bytes());
    }
    body
}

#[test]
fn restarts_are_validated() {
    assert!(decode(&body(&[ONE, TWO], &[0, 5, 2])).is_ok());
    fails(&body(&[ONE], &[0]), Kind::Bounds, 105, "0 restarts");
    fails(&body(&[ONE], &[0, u32::MAX]), Kind::Bounds, 109, "4294967295 restarts");
    fails(&body(&[ONE], &[1, 1]), Kind::Bounds, 105, "restart 0 points to 1");
    fails(&body(&[ONE, TWO], &[0, 3, 2]), Kind::Bounds, 113, "restart 1 points to 3");
    fails(&body(&[ONE], &[0, 900, 2]), Kind::Bounds, 109, "beyond the entries, which end at 5");
    fails(&body(&[ONE, TWO], &[0, 0, 2]), Kind::Bounds, 113, "where no entry starts");
    fails(&body(&[], &[0, 0, 2]), Kind::Bounds, 104, "restart 1");
    fails(&body(&[ONE, &[1, 1, 0, b'b']], &[0, 5, 2]), Kind::Order, 105, "shares 1");
    fails(&[0, 0], Kind::Truncated, 100, "shorter than 4");
}

#[test]
fn entries_are_validated() {
    fails(&body(&[&[0, 9, 0, b'a']], &[0, 1]), Kind::Truncated, 103, "key needs 9");
    fails(&body(&[&[0, 1, 9, b'a']], &[0, 1]), Kind::Truncated, 104, "value needs 9");
    let huge = [0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0xff, 0x0f, b'a'];
    fails(&body(&[&huge], &[0, 1]), Kind::Truncated, 111, "key needs 4294967295");
    fails(&body(&[ONE, &[2, 1, 0, b'b']], &[0, 1]), Kind::Bounds, 105, "a key of 1");
    fails(&body(&[ONE, ONE], &[0, 1]), Kind::Order, 105, "not greater");
    fails(&body(&[TWO, ONE], &[0, 1]), Kind::Order, 104, "not greater");
    fails(&body(&[ONE, &[0x80]], &[0, 1]), Kind::Truncated, 105, "within a varint");
}

#[test]
fn first_entry_of_a_block_shares_nothing() {
    let mut rows = Entries::default();
    let first = open(&body(&[ONE], &[0, 1]));
    Body::open(&first, 0, 99).unwrap().decode(&mut rows, 99).unwrap();
    rows.start_block();
    let second = open(&body(&[&[1, 1, 0, b'b']], &[0, 1]));
    let error = Body::open(&second, 0, 99).unwrap().decode(&mut rows, 99).unwrap_err();
    assert!(error.message.contains("shares 1"), "{}", error.message);
}

#[test]
fn trailer_is_validated() {
    let mut stored = open(&body(&[ONE], &[0, 1]));
    let kind = |stored: &[u8]| Body::open(stored, 0, 99).unwrap_err().kind;
    stored[3] ^= 1;
    assert_eq!(kind(&stored), Kind::Checksum);
    assert_eq!(kind(&stored[..3]), Kind::Truncated);
    let mut other = vec![2];
    other.extend_from_slice(&crc::mask(crc::crc32c(&[2])).to_le_bytes());
    assert_eq!(kind(&other), Kind::Unsupported);
}

#[test]
fn limit_is_checked_before_growing() {
    let stored = open(&body(&[ONE, TWO], &[0, 1]));
    let mut rows = Entries::default();
    let error = Body::open(&stored, 0, 99).unwrap().decode(&mut rows, 2).unwrap_err();
    assert_eq!(error.kind, Kind::Limit);
}
