//! `BundleEntryProto`: one tensor, or one slice of a tensor.
//!
//! ```text
//! BundleEntryProto  1 dtype enum | 2 shape TensorShapeProto | 3 shard_id int32 | 4 offset int64
//!                   5 size int64 | 6 crc32c fixed32, masked | 7 slices TensorSliceProto*
//! TensorShapeProto  2 dim Dim* | 3 unknown_rank bool          Dim     1 size int64 | 2 name
//! TensorSliceProto  1 extent Extent*                          Extent  1 start | 2 length (oneof)
//! ```
//!
//! TensorFlow writes fields in the order of their numbers and omits zeros, but always writes the
//! shape. Scalars that are stored twice count once, the last time; messages stored twice merge.

use crate::error::{DecodeError, Kind, RangeError};
use crate::protobuf::{self, Fields};

/// The most dimensions that a tensor has.
pub const MAX_RANK: usize = 254;

/// Set when an entry lists slices.
pub const HAS_SLICES: u8 = 1;
/// Set when an entry has a checksum field.
pub const HAS_CRC: u8 = 2;
/// Set when an entry has fields, at any depth, that this library does not know.
pub const HAS_UNKNOWN: u8 = 4;

/// A slice along one dimension: start and length, or 0 and -1 for all of it.
pub type Extent = (i64, i64);

/// The scalars of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scalars {
    /// The number of the dtype.
    pub dtype: i32,
    /// The number of the data file.
    pub shard: i32,
    /// Where the tensor starts in that file.
    pub offset: i64,
    /// Its length in that file.
    pub size: i64,
    /// Its checksum as stored, masked; 0 when absent.
    pub crc: u32,
    /// [`HAS_SLICES`], [`HAS_CRC`] and [`HAS_UNKNOWN`].
    pub flags: u8,
}

/// Decodes one entry; its dims are appended to `dims`. `base` is where it starts, for errors.
///
/// # Errors
/// When the message is malformed, a number is negative that cannot be, or the shape is impossible.
pub fn decode(value: &[u8], base: usize, dims: &mut Vec<i64>) -> Result<Scalars, DecodeError> {
    let mut found = Scalars::default();
    let rank = dims.len();
    let mut fields = Fields::new(value, base);
    while let Some(field) = fields.read()? {
        match field.number {
            1 => found.dtype = field.int32()?,
            2 => shape(field.message()?, dims, rank, &mut found.flags)?,
            3 => found.shard = field.int32()?,
            4 => found.offset = field.int64()?,
            5 => found.size = field.int64()?,
            6 => {
                found.crc = field.fixed32()?;
                found.flags |= HAS_CRC;
            }
            7 => {
                found.flags |= HAS_SLICES;
                slice(field.message()?, &mut found.flags, |_| {})?;
            }
            _ => found.flags |= HAS_UNKNOWN,
        }
    }
    let places =
        [("shard", i64::from(found.shard)), ("offset", found.offset), ("size", found.size)];
    if let Some((name, number)) = places.iter().find(|(_, number)| *number < 0) {
        return Err(DecodeError::new(Kind::Value, base, format!("{name} is {number}")));
    }
    if !countable(dims.get(rank..).unwrap_or_default()) {
        return Err(DecodeError::new(Kind::Value, base, "shape has 2^63 elements or more"));
    }
    Ok(found)
}

/// Whether the element count fits 63 bits, dims of 0 left aside, as TensorFlow demands.
fn countable(dims: &[i64]) -> bool {
    dims.iter().try_fold(1i64, |product, &dim| product.checked_mul(dim.max(1))).is_some()
}

fn shape(
    mut fields: Fields<'_>,
    dims: &mut Vec<i64>,
    rank: usize,
    flags: &mut u8,
) -> Result<(), DecodeError> {
    while let Some(field) = fields.read()? {
        match field.number {
            2 => {
                if dims.len() - rank >= MAX_RANK {
                    let message = format!("shape has more than {MAX_RANK} dimensions");
                    return Err(field.error(Kind::Value, message));
                }
                dims.push(dim(field.message()?, flags)?);
            }
            3 if field.int64()? != 0 => {
                return Err(field.error(Kind::Value, "shape has an unknown rank"));
            }
            3 => {}
            _ => *flags |= HAS_UNKNOWN,
        }
    }
    Ok(())
}

