//! The indexes of chunks that layouts of version 4 have.
//!
//! ```text
//! layout  4, 2, flags, rank + 1, width, dimensions, kind, parameters, address
//! 1       a single chunk: [size, skipped filters u32] if it is filtered
//! 2       all chunks, one after the other
//! 3       a fixed array: page bits u8
//!         "FAHD", 0, client, entry u8, page bits u8, entries, block, sum
//!         "FADB", 0, client, header, entries, sum; or bitmap of pages, sum, { entries, sum }
//!         entry: address, or address, size, skipped filters u32
//! 4       an extensible array: 5 x u8
//! 5       a tree of version 2: node u32, 2 x u8; records as entries, then rank offsets u64
//! ```

use crate::error::{DecodeError, Kind};
use crate::hdf5::dataset::{self, Dataset, Layout};
use crate::hdf5::space::{Fields, Space, Stop, bad, unless_missing};
use crate::hdf5::{checksum, growing, records};

/// What is read, for messages.
pub const WHAT: &str = "an index of chunks";

/// What all indexes need to know.
pub struct Chunks {
    /// Bytes of one that is not filtered.
    size: u64,
    filtered: bool,
}

/// Reads the index of a dataset from behind the class of its layout.
pub fn read(
    space: &mut Space<'_>,
    fields: &mut Fields<'_>,
    found: &mut Dataset,
) -> Result<(), Stop> {
    const FILTERED: u8 = 1 << 1;
    found.layout = Layout::Chunked;
    let before = *fields;
    let flags = fields.byte("flags")?;
    let rank = fields.byte("the rank of chunks")?;
    let width = fields.byte("the width of dimensions")?;
    if !(1..=8).contains(&width) {
        return Err(before.bad(Kind::Value, format!("dimensions are {width} bytes wide")).into());
    }
    let dims = dataset::chunk_dims(fields, rank, width, found)?;
    let size = dims.iter().product();
    let chunks = Chunks { size, filtered: !found.filters.is_empty() };
    match fields.byte("the kind of an index")? {
        1 => {
            let mut size = chunks.size;
            if flags & FILTERED != 0 {
                size = fields.length("the size of a chunk")?;
                fields.word("skipped filters")?;
            }
            if let Some(at) = fields.address("a chunk")? {
                found.chunk(at, size)?;
            }
        }
        2 => {
            if let Some(at) = fields.address("chunks")? {
                let counts = found.most.iter().zip(&dims).map(|(&dim, &chunk)| dim.div_ceil(chunk));
                let mut counts = counts.chain([chunks.size]);
                let whole = counts.try_fold(1_u64, u64::checked_mul);
                let message = "chunks take more bytes than a file can have";
                found.chunk(at, whole.ok_or_else(|| bad(Kind::Value, at, message))?)?;
            }
        }
        3 => {
            fields.byte("the bits of a page")?;
            if let Some(at) = fields.address(WHAT)? {
                chunks.array(space, at, found)?;
            }
        }
        4 => {
            fields.take(5, WHAT)?;
            if let Some(at) = fields.address(WHAT)? {
                growing::read(space, at, &chunks, found)?;
            }
        }
        5 => {
            fields.take(6, WHAT)?;
            if let Some(at) = fields.address(WHAT)? {
                chunks.tree(space, at, found)?;
            }
        }
        kind => {
            let message = format!("an index of chunks has the kind {kind}");
            return Err(before.bad(Kind::Value, message).into());
        }
    }
    Ok(())
}

impl Chunks {
    fn tree(&self, space: &mut Space<'_>, at: u64, found: &mut Dataset) -> Result<(), Stop> {
        const PLAIN: u8 = 10;
        const FILTERED: u8 = 11;
        let sizes = space.sizes;
        let kind = if self.filtered { FILTERED } else { PLAIN };
        let records = records::read(space, at, kind)?;
        let scaled = 8 * found.dims.len() as u64;
        let entry = u64::from(records.size).checked_sub(scaled);
        let entry = entry.ok_or_else(|| bad(Kind::Value, at, "records of chunks are too short"))?;
        for record in records.iter() {
            self.entry(&mut Fields::new(record, at, sizes), entry, found)?;
        }
        Ok(())
    }

