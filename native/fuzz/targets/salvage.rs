//! Damaged tables: nothing is invented, and what a sound table holds is all found.

#![no_main]

use ckptkit_codec::rows::Column;
use ckptkit_codec::salvage::{self, State};
use ckptkit_codec::{entry, table};
use ckptkit_fuzz::{LIMIT, split};
use libfuzzer_sys::fuzz_target;

fn check(table: &[u8]) -> salvage::Salvaged {
    let found = salvage::read(table, LIMIT);
    let held = found.keys.data.len() + found.values.data.len();
    assert!(held as u64 <= LIMIT);
    assert_eq!(found.keys.ends.len(), found.values.ends.len());
    assert_eq!(found.keys.ends.len(), found.region.len());
    for &region in &found.region {
        let region = &found.regions[usize::try_from(region).expect("a number of a region")];
        assert!(!matches!(region.state, State::Lost | State::Directory));
    }
    for region in &found.regions {
        assert!(region.start <= region.end && region.end <= table.len());
    }
    let (columns, wrong) = entry::read(found.values.rows());
    assert_eq!(columns.dtype.len(), found.region.len());
    assert!(wrong.len() <= columns.dtype.len());
    found
}

fuzz_target!(|data: &[u8]| {
    let found = check(data);
    if let Ok(rows) = table::decode(data, LIMIT) {
        // Bytes in no block may hold more, so that these are all there, in order.
        let mut all = found.keys.rows().iter().zip(found.values.rows().iter());
        let mut wanted = rows.keys.rows().iter().zip(rows.values.rows().iter());
        assert!(wanted.all(|row| all.any(|other| row == other)));
    }
    // A table of the input's lines, with a few of its bytes changed.
    let (at, rest) = split(data);
    let mut lines: Vec<&[u8]> = rest.split(|&byte| byte == b'\n').collect();
    lines.sort_unstable();
    lines.dedup();
    let (mut keys, mut values) = (Column::default(), Column::default());
    for line in lines {
        keys.push(line);
        values.push(line);
    }
    let mut index = table::encode(keys.rows(), values.rows()).expect("keys rise");
    let at = usize::try_from(at).unwrap_or_default() % index.len();
    index[at] ^= 0x15;
    check(&index);
    index.truncate(at);
    check(&index);
});