fn dim(mut fields: Fields<'_>, flags: &mut u8) -> Result<i64, DecodeError> {
    let mut size = 0;
    while let Some(field) = fields.read()? {
        match field.number {
            1 => {
                size = field.int64()?;
                if size < 0 {
                    return Err(field.error(Kind::Value, format!("dimension is {size}")));
                }
            }
            2 => field.bytes().map(|_| ())?,
            _ => *flags |= HAS_UNKNOWN,
        }
    }
    Ok(size)
}

/// Decodes one `TensorSliceProto`, giving each extent to `each`.
fn slice(
    mut fields: Fields<'_>,
    flags: &mut u8,
    mut each: impl FnMut(Extent),
) -> Result<(), DecodeError> {
    let mut rank = 0;
    while let Some(field) = fields.read()? {
        if field.number != 1 {
            *flags |= HAS_UNKNOWN;
            continue;
        }
        rank += 1;
        if rank > MAX_RANK {
            let message = format!("slice has more than {MAX_RANK} dimensions");
            return Err(field.error(Kind::Value, message));
        }
        let found = extent(field.message()?, flags)?;
        each(found.map_err(|message| field.error(Kind::Value, message))?);
    }
    Ok(())
}

fn extent(mut fields: Fields<'_>, flags: &mut u8) -> Result<Result<Extent, String>, DecodeError> {
    let (mut start, mut length) = (0, None);
    while let Some(field) = fields.read()? {
        match field.number {
            1 => start = field.int64()?,
            2 => length = Some(field.int64()?),
            _ => *flags |= HAS_UNKNOWN,
        }
    }
    Ok(match length {
        None if start == 0 => Ok((0, -1)),
        None => Err(format!("extent starts at {start} but has no length")),
        Some(length) if start < 0 || length < 1 || start.checked_add(length).is_none() => {
            Err(format!("extent starts at {start} and has length {length}"))
        }
        Some(length) => Ok((start, length)),
    })
}

/// The slices that an entry lists, in the order in which they are stored.
///
/// # Errors
/// When the message or an extent is malformed.
pub fn slices(value: &[u8]) -> Result<Vec<Vec<Extent>>, DecodeError> {
    let mut found = Vec::new();
    let mut fields = Fields::new(value, 0);
    while let Some(field) = fields.read()? {
        if field.number == 7 {
            let mut extents = Vec::new();
            slice(field.message()?, &mut 0, |extent| extents.push(extent))?;
            found.push(extents);
        }
    }
    Ok(found)
}

/// The entry with only dtype and shape, as TensorFlow writes them.
///
/// # Errors
/// When the shape is impossible.
pub fn encode(dtype: i32, dims: &[i64]) -> Result<Vec<u8>, RangeError> {
    let mut out = Vec::new();
    put_dtype(&mut out, dtype);
    put_shape(&mut out, dims)?;
    Ok(out)
}

/// The full entry of a sliced tensor.
///
/// # Errors
/// When the shape or an extent is impossible.
pub fn encode_slices(
    dtype: i32,
    dims: &[i64],
    slices: &[Vec<Extent>],
) -> Result<Vec<u8>, RangeError> {
    let mut out = encode(dtype, dims)?;
    for extents in slices {
        let mut message = Vec::new();
        for &(start, length) in extents {
            check_extent(start, length)?;
            let mut extent = Vec::new();
            if start != 0 {
                protobuf::put_varint(&mut extent, 1, start);
            }
            if length != -1 {
                protobuf::put_varint(&mut extent, 2, length);
            }
            protobuf::put_bytes(&mut message, 1, &extent);
        }
        protobuf::put_bytes(&mut out, 7, &message);
    }
    Ok(out)
}

/// Refuses what is neither the full extent nor a start and a length of at least 1.
pub(crate) fn check_extent(start: i64, length: i64) -> Result<(), RangeError> {
    let full = (start, length) == (0, -1);
    if full || (start >= 0 && length >= 1 && start.checked_add(length).is_some()) {
        return Ok(());
    }
    Err(RangeError::new(format!("extent starts at {start} and has length {length}")))
}

fn put_dtype(out: &mut Vec<u8>, dtype: i32) {
    if dtype != 0 {
        protobuf::put_varint(out, 1, i64::from(dtype));
    }
}

