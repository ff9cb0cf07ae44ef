//! Tables: what decodes must encode to something that decodes to the same.
//!
//! Checksums are repaired first: a fuzzer does not find them by itself, and would stop there.

#![no_main]

use ckptkit_codec::block::{Handle, TRAILER};
use ckptkit_codec::varint::Cursor;
use ckptkit_codec::{crc, table};
use ckptkit_fuzz::LIMIT;
use libfuzzer_sys::fuzz_target;

const FOOTER: usize = 48;

/// Gives the block at `handle` the checksum that its bytes have.
fn repair(data: &mut [u8], handle: Handle) -> Option<()> {
    let range = handle.range(data.len().checked_sub(FOOTER)?)?;
    let block = data.get_mut(range)?;
    let (covered, checksum) = block.split_last_chunk_mut::<4>()?;
    *checksum = crc::mask(crc::crc32c(covered)).to_le_bytes();
    Some(())
}

fn repair_all(data: &mut [u8]) -> Option<()> {
    let start = data.len().checked_sub(FOOTER)?;
    let footer = data.get(start..)?.to_vec();
    let mut cursor = Cursor::new(&footer, 0);
    let _metaindex = Handle::decode(&mut cursor).ok()?;
    let index = Handle::decode(&mut cursor).ok()?;
    // Anything that reads like a handle in the index block may be one: repair what it points to.
    let body = data.get(index.range(start)?)?.to_vec();
    let body = body.get(..body.len() - TRAILER)?;
    for at in 0..body.len().min(256) {
        if let Ok(handle) = Handle::decode(&mut Cursor::new(body.get(at..)?, 0))
            && handle.size < 1 << 16
            && handle.offset != index.offset
        {
            repair(data, handle);
        }
    }
    repair(data, index)
}

fuzz_target!(|data: &[u8]| {
    let _ = (table::decode(data, LIMIT), table::warnings(data));
    let mut repaired = data.to_vec();
    repair_all(&mut repaired);
    let _ = table::warnings(&repaired);
    if let Ok(rows) = table::decode(&repaired, LIMIT) {
        let encoded = table::encode(rows.keys.rows(), rows.values.rows()).expect("it was decoded");
        let again = table::decode(&encoded, LIMIT).expect("it was encoded");
        assert_eq!((rows.keys, rows.values), (again.keys, again.values));
    }
});
