//! Fractal heaps: many links or attributes of one object.
//!
//! ```text
//! header    "FRHP", 0, id u16, filters u16, flags, largest u32, 12 numbers, the doubling table, sum
//! table     width u16, first block, largest direct block, bits u16, rows u16, root, rows u16
//! direct    "FHDB", 0, header, offset, [sum], objects
//! indirect  "FHIB", 0, header, offset, addresses of blocks, sum
//! id        managed: 0, offset, length | tiny: 0x20 + length - 1, data
//! ```
//!
//! The blocks of rows 0 and 1 have the size of the first, those of each other row twice that of the
//! row before; beyond the largest direct block they are indirect, with as many rows as fill them.

use std::borrow::Cow;

use crate::error::{DecodeError, Kind};
use crate::hdf5::checksum;
use crate::hdf5::space::{Fields, Sizes, Space, Stop, bad, unless_missing};

const WHAT: &str = "a fractal heap";
const CHECKED: u8 = 1 << 1;

struct Block<'a> {
    /// Where it is in the heap, and in the content.
    place: (u64, u64),
    data: Cow<'a, [u8]>,
    /// Where its objects start.
    start: u64,
}

/// A heap with all its blocks.
pub struct Heap<'a> {
    blocks: Vec<Block<'a>>,
    offset_width: u8,
    length_width: u8,
    sizes: Sizes,
}

struct Table {
    header: u64,
    width: u64,
    first: u64,
    largest: u64,
    bits: u16,
    checked: bool,
}

/// Reads a heap.
pub fn read<'a>(space: &mut Space<'a>, at: u64) -> Result<Heap<'a>, Stop> {
    let sizes = space.sizes;
    let (offset, length) = (u64::from(sizes.offsets), u64::from(sizes.lengths));
    let block = space.block(at, 26 + 3 * offset + 12 * length, WHAT)?;
    checksum::verify(&block, at, WHAT)?;
    let mut fields = Fields::new(&block, at, sizes);
    fields.signature(b"FRHP", WHAT)?;
    fields.version(&[0], WHAT)?;
    let before = fields;
    fields.short("the length of an id")?;
    let filters = fields.short("filters")?;
    let flags = fields.byte("flags")?;
    let managed = u64::from(fields.word("the largest object")?);
    fields.length("the next huge object")?;
    fields.address("the tree of huge objects")?;
    fields.length("free space")?;
    let free = fields.address("free space")?;
    for _ in 0..4 {
        fields.length("managed space")?;
    }
    fields.length("huge objects")?;
    let huge = fields.length("huge objects")?;
    fields.take(2 * length, "tiny objects")?;
    let width = u64::from(fields.short("the width of the table")?);
    let first = fields.length("the first block")?;
    let largest = fields.length("the largest direct block")?;
    let bits = fields.short("the bits of an offset")?;
    fields.short("rows")?;
    let root = fields.address("the root block")?;
    let rows = fields.short("rows")?;
    if filters > 0 || huge > 0 {
        let message = "a heap of links or attributes that are compressed, or larger than a block";
        return Err(before.bad(Kind::Unsupported, message).into());
    }
    let powers = [width, first, largest].iter().all(|size| size.is_power_of_two());
    if !powers || largest < first || !(1..=64).contains(&bits) || largest > 1 << 32 {
        let message = format!("a heap {width} blocks wide, of {first} to {largest} bytes each");
        return Err(before.bad(Kind::Value, message).into());
    }
    let length_width = bytes(largest.ilog2()).min(bytes(managed.max(1).ilog2() + 1));
    let offset_width = bytes(bits.into());
    let mut heap = Heap { blocks: Vec::new(), offset_width, length_width, sizes };
    let table = Table { header: at, width, first, largest, bits, checked: flags & CHECKED != 0 };
    let mut missing = false;
    if let Some(free) = free {
        unless_missing(free_space(space, free), &mut missing)?;
    }
    if let Some(root) = root {
        let walked = if rows == 0 {
            table.direct(space, root, 0, first, &mut heap)
        } else {
            table.indirect(space, root, 0, rows.into(), &mut heap)
        };
        unless_missing(walked, &mut missing)?;
    }
    if missing { Err(Stop::Missing) } else { Ok(heap) }
}

fn bytes(bits: u32) -> u8 {
    u8::try_from(bits.div_ceil(8)).unwrap_or(8)
}

/// Claims what manages the free space of a heap; it is not needed for reading.
fn free_space(space: &mut Space<'_>, at: u64) -> Result<(), Stop> {
    const WHAT: &str = "the free space of a heap";
    let sizes = space.sizes;
    let length = 18 + 7 * u64::from(sizes.lengths) + u64::from(sizes.offsets);
    let block = space.block(at, length, WHAT)?;
    checksum::verify(&block, at, WHAT)?;
    let mut fields = Fields::new(&block, at, sizes);
    fields.signature(b"FSHD", WHAT)?;
    fields.version(&[0], WHAT)?;
    fields.take(9 + 5 * u64::from(sizes.lengths), WHAT)?;
    let sections = fields.address(WHAT)?;
    fields.length(WHAT)?;
    let length = fields.length(WHAT)?;
    if let Some(sections) = sections {
        space.block(sections, length, WHAT)?;
    }
    Ok(())
}

