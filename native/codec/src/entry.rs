//! Columns of `BundleEntryProto` records: a million tensors as a few arrays, and back.
//!
//! ```text
//! decode   records -> dtype, dims, shard, offset, size, crc, flags
//! encode   records + shard, offset, size, crc -> records
//! ```
//!
//! Encoding splices: a record is a template in which the place of a tensor is replaced. Fields that
//! say the same already, unknown fields and the order of fields stay as they are, byte for byte.
//! The layout of one record is described in [`crate::record`].

use crate::error::{DecodeError, Error, RangeError};
use crate::protobuf::{self, Fields};
use crate::record::{self, Scalars};
use crate::rows::{Column, Rows, position};

/// One array per field; row `i` of each is record `first + i`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The numbers of the dtypes.
    pub dtype: Vec<i32>,
    /// Where the dims of each record end in `dims`.
    pub dim_ends: Vec<i64>,
    /// The dims of all records, joined.
    pub dims: Vec<i64>,
    /// The numbers of the data files.
    pub shard: Vec<i32>,
    /// Where each tensor starts in its file.
    pub offset: Vec<i64>,
    /// The length of each tensor in its file.
    pub size: Vec<i64>,
    /// The checksums as stored, masked.
    pub crc: Vec<u32>,
    /// See [`record::HAS_SLICES`], [`record::HAS_CRC`], [`record::HAS_UNKNOWN`].
    pub flags: Vec<u8>,
}

impl Columns {
    fn with_capacity(rows: usize) -> Self {
        Self {
            dtype: Vec::with_capacity(rows),
            dim_ends: Vec::with_capacity(rows),
            dims: Vec::with_capacity(rows),
            shard: Vec::with_capacity(rows),
            offset: Vec::with_capacity(rows),
            size: Vec::with_capacity(rows),
            crc: Vec::with_capacity(rows),
            flags: Vec::with_capacity(rows),
        }
    }

    fn push(&mut self, found: Scalars) {
        self.dtype.push(found.dtype);
        self.dim_ends.push(position(self.dims.len()));
        self.shard.push(found.shard);
        self.offset.push(found.offset);
        self.size.push(found.size);
        self.crc.push(found.crc);
        self.flags.push(found.flags);
    }
}

/// Decodes the records from row `first` on.
///
/// # Errors
/// At the first malformed record; the offset counts from the start of the joined records.
pub fn decode(values: Rows<'_>, first: usize) -> Result<Columns, DecodeError> {
    let mut columns = Columns::with_capacity(values.len().saturating_sub(first));
    for row in first..values.len() {
        let found = record::decode(values.get(row), values.start(row), &mut columns.dims)?;
        columns.push(found);
    }
    Ok(columns)
}

/// Set for a record that is malformed: all its other columns are 0.
pub const MALFORMED: u8 = 8;

/// Decodes all records; returns what is wrong with those that are malformed.
#[must_use]
pub fn read(values: Rows<'_>) -> (Columns, Vec<(usize, String)>) {
    let mut columns = Columns::with_capacity(values.len());
    let mut wrong = Vec::new();
    for (row, value) in values.iter().enumerate() {
        let before = columns.dims.len();
        match record::decode(value, 0, &mut columns.dims) {
            Ok(found) => columns.push(found),
            Err(error) => {
                columns.dims.truncate(before);
                columns.push(Scalars { flags: MALFORMED, ..Scalars::default() });
                wrong.push((row, error.message));
            }
        }
    }
    (columns, wrong)
}

/// Where tensors go: one array per field, all of the same length.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The record of the template column that each output record is made from.
    pub rows: &'a [i64],
    /// The numbers of the data files.
    pub shard: &'a [i32],
    /// Where each tensor starts in its file.
    pub offset: &'a [i64],
    /// The length of each tensor; -1 takes the template verbatim.
    pub size: &'a [i64],
    /// The masked checksums.
    pub crc: &'a [u32],
}

