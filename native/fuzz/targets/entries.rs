//! Entry records: what decodes must still decode after its place was replaced.

#![no_main]

use ckptkit_codec::entry::{self, Places};
use ckptkit_codec::record;
use ckptkit_codec::rows::Rows;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let ends = [i64::try_from(data.len()).expect("inputs are small")];
    let rows = Rows::new(data, &ends).expect("one row");
    let decoded = entry::decode(rows, 0);
    let slices = record::slices(data);
    let _ = record::respec(data, 3, &[5]);
    let place = (7, 70_000, 9, 0x0102_0304);
    let places = Places { rows: &[0], shard: &[7], offset: &[70_000], size: &[9], crc: &[place.3] };
    let spliced = entry::encode(rows, places);
    if let Ok(before) = decoded {
        let spliced = spliced.expect("it was decoded");
        let after = entry::decode(spliced.rows(), 0).expect("it was spliced");
        assert_eq!((after.shard[0], after.offset[0], after.size[0], after.crc[0]), place);
        assert_eq!((after.dtype, &after.dims), (before.dtype, &before.dims));
        assert_eq!(record::slices(&spliced.data), slices);
        let respecced = record::respec(data, 3, &[5]).expect("it was decoded");
        let mut dims = Vec::new();
        let scalars = record::decode(&respecced, 0, &mut dims).expect("it was respecced");
        assert_eq!((scalars.dtype, dims.as_slice()), (3, [5].as_slice()));
    }
});
