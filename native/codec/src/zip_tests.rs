//! Tests of zip headers, forged byte by byte.

use super::*;

/// What headers have in common, of an empty member.
fn fields(name: &[u8], extra: &[u8], sizes: [u32; 2]) -> Vec<u8> {
    let mut out = vec![20, 0, 0, 8, 0, 0, 1, 2, 33, 0, 9, 0, 0, 0];
    out.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
    for length in [name.len(), extra.len()] {
        out.extend(u16::try_from(length).unwrap().to_le_bytes());
    }
    out
}

fn local_of(name: &[u8], extra: &[u8], sizes: [u32; 2]) -> Vec<u8> {
    [&LOCAL, fields(name, extra, sizes).as_slice(), name, extra].concat()
}

fn record_of(name: &[u8], extra: &[u8], sizes: [u32; 2], disk: u16, header: u32) -> Vec<u8> {
    let (disk, header) = (disk.to_le_bytes(), header.to_le_bytes());
    let fields = fields(name, extra, sizes);
    let rest: &[&[u8]] = &[&[2, 0], &disk, &[0; 6], &header, name, extra, b"cc"];
    [RECORD.as_slice(), &[63, 3], &fields, &rest.concat()].concat()
}

fn end_of(count: u16, length: u32, offset: u32, comment: &[u8]) -> Vec<u8> {
    let count = count.to_le_bytes();
    let (length, offset) = (length.to_le_bytes(), offset.to_le_bytes());
    let size = u16::try_from(comment.len()).unwrap().to_le_bytes();
    let parts: &[&[u8]] = &[&END, &[0; 4], &count, &count, &length, &offset, &size, comment];
    parts.concat()
}

fn wide_end_of(count: u64, length: u64, offset: u64) -> Vec<u8> {
    let mut out = [&WIDE_END, 44_u64.to_le_bytes().as_slice(), &[45, 0, 45, 0], &[0; 8]].concat();
    out.extend([count, count, length, offset].iter().flat_map(|n| n.to_le_bytes()));
    out.extend([&LOCATOR, [0; 4].as_slice()].concat());
    out.extend((length + offset).to_le_bytes());
    out.extend([1, 0, 0, 0]);
    out
}

fn message(found: Result<End<'_>, Error>) -> String {
    match found.unwrap_err() {
        Error::Decode(error) => error.message,
        Error::Range(error) => error.0,
    }
}

#[test]
fn ends() {
    let tail = [vec![7; 50], end_of(1, 46, 4, b"PK\x05")].concat();
    let found = end(&tail, tail.len() as u64).unwrap();
    let expected = End { count: 1, offset: 4, length: 46, whole: true, comment: b"PK\x05" };
    assert_eq!(found, expected);
    // The same in a longer file, of which only the tail is there.
    let tail = [vec![7; 50], end_of(1, 46, 1004, b"")].concat();
    assert_eq!(end(&tail, 1000 + tail.len() as u64).unwrap().offset, 1004);
    assert!(message(end(&tail, 5)).contains("a tail"));
}

#[test]
fn ends_that_contradict_themselves() {
    let at = |tail: &[u8]| message(end(tail, tail.len() as u64));
    assert!(at(b"").contains("no end record"));
    assert!(at(&end_of(0, 0, 0, b"")[..21]).contains("no end record"));
    assert!(at(&end_of(0, 0, 1, b"")).contains("should end at 0"));
    assert!(at(&end_of(0, u32::MAX, u32::MAX, b"")).contains("should end at 0"));
    assert!(at(&[end_of(0, 0, 0, b"").as_slice(), b"x"].concat()).contains("1 bytes follow"));
    assert!(at(&[vec![0; 45], end_of(1, 45, 0, b"")].concat()).contains("1 members need"));
    let two = [end_of(0, 0, 0, b""), end_of(0, 22, 0, b"")].concat();
    assert_eq!(end(&two, two.len() as u64).unwrap().length, 22);
}

#[test]
fn wide_ends() {
    let sound = |narrow: Vec<u8>| [vec![0; 46], wide_end_of(1, 46, 0), narrow].concat();
    let at = |tail: &[u8]| message(end(tail, tail.len() as u64));
    for narrow in [end_of(1, 46, 0, b"c"), end_of(u16::MAX, u32::MAX, u32::MAX, b"")] {
        let tail = sound(narrow);
        let found = end(&tail, tail.len() as u64).unwrap();
        assert_eq!((found.count, found.length, found.offset), (1, 46, 0));
        assert!(found.whole);
    }
    assert!(at(&sound(end_of(2, 46, 0, b""))).contains("says 2 records"));
    assert!(at(&sound(end_of(1, 47, 0, b""))).contains("says 47 bytes"));
    assert!(at(&sound(end_of(1, 46, 1, b""))).contains("says 1 as the offset"));
    let sound = sound(end_of(1, 46, 0, b""));
    for (place, expected) in [(46, "no zip64 end"), (50, "goes on"), (110, "no zip64 end")] {
        let mut bad = sound.clone();
        bad[place] ^= 1;
        assert!(at(&bad).contains(expected), "{}", at(&bad));
    }
    for place in [62, 66, 70, 106, 118] {
        let mut bad = sound.clone();
        bad[place] ^= 4;
        assert!(!end(&bad, bad.len() as u64).unwrap().whole);
    }
}