/// Makes one record per place from the template records.
///
/// # Errors
/// When the columns differ in length, a number is out of range, or a template is malformed.
pub fn encode(templates: Rows<'_>, places: Places<'_>) -> Result<Column, Error> {
    let Places { rows, shard, offset, size, crc } = places;
    let count = rows.len();
    if [shard.len(), offset.len(), size.len(), crc.len()] != [count; 4] {
        return Err(RangeError::new("columns differ in length").into());
    }
    let mut out = Column::default();
    out.ends.reserve(count);
    let columns = rows.iter().zip(shard).zip(offset).zip(size).zip(crc);
    for (row, ((((&template, &shard), &offset), &size), &crc)) in columns.enumerate() {
        let index = usize::try_from(template).ok().filter(|&index| index < templates.len());
        let Some(index) = index else {
            let message = format!("row {row} takes template {template} of {}", templates.len());
            return Err(RangeError::new(message).into());
        };
        let value = templates.get(index);
        if size == -1 {
            out.push(value);
            continue;
        }
        if shard < 0 || offset < 0 || size < 0 {
            let message = format!("row {row} has shard {shard}, offset {offset}, size {size}");
            return Err(RangeError::new(message).into());
        }
        let place = Place { shard, offset, size, crc };
        place.splice(value, templates.start(index), &mut out.data)?;
        out.close();
    }
    Ok(out)
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    shard: i32,
    offset: i64,
    size: i64,
    crc: u32,
}

/// The numbers of the fields that a place replaces: shard, offset, size and checksum.
const FIRST: u32 = 3;
const LAST: u32 = 6;

impl Place {
    /// The place that a record has, and which fields up to [`LAST`] it stores, as bits.
    fn find(value: &[u8], base: usize) -> Result<(Self, u8), DecodeError> {
        let (mut found, mut present) = (Self::default(), 0);
        let mut fields = Fields::new(value, base);
        while let Some(field) = fields.read()? {
            match field.number {
                3 => found.shard = field.int32()?,
                4 => found.offset = field.int64()?,
                5 => found.size = field.int64()?,
                6 => found.crc = field.fixed32()?,
                _ => {}
            }
            if field.number <= LAST {
                present |= 1 << field.number;
            }
        }
        Ok((found, present))
    }

    /// Which of the four fields differ, as bits by field number.
    fn differences(self, old: Self) -> u8 {
        u8::from(self.shard != old.shard) << 3
            | u8::from(self.offset != old.offset) << 4
            | u8::from(self.size != old.size) << 5
            | u8::from(self.crc != old.crc) << 6
    }

    /// Appends one field, unless it is 0, which is how absence is stored.
    fn put(self, out: &mut Vec<u8>, number: u32) {
        match number {
            3 if self.shard != 0 => protobuf::put_varint(out, 3, i64::from(self.shard)),
            4 if self.offset != 0 => protobuf::put_varint(out, 4, self.offset),
            5 if self.size != 0 => protobuf::put_varint(out, 5, self.size),
            6 if self.crc != 0 => protobuf::put_fixed32(out, 6, self.crc),
            _ => {}
        }
    }