    /// Notes the chunk of an entry of some length.
    pub fn entry(
        &self,
        fields: &mut Fields<'_>,
        length: u64,
        found: &mut Dataset,
    ) -> Result<(), Stop> {
        let start = fields.done() as u64;
        let address = fields.address("a chunk")?;
        let mut size = self.size;
        if self.filtered {
            let rest = (start + length).checked_sub(fields.done() as u64 + 4);
            let width = rest.and_then(|width| u8::try_from(width).ok()).filter(|&width| width <= 8);
            let message = "an entry of an index of chunks has the wrong size";
            let width = width.ok_or_else(|| fields.bad(Kind::Value, message))?;
            size = fields.number(width, "the size of a chunk")?;
            fields.word("skipped filters")?;
        }
        if (fields.done() as u64) != start + length {
            let message = "an entry of an index of chunks has the wrong size";
            return Err(fields.bad(Kind::Value, message).into());
        }
        if let Some(address) = address {
            found.chunk(address, size)?;
        }
        Ok(())
    }

    fn array(&self, space: &mut Space<'_>, at: u64, found: &mut Dataset) -> Result<(), Stop> {
        let sizes = space.sizes;
        let (offset, length) = (u64::from(sizes.offsets), u64::from(sizes.lengths));
        let block = space.block(at, 12 + offset + length, WHAT)?;
        checksum::verify(&block, at, WHAT)?;
        let mut fields = Fields::new(&block, at, sizes);
        fields.signature(b"FAHD", WHAT)?;
        fields.version(&[0], WHAT)?;
        let before = fields;
        let client = fields.byte(WHAT)?;
        let entry = u64::from(fields.byte("the size of an entry")?);
        let bits = u32::from(fields.byte("the bits of a page")?);
        let count = fields.length("the number of chunks")?;
        if client != self.client() || entry == 0 || count > 1 << 48 || bits > 32 {
            let message = format!("{WHAT} with {count} entries of {entry} bytes each");
            return Err(before.bad(Kind::Value, message).into());
        }
        let Some(data) = fields.address(WHAT)? else { return Ok(()) };
        let prefix = 6 + offset;
        let page = 1_u64 << bits;
        if count <= page {
            let length = prefix + count * entry;
            let block = space.block(data, length + 4, WHAT)?;
            checksum::verify(&block, data, WHAT)?;
            let mut fields = Fields::new(&block, data, sizes);
            head(&mut fields, client, at)?;
            for _ in 0..count {
                self.entry(&mut fields, entry, found)?;
            }
            return Ok(());
        }
        let bitmap = count.div_ceil(page).div_ceil(8);
        let block = space.block(data, prefix + bitmap + 4, WHAT)?;
        checksum::verify(&block, data, WHAT)?;
        let mut fields = Fields::new(&block, data, sizes);
        head(&mut fields, client, at)?;
        let bitmap = fields.take(bitmap, "a bitmap of pages")?;
        self.pages(space, data + block.len() as u64, (count, entry, page), bitmap, found)
    }

    fn pages(
        &self,
        space: &mut Space<'_>,
        mut at: u64,
        (mut left, entry, page): (u64, u64, u64),
        bitmap: &[u8],
        found: &mut Dataset,
    ) -> Result<(), Stop> {
        let mut missing = false;
        let bits = bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte << bit & 0x80 != 0));
        for used in bits {
            let count = left.min(page);
            if count == 0 {
                break;
            }
            let length = count * entry + 4;
            let read = self.page(space, at, (count, entry), used, found);
            unless_missing(read, &mut missing)?;
            at += length;
            left -= count;
        }
        if missing { Err(Stop::Missing) } else { Ok(()) }
    }

    /// Reads a page of entries, unless it was never used.
    pub fn page(
        &self,
        space: &mut Space<'_>,
        at: u64,
        (count, entry): (u64, u64),
        used: bool,
        found: &mut Dataset,
    ) -> Result<(), Stop> {
        let block = space.block(at, count * entry + 4, WHAT)?;
        if used {
            checksum::verify(&block, at, WHAT)?;
            let mut fields = Fields::new(&block, at, space.sizes);
            for _ in 0..count {
                self.entry(&mut fields, entry, found)?;
            }
        }
        Ok(())
    }

    /// What the entries are, as headers have it.
    pub fn client(&self) -> u8 {
        self.filtered.into()
    }
}

fn head(fields: &mut Fields<'_>, client: u8, header: u64) -> Result<(), DecodeError> {
    fields.signature(b"FADB", WHAT)?;
    fields.version(&[0], WHAT)?;
    let before = *fields;
    if (fields.byte(WHAT)?, fields.address(WHAT)?) != (client, Some(header)) {
        return Err(before.bad(Kind::Value, "an index of chunks belongs to another"));
    }
    Ok(())
}
