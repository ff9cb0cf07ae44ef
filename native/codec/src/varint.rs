//! Variable-length integers, and the bounds-checked cursor that every decoder reads through.
//!
//! ```text
//! varint: 7 bits a byte, least significant first, top bit set on every byte but the last;
//!         at most 10 bytes (64 bits) or 5 bytes (32 bits)
//! ```

use crate::error::{DecodeError, Kind};

/// The most bytes that a 64-bit varint takes.
const MAX_VARINT: usize = 10;

/// Appends `value`, minimally encoded.
#[inline]
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// How many bytes [`put`] appends for `value`.
#[must_use]
pub const fn length(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// A position in a buffer; `base` is where the buffer starts in the one that errors speak about.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    data: &'a [u8],
    position: usize,
    base: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `data`.
    #[must_use]
    pub const fn new(data: &'a [u8], base: usize) -> Self {
        Self { data, position: 0, base }
    }

    /// Bytes consumed so far.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Where the next byte is, in the buffer that errors speak about.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.base.saturating_add(self.position)
    }

    /// Bytes not consumed yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.data.len().saturating_sub(self.position)
    }

    /// Whether every byte was consumed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// An error at the next byte.
    pub fn error(&self, kind: Kind, message: impl Into<String>) -> DecodeError {
        DecodeError::new(kind, self.offset(), message)
    }

    /// The next 64-bit varint.
    ///
    /// # Errors
    /// When the bytes end within it or it does not fit 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.data.get(self.position) {
            Some(&byte) if byte < 0x80 => {
                self.position += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let rest = self.data.get(self.position..).unwrap_or_default();
        let mut value = 0;
        for (index, &byte) in rest.iter().take(MAX_VARINT).enumerate() {
            if index == MAX_VARINT - 1 && byte > 1 {
                return Err(self.error(Kind::Varint, "varint does not fit 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.position += index + 1;
                return Ok(value);
            }
        }
        Err(self.error(Kind::Truncated, "bytes end within a varint"))
    }

    /// Whether a varint that was refused here is only cut off by the end of the bytes.
    #[must_use]
    pub fn is_cut(&self, error: &DecodeError) -> bool {
        error.kind == Kind::Truncated && self.remaining() < MAX_VARINT
    }

    /// The next varint, which must fit 32 bits in at most 5 bytes.
    ///
    /// # Errors
    /// When the bytes end within it or it does not fit.
    #[inline]
    pub fn varint32(&mut self) -> Result<usize, DecodeError> {
        let before = *self;
        let value = self.varint()?;
        match u32::try_from(value) {
            Ok(small) if self.position - before.position <= 5 => Ok(small as usize),
            _ => Err(before.error(Kind::Varint, format!("varint {value} does not fit 32 bits"))),
        }
    }

    /// The next varint, which must be encoded in as few bytes as possible.
    ///
    /// # Errors
    /// When it is cut short, too large, or has trailing zero groups.
    pub fn minimal_varint(&mut self) -> Result<u64, DecodeError> {
        let before = *self;
        let value = self.varint()?;
        let (found, least) = (self.position - before.position, length(value));
        if found != least {
            let message = format!("varint {value} takes {found} bytes instead of {least}");
            return Err(before.error(Kind::Varint, message));
        }
        Ok(value)
    }

    /// The next `length` bytes; `what` names them in the error.
    ///
    /// # Errors
    /// When fewer are left.
    #[inline]
    pub fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8], DecodeError> {
        let wanted = usize::try_from(length).ok();
        let end = wanted.and_then(|wanted| self.position.checked_add(wanted));
        match end.and_then(|end| self.data.get(self.position..end).map(|found| (end, found))) {
            Some((end, found)) => {
                self.position = end;
                Ok(found)
            }
            None => Err(self.too_short(length, what)),
        }
    }

    #[cold]
    fn too_short(&self, length: u64, what: &str) -> DecodeError {
        let left = self.remaining();
        self.error(Kind::Truncated, format!("{what} needs {length} bytes, {left} are left"))
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// When fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_length() {
        for shift in 0..64 {
            for value in [1 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put(&mut out, value);
                assert_eq!(out.len(), length(value));
                let mut cursor = Cursor::new(&out, 0);
                assert_eq!(cursor.minimal_varint().unwrap(), value);
                assert!(cursor.is_empty());
            }
        }
    }

    #[test]
    fn malformed_varints_are_refused() {
        let kind = |data: &[u8]| Cursor::new(data, 5).varint().unwrap_err().kind;
        assert_eq!(kind(&[]), Kind::Truncated);
        assert_eq!(kind(&[0x80]), Kind::Truncated);
        assert_eq!(kind(&[0xff; 10]), Kind::Varint);
        assert_eq!(kind(&[0xff; 11]), Kind::Varint);
        assert_eq!(kind(&[0x80; 11]), Kind::Varint);
        let mut two = [0x80; 10];
        two[9] = 2;
        assert_eq!(kind(&two), Kind::Varint);
    }

    #[test]
    fn narrow_and_minimal_varints_are_enforced() {
        assert!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], 0).varint32().is_ok());
        assert!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x1f], 0).varint32().is_err());
        assert!(Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], 0).varint32().is_err());
        let error = Cursor::new(&[0x81, 0x00], 7).minimal_varint().unwrap_err();
        assert_eq!((error.kind, error.offset), (Kind::Varint, 7));
    }

    #[test]
    fn take_is_bounded() {
        let mut cursor = Cursor::new(b"abc", 10);
        assert_eq!(cursor.take(2, "text").unwrap(), b"ab");
        let error = cursor.take(u64::MAX, "text").unwrap_err();
        assert_eq!(error.offset, 12);
        assert!(error.message.contains("1 are left"));
    }
}
