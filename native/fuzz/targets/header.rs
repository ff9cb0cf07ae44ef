//! Headers: a splice changes the number of data files and nothing else.

#![no_main]

use ckptkit_codec::header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let spliced = header::splice(data, 77);
    if let Ok(before) = header::decode(data) {
        let after = header::decode(&spliced.expect("it was decoded")).expect("it was spliced");
        assert_eq!(after, header::Header { shards: 77, ..before });
    }
});
