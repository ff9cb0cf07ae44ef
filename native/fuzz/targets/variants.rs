//! Variant payloads: what decodes is what the encoder makes of the same messages.

#![no_main]

use ckptkit_codec::rows::Column;
use ckptkit_codec::variants;
use ckptkit_fuzz::split;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (count, data) = split(data);
    if let Ok(found) = variants::decode(data, count) {
        let mut column = Column::default();
        for pair in found.ranges.chunks(2) {
            let at = |index: usize| usize::try_from(pair[index]).expect("never negative");
            column.push(&data[at(0)..at(1)]);
        }
        assert_eq!(variants::encode(column.rows()), (data.to_vec(), found.crc));
    }
});
