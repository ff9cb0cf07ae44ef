//! Slice keys: only what the encoder makes is accepted.

#![no_main]

use ckptkit_codec::ordered;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((name, slices)) = ordered::decode(data) {
        assert_eq!(ordered::encode(&name, &slices).expect("it was decoded"), data);
    }
});
