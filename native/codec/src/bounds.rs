//! Entries against one another and against the files they point into.
//!
//! ```text
//! fixed-size dtype   size = elements x item size
//! strings            size >= elements + 4     (a length of at least 1 byte each, the checksum)
//! variants           size >= elements x 5     (a length and a checksum each)
//! every dtype        offset + size <= length of the shard
//! ```

use crate::entry::Columns;

const SLICED: u8 = 1;

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The row.
    pub row: usize,
    /// What was expected, and what was found.
    pub message: String,
}

/// Stand-ins for an item size.
pub mod item {
    /// Nothing is known about the size of a tensor.
    pub const UNKNOWN: i64 = 0;
    /// The elements are strings.
    pub const STRINGS: i64 = -1;
    /// The elements are variants.
    pub const VARIANTS: i64 = -2;
}

/// Finds the rows that contradict their dtype and shape, or point beyond their shard.
///
/// `items` is the item size by dtype number, or one of [`item`]; `shards` holds number and length
/// of every shard, ordered by number. Rows in other shards are not compared with a length.
pub fn findings<'a>(
    columns: &'a Columns,
    items: &'a [i64],
    shards: &'a [(i32, i64)],
) -> impl Iterator<Item = Finding> + 'a {
    let mut first = 0;
    columns.dim_ends.iter().enumerate().filter_map(move |(row, &last)| {
        let last = usize::try_from(last).unwrap_or(usize::MAX);
        let dims = columns.dims.get(first..last).unwrap_or_default();
        first = last;
        let message = message(columns, row, dims, items, shards)?;
        Some(Finding { row, message })
    })
}

fn message(
    columns: &Columns,
    row: usize,
    dims: &[i64],
    items: &[i64],
    shards: &[(i32, i64)],
) -> Option<String> {
    if columns.flags.get(row).is_some_and(|flags| flags & SLICED != 0) {
        return None;
    }
    let number = |column: &[i64]| column.get(row).copied().unwrap_or_default();
    let (offset, size) = (number(&columns.offset), number(&columns.size));
    let dtype = columns.dtype.get(row).copied().unwrap_or_default();
    let item = usize::try_from(dtype).ok().and_then(|at| items.get(at)).copied();
    size_message(dims, item.unwrap_or(item::UNKNOWN), size).or_else(|| {
        let shard = columns.shard.get(row).copied().unwrap_or_default();
        let at = shards.binary_search_by_key(&shard, |&(number, _)| number).ok()?;
        extent_message(offset, size, shards.get(at)?.1)
    })
}

fn size_message(dims: &[i64], item: i64, size: i64) -> Option<String> {
    let count: i128 = dims.iter().map(|&dim| i128::from(dim)).product();
    let (least, exact) = match item {
        item::STRINGS => (count + 4, false),
        item::VARIANTS => (count * 5, false),
        item::UNKNOWN => return None,
        item => (count * i128::from(item), true),
    };
    let fits = if exact { i128::from(size) == least } else { i128::from(size) >= least };
    let word = if exact { "" } else { "at least " };
    (!fits).then(|| format!("shape {dims:?} takes {word}{least} bytes, the index says {size}"))
}

fn extent_message(offset: i64, size: i64, length: i64) -> Option<String> {
    let end = i128::from(offset) + i128::from(size);
    (end > i128::from(length)).then(|| {
        format!("bytes {offset} to {end} are beyond the end of the shard, which has {length} bytes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(dtype: i32, dims: &[i64], offset: i64, size: i64, flags: u8) -> Columns {
        Columns {
            dtype: vec![dtype],
            dim_ends: vec![i64::try_from(dims.len()).unwrap()],
            dims: dims.to_vec(),
            shard: vec![2],
            offset: vec![offset],
            size: vec![size],
            crc: vec![0],
            flags: vec![flags],
        }
    }

    const ITEMS: [i64; 3] = [4, item::STRINGS, item::VARIANTS];

    fn message(columns: &Columns) -> Option<String> {
        findings(columns, &ITEMS, &[(1, 0), (2, 100)]).next().map(|finding| finding.message)
    }

    #[test]
    fn sizes_follow_from_shapes() {
        assert_eq!(message(&one(0, &[2, 3], 76, 24, 0)), None);
        assert!(message(&one(0, &[2, 3], 0, 20, 0)).unwrap().contains("takes 24 bytes"));
        assert_eq!(message(&one(1, &[3], 0, 7, 0)), None);
        assert!(message(&one(1, &[1 << 50], 0, 7, 0)).unwrap().contains("at least"));
        assert!(message(&one(2, &[2], 0, 9, 0)).unwrap().contains("at least 10"));
        assert_eq!(message(&one(77, &[2], 0, 9, 0)), None);
        assert_eq!(message(&one(0, &[2], 0, 0, SLICED)), None);
    }

    #[test]
    fn extents_end_in_the_shard() {
        assert!(message(&one(0, &[2, 3], 77, 24, 0)).unwrap().contains("bytes 77 to 101"));
        assert!(message(&one(77, &[], i64::MAX, i64::MAX, 0)).is_some());
    }

    #[test]
    fn products_do_not_overflow() {
        assert!(message(&one(0, &[i64::MAX], 0, 4, 0)).unwrap().contains("takes"));
    }
}
