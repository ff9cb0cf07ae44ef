//! Values in protobuf messages: a message in parts gives what it gives as a whole.

#![no_main]

use ckptkit_codec::packed::{self, Form};
use ckptkit_fuzz::split;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, data) = split(data);
    let limit = number >> 4;
    let (kind, width) = [("int", 1), ("int", 2), ("int", 4), ("int", 8), ("uint", 1), ("uint", 2)]
        .get(usize::try_from(number & 7).unwrap_or(0))
        .copied()
        .unwrap_or(("bool", 1));
    let form = Form::new(kind, width).expect("there is such a form");
    let cut = data.len() / 2;

    if let Ok((used, skipped)) = packed::skip(data, limit) {
        let (first, some) = packed::skip(&data[..cut], limit).expect("the whole was");
        let (second, rest) = packed::skip(&data[first..], limit - some).expect("the whole was");
        assert_eq!((first + second, some + rest), (used, skipped));
    }
    if let Ok((used, out)) = packed::decode(data, limit, form) {
        let (skipped, count) = packed::skip(data, limit).expect("it was decoded");
        assert_eq!((skipped, count * width as u64), (used, out.len() as u64));
        let (first, some) = packed::decode(&data[..cut], limit, form).expect("the whole was");
        let left = limit - (some.len() / width) as u64;
        let (second, rest) = packed::decode(&data[first..], left, form).expect("the whole was");
        assert_eq!((first + second, [some, rest].concat()), (used, out));
    }
    if let Ok((next, found)) = packed::strings(data, 0x42, limit) {
        assert!(found.len() as u64 <= 2 * limit);
        let last = found.chunks_exact(2).last().map_or(0, |pair| pair[0] + pair[1]);
        assert_eq!(last, next);
        let starts = found.chunks_exact(2).map(|pair| pair[0]);
        assert!(starts.clone().zip(starts.skip(1)).all(|(one, other)| one < other));
    }
});