fn put_shape(out: &mut Vec<u8>, dims: &[i64]) -> Result<(), RangeError> {
    if dims.len() > MAX_RANK {
        return Err(RangeError::new(format!("shape has more than {MAX_RANK} dimensions")));
    }
    if let Some(dim) = dims.iter().find(|&&dim| dim < 0) {
        return Err(RangeError::new(format!("dimension is {dim}")));
    }
    if !countable(dims) {
        return Err(RangeError::new("shape has 2^63 elements or more"));
    }
    let mut message = Vec::new();
    for &dim in dims {
        let mut size = Vec::new();
        if dim != 0 {
            protobuf::put_varint(&mut size, 1, dim);
        }
        protobuf::put_bytes(&mut message, 2, &size);
    }
    protobuf::put_bytes(out, 2, &message);
    Ok(())
}

/// The same entry with another dtype and shape, every other byte kept.
///
/// A list of slices belongs to its shape, and is dropped where that changes.
///
/// # Errors
/// When the message is malformed or the shape is impossible.
pub fn respec(value: &[u8], dtype: i32, dims: &[i64]) -> Result<Vec<u8>, crate::error::Error> {
    let mut old_dims = Vec::new();
    let old = decode(value, 0, &mut old_dims)?;
    let (new_dtype, new_shape) = (old.dtype != dtype, old_dims != dims);
    let mut out = Vec::with_capacity(value.len() + 16);
    // Both numbers are the lowest: where they are absent, they come first.
    let (mut dtype_done, mut shape_done) = (!new_dtype, !new_shape && has(value, 2)?);
    let mut fields = Fields::new(value, 0);
    while let Some(field) = fields.read()? {
        if !dtype_done {
            put_dtype(&mut out, dtype);
            dtype_done = true;
        }
        if !shape_done && field.number > 1 {
            put_shape(&mut out, dims)?;
            shape_done = true;
        }
        let dropped = match field.number {
            1 => new_dtype,
            2 | 7 => new_shape,
            _ => false,
        };
        if !dropped {
            out.extend_from_slice(value.get(field.start..field.end).unwrap_or_default());
        }
    }
    if !dtype_done {
        put_dtype(&mut out, dtype);
    }
    if !shape_done {
        put_shape(&mut out, dims)?;
    }
    Ok(out)
}