impl Table {
    /// The size of the blocks of a row.
    fn size(&self, row: u64) -> Option<u64> {
        let shift = u32::try_from(row.saturating_sub(1)).ok()?;
        self.first.checked_mul(1_u64.checked_shl(shift)?)
    }

    fn head(&self, fields: &mut Fields<'_>, mark: &[u8], at: u64) -> Result<(), DecodeError> {
        fields.signature(mark, WHAT)?;
        fields.version(&[0], WHAT)?;
        let before = *fields;
        let header = fields.address("the header of a heap")?;
        let offset = fields.number(bytes(self.bits.into()), "the offset of a block")?;
        if header != Some(self.header) || offset != at {
            return Err(before.bad(Kind::Value, "a block of a heap belongs to another place"));
        }
        Ok(())
    }

    fn direct<'a>(
        &self,
        space: &mut Space<'a>,
        address: u64,
        at: u64,
        size: u64,
        heap: &mut Heap<'a>,
    ) -> Result<(), Stop> {
        let data = space.block(address, size, WHAT)?;
        let mut fields = Fields::new(&data, address, space.sizes);
        self.head(&mut fields, b"FHDB", at)?;
        if self.checked {
            let place = fields.done();
            let stored = fields.word("a checksum")?;
            let mut covered = data.to_vec();
            covered.iter_mut().skip(place).take(4).for_each(|byte| *byte = 0);
            let found = checksum::lookup3(&covered);
            if found != stored {
                let message = format!(
                    "a block of a heap has the checksum {stored:#010x}, its bytes {found:#010x}"
                );
                return Err(bad(Kind::Checksum, address, message).into());
            }
        }
        let start = fields.done() as u64;
        heap.blocks.push(Block { place: (at, address), data, start });
        Ok(())
    }

    fn indirect<'a>(
        &self,
        space: &mut Space<'a>,
        address: u64,
        at: u64,
        rows: u64,
        heap: &mut Heap<'a>,
    ) -> Result<(), Stop> {
        let sizes = space.sizes;
        let prefix = 5 + u64::from(sizes.offsets) + u64::from(bytes(self.bits.into()));
        let count = self.width.saturating_mul(rows);
        let length = count.saturating_mul(sizes.offsets.into()).saturating_add(prefix + 4);
        let data = space.block(address, length, WHAT)?;
        checksum::verify(&data, address, WHAT)?;
        let mut fields = Fields::new(&data, address, sizes);
        self.head(&mut fields, b"FHIB", at)?;
        let mut missing = false;
        let mut place = at;
        for row in 0..rows {
            let beyond = || bad(Kind::Value, address, "a heap has more rows than offsets");
            let size = self.size(row).ok_or_else(beyond)?;
            for _ in 0..self.width {
                if let Some(child) = fields.address("a block of a heap")? {
                    let walked = if size <= self.largest {
                        self.direct(space, child, place, size, heap)
                    } else {
                        let first = self.first.saturating_mul(self.width);
                        let rows = size.checked_div(first).filter(|&times| times > 0);
                        let rows = u64::from(rows.ok_or_else(beyond)?.ilog2()) + 1;
                        self.indirect(space, child, place, rows, heap)
                    };
                    unless_missing(walked, &mut missing)?;
                }
                place = place.checked_add(size).ok_or_else(beyond)?;
            }
        }
        if missing { Err(Stop::Missing) } else { Ok(()) }
    }
}

impl Heap<'_> {
    /// The object with an id; `from` is where the id is.
    pub fn object<'h>(&'h self, id: &'h [u8], from: u64) -> Result<Fields<'h>, DecodeError> {
        const HUGE: u8 = 1;
        const TINY: u8 = 2;
        let mut fields = Fields::new(id, from, self.sizes);
        let flags = fields.byte("the id of an object")?;
        match (flags >> 6, flags >> 4 & 3) {
            (0, 0) => {}
            (0, HUGE) => {
                let message = "a link or an attribute that is larger than a block of its heap";
                return Err(fields.bad(Kind::Unsupported, message));
            }
            (0, TINY) => return fields.part(u64::from(flags & 15) + 1, "a tiny object"),
            _ => return Err(fields.bad(Kind::Value, format!("an id starts with {flags:#04x}"))),
        }
        let at = fields.number(self.offset_width, "the offset of an object")?;
        let length = fields.number(self.length_width, "the length of an object")?;
        let after = self.blocks.partition_point(|block| block.place.0 <= at);
        let block = after.checked_sub(1).and_then(|number| self.blocks.get(number));
        let found = block.and_then(|block| {
            let start = at - block.place.0;
            let end = start.checked_add(length)?;
            let (low, high) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
            let data = block.data.get(low..high).filter(|_| start >= block.start)?;
            Some(Fields::new(data, block.place.1 + start, self.sizes))
        });
        found.ok_or_else(|| {
            fields.bad(Kind::Bounds, format!("a heap has no object of {length} bytes at {at}"))
        })
    }
}
