//! Extensible arrays: the index of chunks of a dataset that grows along one axis.
//!
//! ```text
//! header  "EAHD", 0, client, entry u8, bits u8, first entries u8, least entries u8, pointers u8,
//!         page bits u8, 6 counts, index block, sum
//! index   "EAIB", 0, client, header, first entries, data blocks, super blocks, sum
//! super   "EASB", 0, client, header, offset, [bits of pages], data blocks, sum
//! data    "EADB", 0, client, header, offset, entries, sum; or sum, { page of entries, sum }
//! ```
//!
//! Super block u has 2^(u / 2) data blocks of least entries x 2^((u + 1) / 2) each. The first of
//! them are not there: the index block points to their data blocks itself.

use crate::error::{DecodeError, Kind};
use crate::hdf5::checksum;
use crate::hdf5::dataset::Dataset;
use crate::hdf5::indexes::{Chunks, WHAT};
use crate::hdf5::space::{Fields, Space, Stop, unless_missing};

struct Array<'c> {
    chunks: &'c Chunks,
    header: u64,
    client: u8,
    entry: u64,
    offset_width: u64,
    /// Entries of a data block, at least.
    least: u64,
    /// Entries of a page of a large data block.
    page: u64,
}

/// Reads all entries of an array.
pub fn read(
    space: &mut Space<'_>,
    at: u64,
    chunks: &Chunks,
    found: &mut Dataset,
) -> Result<(), Stop> {
    let sizes = space.sizes;
    let (offset, length) = (u64::from(sizes.offsets), u64::from(sizes.lengths));
    let block = space.block(at, 16 + 6 * length + offset, WHAT)?;
    checksum::verify(&block, at, WHAT)?;
    let mut fields = Fields::new(&block, at, sizes);
    fields.signature(b"EAHD", WHAT)?;
    fields.version(&[0], WHAT)?;
    let before = fields;
    let client = fields.byte(WHAT)?;
    let entry = u64::from(fields.byte("the size of an entry")?);
    let bits = u32::from(fields.byte("the bits of an entry's number")?);
    let first = u64::from(fields.byte("the entries of an index block")?);
    let least = fields.byte("the entries of a data block")?;
    let pointers = fields.byte("the pointers of a super block")?;
    let page = u32::from(fields.byte("the bits of a page")?);
    let sound = least.is_power_of_two() && pointers.is_power_of_two() && page < 32;
    let supers = bits.checked_sub(least.max(1).ilog2()).filter(|_| bits <= 64);
    let direct = 2 * pointers.max(1).ilog2();
    let more = supers.and_then(|supers| (supers + 1).checked_sub(direct));
    let Some(more) = more.filter(|_| sound && entry > 0 && client == chunks.client()) else {
        let message = format!("an extensible array of {bits} bits, {least} entries, {pointers}");
        return Err(before.bad(Kind::Value, message).into());
    };
    fields.take(6 * length, "counts")?;
    let Some(index) = fields.address(WHAT)? else { return Ok(()) };
    let (least, page) = (least.into(), 1 << page);
    let offset_width = u64::from(bits.div_ceil(8));
    let array = Array { chunks, header: at, client, entry, offset_width, least, page };
    array.index(space, index, first, (direct, more), found)
}