fn has(value: &[u8], number: u32) -> Result<bool, DecodeError> {
    let mut fields = Fields::new(value, 0);
    while let Some(field) = fields.read()? {
        if field.number == number {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &[u8]) -> Result<(Scalars, Vec<i64>), DecodeError> {
        let mut dims = Vec::new();
        decode(value, 10, &mut dims).map(|scalars| (scalars, dims))
    }

    fn fails(value: &[u8], kind: Kind, text: &str) {
        let error = read(value).unwrap_err();
        assert_eq!(error.kind, kind, "{}", error.message);
        assert!(error.message.contains(text) && error.offset >= 10, "{error}");
    }

    #[test]
    fn canonical_entries() {
        assert_eq!(encode(3, &[]).unwrap(), [0x08, 3, 0x12, 0]);
        assert_eq!(encode(1, &[0, 3]).unwrap(), [0x08, 1, 0x12, 6, 0x12, 0, 0x12, 2, 0x08, 3]);
        assert_eq!(read(&encode(1, &[0, 3]).unwrap()).unwrap().1, [0, 3]);
        assert!(encode(1, &[-1]).is_err());
        assert!(encode(1, &[1; 255]).is_err());
        assert!(encode(1, &[1 << 40, 1 << 40, 0]).is_err());
    }

    #[test]
    fn golden_entry() {
        let value = crate::table::tests::unhex("0809120812020801120208032008281835e1f28a2a");
        let (found, dims) = read(&value).unwrap();
        let expected =
            Scalars { dtype: 9, shard: 0, offset: 8, size: 24, crc: 0x2a8a_f2e1, flags: HAS_CRC };
        assert_eq!((found, dims.as_slice()), (expected, [1, 3].as_slice()));
    }

    #[test]
    fn flags_and_duplicates() {
        assert_eq!(read(&[0x08, 1, 0x08, 2]).unwrap().0.dtype, 2);
        assert_eq!(read(&[0x7a, 0]).unwrap().0.flags, HAS_UNKNOWN);
        assert_eq!(read(&[0x12, 2, 0x7a, 0]).unwrap().0.flags, HAS_UNKNOWN);
        assert_eq!(read(&[0x12, 4, 0x12, 2, 0x7a, 0]).unwrap().0.flags, HAS_UNKNOWN);
        assert_eq!(read(&[0x12, 5, 0x12, 3, 0x12, 1, b'n']).unwrap().0.flags, 0);
        assert_eq!(read(&[0x3a, 2, 0x0a, 0]).unwrap().0.flags, HAS_SLICES);
        assert_eq!(read(&[0x35, 0, 0, 0, 0]).unwrap().0.flags, HAS_CRC);
        let twice = [0x12, 4, 0x12, 2, 0x08, 2, 0x12, 4, 0x12, 2, 0x08, 3];
        assert_eq!(read(&twice).unwrap().1, [2, 3]);
    }

    #[test]
    fn malformed_entries_are_refused() {
        let minus = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let negative = |tag: u8| [&[tag], minus.as_slice()].concat();
        fails(&negative(0x18), Kind::Value, "shard is -1");
        fails(&negative(0x20), Kind::Value, "offset is -1");
        fails(&negative(0x28), Kind::Value, "size is -1");
        let dim = [&[0x12, 13, 0x12, 11, 0x08], minus.as_slice()].concat();
        fails(&dim, Kind::Value, "dimension is -1");
        fails(&[0x12, 2, 0x18, 1], Kind::Value, "unknown rank");
        fails(&[0x0a, 0], Kind::Wire, "field 1");
        fails(&[0x10, 0], Kind::Wire, "field 2");
        fails(&[0x30, 0], Kind::Wire, "field 6");
        fails(&[0x3b], Kind::Wire, "wire type 3");
        fails(&[0x08, 0xff, 0xff, 0xff, 0xff, 0x0f], Kind::Value, "32 bits");
        fails(&[0x12, 9], Kind::Truncated, "needs 9");
        let mut rank = vec![0x12, 0xfe, 3];
        rank.extend([0x12, 0].repeat(255));
        fails(&rank, Kind::Value, "254 dimensions");
        let mut huge = Vec::new();
        for size in [1 << 40, 1 << 40, 0] {
            let mut dim = Vec::new();
            protobuf::put_varint(&mut dim, 1, size);
            protobuf::put_bytes(&mut huge, 2, &dim);
        }
        let mut value = Vec::new();
        protobuf::put_bytes(&mut value, 2, &huge);
        fails(&value, Kind::Value, "2^63 elements");
    }

    #[test]
    fn slices_round_trip() {
        let listed = vec![vec![(0, -1), (0, 1)], vec![(0, -1), (1, 9)]];
        let value = encode_slices(1, &[5, 10], &listed).unwrap();
        assert_eq!(slices(&value).unwrap(), listed);
        assert_eq!(read(&value).unwrap().0.flags, HAS_SLICES);
        assert!(encode_slices(1, &[5], &[vec![(1, -1)]]).is_err());
        fails(&[0x3a, 4, 0x0a, 2, 0x08, 1], Kind::Value, "no length");
        fails(&[0x3a, 4, 0x0a, 2, 0x10, 0], Kind::Value, "length 0");
    }

    #[test]
    fn respec_keeps_the_rest() {
        let value = [0x08, 1, 0x12, 0, 0x18, 1, 0x3a, 0, 0x7a, 1, 9];
        assert_eq!(respec(&value, 1, &[]).unwrap(), value);
        assert_eq!(respec(&value, 2, &[]).unwrap()[..4], [0x08, 2, 0x12, 0]);
        assert_eq!(respec(&value, 2, &[]).unwrap()[4..], value[4..]);
        let wider = respec(&value, 2, &[7]).unwrap();
        assert_eq!(wider, [0x08, 2, 0x12, 4, 0x12, 2, 0x08, 7, 0x18, 1, 0x7a, 1, 9]);
        assert_eq!(respec(b"", 3, &[]).unwrap(), [0x08, 3, 0x12, 0]);
        assert_eq!(respec(&[0x18, 1], 3, &[]).unwrap(), [0x08, 3, 0x12, 0, 0x18, 1]);
        assert_eq!(respec(&[0x08, 1, 0x18, 1], 0, &[]).unwrap(), [0x12, 0, 0x18, 1]);
    }
}
