//! Zip headers: what decodes stays within what was given.

#![no_main]

use ckptkit_codec::zip;
use ckptkit_fuzz::split;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, data) = split(data);
    let size = data.len() as u64;
    for ahead in [0, number] {
        if let Ok(found) = zip::end(data, size + ahead) {
            assert!(found.offset + found.length <= size + ahead - 22);
            assert!(found.count * 46 <= found.length);
            let place = |at: u64| usize::try_from(at - ahead).expect("a place in the data");
            if found.offset >= ahead {
                let bytes = &data[place(found.offset)..place(found.offset + found.length)];
                records(bytes, found.count);
            }
        }
    }
    records(data, number);
    if let Ok(found) = zip::local(data) {
        assert!(found.length >= 30 + found.name.len());
        let rest = &data[found.length..];
        if let Ok((at, length)) = zip::descriptor(rest, found.crc, found.compressed, found.size) {
            assert_eq!(rest[at..at + 4], found.crc.to_le_bytes());
            assert!(length <= rest.len());
        }
    }
});

fn records(data: &[u8], count: u64) {
    if let Ok(found) = zip::directory(data, count) {
        assert_eq!(found.len() as u64, count);
        assert_eq!(found.iter().map(|record| record.length).sum::<usize>(), data.len());
    }
}
