//! Columns of byte strings: all strings joined, and the end of each.
//!
//! ```text
//! row i = data[ends[i-1] .. ends[i]]      (row 0 starts at 0)
//! ```
//!
//! A million names cost two allocations this way, and cross a language boundary as two buffers.

use std::cmp::Ordering;

use crate::error::RangeError;

/// A checked view of a column: the ends never decrease and never pass the data.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [u8],
    ends: &'a [i64],
}

impl<'a> Rows<'a> {
    /// Checks the ends and builds the view.
    ///
    /// # Errors
    /// When the ends decrease, are negative or pass the end of `data`.
    pub fn new(data: &'a [u8], ends: &'a [i64]) -> Result<Self, RangeError> {
        let mut previous = 0;
        for (row, &end) in ends.iter().enumerate() {
            if end < previous {
                return Err(RangeError::new(format!(
                    "row {row} ends at {end}, before it starts at {previous}"
                )));
            }
            previous = end;
        }
        if usize::try_from(previous).is_ok_and(|last| last <= data.len()) {
            return Ok(Self { data, ends });
        }
        let length = data.len();
        Err(RangeError::new(format!("rows end at {previous} in a buffer of {length} bytes")))
    }

    /// The number of rows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Where a row starts in the data; the end of the data for a row that is not there.
    #[inline]
    #[must_use]
    pub fn start(&self, row: usize) -> usize {
        match row.checked_sub(1) {
            None => 0,
            Some(before) => self.end(before),
        }
    }

    #[inline]
    fn end(&self, row: usize) -> usize {
        let end = self.ends.get(row).and_then(|&end| usize::try_from(end).ok());
        end.unwrap_or(self.data.len())
    }

    /// The bytes of a row; empty for a row that is not there.
    #[inline]
    #[must_use]
    pub fn get(&self, row: usize) -> &'a [u8] {
        self.data.get(self.start(row)..self.end(row)).unwrap_or_default()
    }

    /// The rows in order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let rows = *self;
        (0..self.len()).map(move |row| rows.get(row))
    }
}

/// A column that grows row by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// All rows, joined.
    pub data: Vec<u8>,
    /// Where each row ends in `data`.
    pub ends: Vec<i64>,
}

impl Column {
    /// Marks the end of a row whose bytes were appended to `data`.
    #[inline]
    pub fn close(&mut self) {
        self.ends.push(position(self.data.len()));
    }

    /// Appends a row.
    #[inline]
    pub fn push(&mut self, row: &[u8]) {
        self.data.extend_from_slice(row);
        self.close();
    }

    /// The checked view of this column.
    #[must_use]
    pub fn rows(&self) -> Rows<'_> {
        Rows { data: &self.data, ends: &self.ends }
    }
}

/// The most by which a buffer grows ahead of need.
const MAX_STEP: usize = 32 << 20;

/// Makes room for `more` bytes, without the doubling that would pass a cap by as much again.
///
/// # Errors
/// When there is no memory left; nothing aborts.
pub fn grow(data: &mut Vec<u8>, more: usize) -> Result<(), std::collections::TryReserveError> {
    if data.capacity() - data.len() >= more {
        return Ok(());
    }
    data.try_reserve_exact(more.max(data.capacity().min(MAX_STEP)))
}

/// A length in memory as a column stores it; memory never holds 2^63 bytes.
#[inline]
#[must_use]
pub fn position(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The stable order of the rows by unsigned bytes, as row numbers.
#[must_use]
pub fn order(rows: Rows<'_>) -> Vec<i64> {
    let increasing = (1..rows.len()).all(|row| rows.get(row - 1) <= rows.get(row));
    if increasing {
        return (0..position(rows.len())).collect();
    }
    // Names share long prefixes: skip the part common to all, and sort by the 16 bytes after it.
    let skip = common_prefix(rows);
    let mut sortable: Vec<(u128, usize)> =
        rows.iter().enumerate().map(|(row, bytes)| (window(bytes, skip), row)).collect();
    sortable.sort_unstable_by(|left, right| {
        let by_window = left.0.cmp(&right.0);
        if by_window != Ordering::Equal {
            return by_window;
        }
        rows.get(left.1).cmp(rows.get(right.1)).then(left.1.cmp(&right.1))
    });
    sortable.into_iter().map(|(_, row)| position(row)).collect()
}

fn common_prefix(rows: Rows<'_>) -> usize {
    let first = rows.get(0);
    rows.iter().fold(first.len(), |common, row| {
        let same = first.iter().take(common).zip(row).take_while(|(a, b)| a == b);
        same.count()
    })
}

fn window(bytes: &[u8], skip: usize) -> u128 {
    let mut window = [0; 16];
    let tail = bytes.get(skip..).unwrap_or_default();
    for (to, from) in window.iter_mut().zip(tail) {
        *to = *from;
    }
    u128::from_be_bytes(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(rows: &[&[u8]]) -> Column {
        let mut column = Column::default();
        for row in rows {
            column.push(row);
        }
        column
    }

    #[test]
    fn ends_are_checked() {
        assert!(Rows::new(b"abc", &[1, 3]).is_ok());
        assert!(Rows::new(b"abc", &[1, 4]).is_err());
        assert!(Rows::new(b"abc", &[2, 1]).is_err());
        assert!(Rows::new(b"abc", &[-1]).is_err());
        assert_eq!(Rows::new(b"abc", &[1, 1, 3]).unwrap().get(2), b"bc");
    }

    #[test]
    fn order_is_stable_and_unsigned() {
        let long = [b'x'; 40];
        let mut longer = long.to_vec();
        longer.push(0);
        let rows: Vec<&[u8]> = vec![b"\xff", &longer, b"b", b"", &long, b"b", b"\x00", b"a"];
        let column = column(&rows);
        let mut expected: Vec<usize> = (0..rows.len()).collect();
        expected.sort_by_key(|&row| rows[row]);
        let found: Vec<usize> =
            order(column.rows()).into_iter().map(|row| usize::try_from(row).unwrap()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn order_of_shared_prefixes() {
        let rows: Vec<Vec<u8>> =
            (0..500u32).map(|i| format!("model/layer/{}", i * 7919 % 500).into_bytes()).collect();
        let refs: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        let column = column(&refs);
        let mut expected: Vec<i64> = (0..500).collect();
        expected.sort_by_key(|&row| refs[usize::try_from(row).unwrap()]);
        assert_eq!(order(column.rows()), expected);
    }
}