#[test]
fn directories() {
    let wide: Vec<u8> = [5_u64, 6, 1 << 40].iter().flat_map(|n| n.to_le_bytes()).collect();
    let extra = [b"\xfe\xca\x01\0x\x01\0\x1c\0".as_slice(), &wide, &[0; 4], b"pad"].concat();
    let full = record_of(b"a", &extra, [u32::MAX; 2], u16::MAX, u32::MAX);
    let data = [full.as_slice(), &record_of(b"bc", b"", [1, 2], 0, 3)].concat();
    let found = directory(&data, 2).unwrap();
    let numbers = |r: &Record<'_>| (r.size, r.compressed, r.header, r.length);
    assert_eq!(numbers(&found[0]), (5, 6, 1 << 40, full.len()));
    assert_eq!(numbers(&found[1]), (2, 1, 3, 50));
    assert_eq!((found[1].name, found[1].made, found[1].flags), (b"bc".as_slice(), 0x33f, 2048));
    assert_eq!((found[1].crc, found[1].time), (9, 0x0021_0201));
    assert_eq!(directory(&data, 1).unwrap_err().kind, Kind::Bounds);
    assert_eq!(directory(&data, 3).unwrap_err().kind, Kind::Truncated);
    assert_eq!(directory(&data, u64::MAX).unwrap_err().kind, Kind::Bounds);
    assert_eq!(directory(&data[1..], 2).unwrap_err().kind, Kind::Unsupported);
    assert_eq!(directory(&data[..data.len() - 1], 2).unwrap_err().kind, Kind::Truncated);
}

#[test]
fn extras_that_mislead() {
    let size = |extra: &[u8], size| {
        let data = record_of(b"a", extra, [0, size], 0, 0);
        directory(&data, 1).map(|found| found[0].size).map_err(|error| error.kind)
    };
    let wide = b"\x01\0\x08\0\x05\0\0\0\0\0\0\0";
    assert_eq!(size(wide, u32::MAX), Ok(5));
    assert_eq!(size(wide, 1), Ok(1));
    assert_eq!(size(b"", u32::MAX), Err(Kind::Value));
    assert_eq!(size(b"\x01\0\x04\0\x05\0\0\0", u32::MAX), Err(Kind::Truncated));
    assert_eq!(size(b"\x02\0\x05\0abcd", 0), Err(Kind::Truncated));
    assert_eq!(size(&[wide.as_slice(), wide].concat(), 0), Err(Kind::Value));
    assert_eq!(size(b"\x75\x70\x06\0\x01\0\0\0\0b", 0), Err(Kind::Value));
    assert_eq!(size(b"\x75\x70\x01\0\x01", 0), Err(Kind::Value));
    assert_eq!(size(b"\x75\x70\x06\0\x01\0\0\0\0a", 0), Ok(0));
    let elsewhere = record_of(b"a", b"", [0, 0], 1, 0);
    assert_eq!(directory(&elsewhere, 1).unwrap_err().kind, Kind::Unsupported);
}

#[test]
fn local_headers() {
    let data = [local_of(b"abc", b"", [1, 1]).as_slice(), b"contents"].concat();
    let found = local(&data).unwrap();
    assert_eq!((found.name, found.length, found.wide), (b"abc".as_slice(), 33, false));
    assert_eq!((found.needed, found.method, found.crc), (20, 0, 9));
    let wide = b"\x01\0\x10\0\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0";
    let data = local_of(b"abc", wide, [u32::MAX; 2]);
    let found = local(&data).unwrap();
    assert_eq!((found.size, found.compressed, found.wide), (5, 6, true));
    for length in 0..data.len() {
        assert_eq!(local(&data[..length]).unwrap_err().kind, Kind::Truncated);
    }
    assert_eq!(local(&data[1..]).unwrap_err().kind, Kind::Unsupported);
}

#[test]
fn descriptors_of_four_forms() {
    let narrow = [7_u32, 5, 6].map(u32::to_le_bytes).concat();
    let wide = [&narrow[..4], &5_u64.to_le_bytes(), &6_u64.to_le_bytes()].concat();
    for (form, length) in [(narrow, 12), (wide, 20)] {
        let marked = [&DESCRIPTOR, form.as_slice(), b"PK"].concat();
        assert_eq!(descriptor(&form, 7, 5, 6).unwrap(), (0, length));
        assert_eq!(descriptor(&marked, 7, 5, 6).unwrap(), (4, length + 4));
        assert!(descriptor(&form[..length - 1], 7, 5, 6).is_err());
        assert!(descriptor(&form, 8, 5, 6).is_err());
        assert!(descriptor(&form, 7, 5, 6 | 1 << 32).is_err());
    }
}
