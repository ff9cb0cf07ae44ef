//! String payloads: scanning in parts agrees with scanning at once, decoding with encoding.

#![no_main]

use ckptkit_codec::strings;
use ckptkit_fuzz::split;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, data) = split(data);
    let (count, big_endian) = (number >> 1, number & 1 == 1);
    let whole = strings::scan(data, count, 0, big_endian);
    if let Ok(whole) = whole {
        let cut = whole.consumed / 2;
        let first = strings::scan(&data[..cut], count, 0, big_endian).expect("the whole was");
        let rest = &data[first.consumed..];
        let second = strings::scan(rest, count - first.parsed, first.crc, big_endian);
        let second = second.expect("the whole was");
        assert_eq!(first.consumed + second.consumed, whole.consumed);
        assert_eq!((first.payload + second.payload, second.crc), (whole.payload, whole.crc));
        // Give the lengths their checksum, so that decoding comes past it.
        let mut repaired = data[..whole.consumed].to_vec();
        let stored = ckptkit_codec::crc::mask(whole.crc);
        let stored = if big_endian { stored.to_be_bytes() } else { stored.to_le_bytes() };
        repaired.extend_from_slice(&stored);
        repaired.extend_from_slice(&data[whole.consumed..]);
        let _ = strings::decode(&repaired, whole.parsed, big_endian);
    }
    if let Ok(found) = strings::decode(data, count, big_endian) {
        let lengths = strings::lengths(&found.ends);
        let (header, _) = strings::encode(&lengths, big_endian).expect("it was decoded");
        assert_eq!(header, data[..found.header]);
    }
});
