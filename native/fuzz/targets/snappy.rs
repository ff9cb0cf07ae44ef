//! Snappy blocks: no more than the limit comes out.

#![no_main]

use ckptkit_codec::snappy;
use ckptkit_fuzz::LIMIT;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(found) = snappy::decompress(data, LIMIT) {
        assert!(found.len() as u64 <= LIMIT);
    }
});