    /// Appends the record `value` with this place in it.
    fn splice(self, value: &[u8], base: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let (old, present) = Self::find(value, base)?;
        let changed = self.differences(old);
        if changed == 0 {
            out.extend_from_slice(value);
            return Ok(());
        }
        // Fields still to be written: bits as in `changed`; absent ones go by their number.
        let mut pending = changed;
        let mut fields = Fields::new(value, base);
        while let Some(field) = fields.read()? {
            for number in FIRST..=LAST.min(field.number.saturating_sub(1)) {
                if pending & !present & 1 << number != 0 {
                    self.put(out, number);
                    pending &= !(1 << number);
                }
            }
            if field.number <= LAST && changed & 1 << field.number != 0 {
                if pending & 1 << field.number != 0 {
                    self.put(out, field.number);
                    pending &= !(1 << field.number);
                }
            } else {
                out.extend_from_slice(value.get(field.start..field.end).unwrap_or_default());
            }
        }
        for number in FIRST..=LAST {
            if pending & 1 << number != 0 {
                self.put(out, number);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &[u8], shard: i32, offset: i64, size: i64, crc: u32) -> Result<Vec<u8>, Error> {
        let ends = [position(value.len())];
        let places =
            Places { rows: &[0], shard: &[shard], offset: &[offset], size: &[size], crc: &[crc] };
        encode(Rows::new(value, &ends).unwrap(), places).map(|column| column.data)
    }

    const FULL: &[u8] = &[0x08, 1, 0x12, 0, 0x18, 1, 0x20, 2, 0x28, 3, 0x35, 4, 0, 0, 0];
    const BARE: &[u8] = &[0x08, 1, 0x12, 0];

    #[test]
    fn columns_of_the_golden_table() {
        let table = crate::table::tests::golden();
        let rows = crate::table::decode(&table, 1 << 20).unwrap();
        let columns = decode(rows.values.rows(), 1).unwrap();
        assert_eq!(columns.dtype, [9, 1, 7, 1, 3]);
        assert_eq!((columns.dim_ends, columns.dims), (vec![2, 3, 4, 6, 6], vec![1, 3, 2, 0, 0, 3]));
        assert_eq!(columns.offset, [8, 0, 36, 36, 32]);
        assert_eq!(columns.size, [24, 8, 4, 0, 4]);
        assert_eq!(columns.flags, [2; 5]);
        assert_eq!(columns.crc[3], 0xa282_ead8);
    }

    #[test]
    fn errors_count_from_the_joined_start() {
        let values = [FULL, &[0x08]].concat();
        let ends = [position(FULL.len()), position(values.len())];
        let error = decode(Rows::new(&values, &ends).unwrap(), 0).unwrap_err();
        assert_eq!(error.offset, FULL.len() + 1);
    }

    #[test]
    fn canonical_in_canonical_out() {
        assert_eq!(one(BARE, 1, 2, 3, 4).unwrap(), FULL);
        assert_eq!(one(FULL, 0, 0, 0, 0).unwrap(), BARE);
        assert_eq!(one(FULL, 1, 2, 3, 4).unwrap(), FULL);
        assert_eq!(one(FULL, 9, 9, -1, 9).unwrap(), FULL);
    }

    #[test]
    fn splice_keeps_order_and_unknown_fields() {
        let odd = [0x7a, 1, 9, 0x28, 3, 0x12, 0, 0x20, 0x82, 0];
        assert_eq!(one(&odd, 0, 2, 3, 0).unwrap(), odd);
        assert_eq!(one(&odd, 0, 2, 7, 0).unwrap(), [0x7a, 1, 9, 0x28, 7, 0x12, 0, 0x20, 0x82, 0]);
        let expected = [0x18, 5, 0x7a, 1, 9, 0x28, 3, 0x12, 0, 0x20, 0x82, 0];
        assert_eq!(one(&odd, 5, 2, 3, 0).unwrap(), expected);
        let twice = [0x18, 1, 0x12, 0, 0x18, 2];
        assert_eq!(one(&twice, 2, 0, 0, 0).unwrap(), twice);
        assert_eq!(one(&twice, 3, 0, 0, 0).unwrap(), [0x18, 3, 0x12, 0]);
        assert_eq!(one(&twice, 0, 0, 0, 0).unwrap(), [0x12, 0]);
    }

    #[test]
    fn arguments_are_checked() {
        assert!(matches!(one(BARE, -1, 0, 0, 0), Err(Error::Range(_))));
        assert!(matches!(one(BARE, 0, -1, 0, 0), Err(Error::Range(_))));
        assert!(matches!(one(BARE, 0, 0, -2, 0), Err(Error::Range(_))));
        assert!(matches!(one(&[0x08], 0, 0, 0, 0), Err(Error::Decode(_))));
        let rows = Rows::new(b"", &[0]).unwrap();
        let places = Places { rows: &[1], shard: &[0], offset: &[0], size: &[0], crc: &[0] };
        assert!(encode(rows, places).is_err());
        assert!(encode(rows, Places { rows: &[], ..places }).is_err());
    }
}