impl Array<'_> {
    /// Data blocks of a super block.
    fn blocks(number: u32) -> u64 {
        1 << (number / 2)
    }

    /// Entries of each of them.
    fn entries(&self, number: u32) -> u64 {
        self.least << number.div_ceil(2)
    }

    fn head(&self, fields: &mut Fields<'_>, mark: &[u8]) -> Result<(), DecodeError> {
        fields.signature(mark, WHAT)?;
        fields.version(&[0], WHAT)?;
        let before = *fields;
        if (fields.byte(WHAT)?, fields.address(WHAT)?) != (self.client, Some(self.header)) {
            return Err(before.bad(Kind::Value, "an index of chunks belongs to another"));
        }
        Ok(())
    }

    fn index(
        &self,
        space: &mut Space<'_>,
        at: u64,
        first: u64,
        (direct, more): (u32, u32),
        found: &mut Dataset,
    ) -> Result<(), Stop> {
        let sizes = space.sizes;
        let offset = u64::from(sizes.offsets);
        let pointers = (0..direct).map(Self::blocks).sum::<u64>() + u64::from(more);
        let length = 10 + offset + first * self.entry + pointers * offset;
        let block = space.block(at, length, WHAT)?;
        checksum::verify(&block, at, WHAT)?;
        let mut fields = Fields::new(&block, at, sizes);
        self.head(&mut fields, b"EAIB")?;
        for _ in 0..first {
            self.chunks.entry(&mut fields, self.entry, found)?;
        }
        let mut missing = false;
        for number in 0..direct {
            for _ in 0..Self::blocks(number) {
                if let Some(at) = fields.address(WHAT)? {
                    let walked = self.data(space, at, self.entries(number), &[], found);
                    unless_missing(walked, &mut missing)?;
                }
            }
        }
        for number in direct..direct + more {
            if let Some(at) = fields.address(WHAT)? {
                unless_missing(self.above(space, at, number, found), &mut missing)?;
            }
        }
        if missing { Err(Stop::Missing) } else { Ok(()) }
    }

    /// A super block, whose data blocks may have pages.
    fn above(
        &self,
        space: &mut Space<'_>,
        at: u64,
        number: u32,
        found: &mut Dataset,
    ) -> Result<(), Stop> {
        let sizes = space.sizes;
        let offset = u64::from(sizes.offsets);
        let (blocks, entries) = (Self::blocks(number), self.entries(number));
        let pages = if entries > self.page { entries / self.page } else { 0 };
        let bits = pages.div_ceil(8).saturating_mul(blocks);
        let rest = bits.saturating_add(blocks.saturating_mul(offset));
        let length = rest.saturating_add(10 + offset + self.offset_width);
        let block = space.block(at, length, WHAT)?;
        checksum::verify(&block, at, WHAT)?;
        let mut fields = Fields::new(&block, at, sizes);
        self.head(&mut fields, b"EASB")?;
        fields.take(self.offset_width, "the offset of a block")?;
        let bits = fields.take(bits, "the bits of pages")?;
        let used = |page: u64| {
            let byte = usize::try_from(page / 8).ok().and_then(|at| bits.get(at));
            byte.is_some_and(|byte| byte << (page % 8) & 0x80 != 0)
        };
        let mut missing = false;
        for block in 0..blocks {
            if let Some(at) = fields.address(WHAT)? {
                let used: Vec<bool> = (block * pages..(block + 1) * pages).map(used).collect();
                let walked = self.data(space, at, entries, &used, found);
                unless_missing(walked, &mut missing)?;
            }
        }
        if missing { Err(Stop::Missing) } else { Ok(()) }
    }

    fn data(
        &self,
        space: &mut Space<'_>,
        at: u64,
        entries: u64,
        pages: &[bool],
        found: &mut Dataset,
    ) -> Result<(), Stop> {
        let sizes = space.sizes;
        let head = 10 + u64::from(sizes.offsets) + self.offset_width;
        let inline = if pages.is_empty() { entries } else { 0 };
        let length = inline.saturating_mul(self.entry).saturating_add(head);
        let block = space.block(at, length, WHAT)?;
        checksum::verify(&block, at, WHAT)?;
        let mut fields = Fields::new(&block, at, sizes);
        self.head(&mut fields, b"EADB")?;
        fields.take(self.offset_width, "the offset of a block")?;
        for _ in 0..inline {
            self.chunks.entry(&mut fields, self.entry, found)?;
        }
        let mut missing = false;
        let mut at = at + length;
        for &used in pages {
            let page = self.chunks.page(space, at, (self.page, self.entry), used, found);
            unless_missing(page, &mut missing)?;
            at += self.page * self.entry + 4;
        }
        if missing { Err(Stop::Missing) } else { Ok(()) }
    }
}
