//! Datasets: dataspace, layout, filters, and where the bytes are.

use crate::error::{DecodeError, Kind};
use crate::hdf5::datatype::{self, Class, Datatype, Dtype};
use crate::hdf5::header::{self, Header, Message};
use crate::hdf5::space::{Fields, Space, Stop, bad};
use crate::hdf5::superblock::Superblock;
use crate::hdf5::{chunks, indexes};

/// The largest rank that HDF5 has.
pub const MAX_RANK: u8 = 32;
const MAX_FILTERS: u8 = 32;
/// A declared size above this must be backed by a thousandth of it.
const FREE_SIZE: u64 = 4 << 30;
const MAX_RATIO: u64 = 1000;

/// The dimensions of a dataset or an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dataspace {
    /// No elements, and no shape either.
    Null,
    /// A shape, and what it may grow to; that of a scalar is empty.
    Simple(Vec<u64>, Vec<u64>),
}

impl Dataspace {
    /// The bytes of all elements, each of `size` bytes.
    pub fn nbytes(&self, size: u64) -> Option<u64> {
        let Self::Simple(dims, _) = self else { return Some(0) };
        // A zero among them must not hide that the others are impossible.
        let fits = dims
            .iter()
            .filter(|&&dim| dim > 0)
            .try_fold(size, |total, &dim| total.checked_mul(dim))
            .filter(|&total| total <= i64::MAX.cast_unsigned())?;
        Some(if dims.contains(&0) { 0 } else { fits })
    }
}

/// Decodes a dataspace.
pub fn dataspace(fields: &mut Fields<'_>) -> Result<Dataspace, DecodeError> {
    let version = fields.version(&[1, 2], "a dataspace")?;
    let before = *fields;
    let rank = fields.byte("a rank")?;
    let flags = fields.byte("flags")?;
    let class = if version == 1 {
        fields.take(5, "reserved bytes")?;
        u8::from(rank > 0)
    } else {
        fields.byte("the class of a dataspace")?
    };
    if rank > MAX_RANK {
        return Err(before.bad(Kind::Value, format!("the rank is {rank}, at most {MAX_RANK}")));
    }
    if class > 2 || (class != 1 && rank > 0) {
        let message = format!("a dataspace of class {class} has the rank {rank}");
        return Err(before.bad(Kind::Value, message));
    }
    if class == 2 {
        return Ok(Dataspace::Null);
    }
    let mut dims = Vec::with_capacity(rank.into());
    for _ in 0..rank {
        let before = *fields;
        let dim = fields.length("a dimension")?;
        if dim > i64::MAX.cast_unsigned() {
            return Err(before.bad(Kind::Value, format!("a dimension is {dim}")));
        }
        dims.push(dim);
    }
    let mut most = dims.clone();
    if flags & 1 != 0 {
        for most in &mut most {
            *most = fields.length("a largest dimension")?;
        }
    }
    Ok(Dataspace::Simple(dims, most))
}

/// How the bytes of a dataset are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Layout {
    /// In one range.
    Contiguous,
    /// In chunks.
    Chunked,
    /// In the object header.
    Compact,
    /// Not at all: the elements are the fill value.
    Unallocated,
}

/// A dataset.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What its elements are.
    pub datatype: Datatype,
    /// Its shape.
    pub dims: Vec<u64>,
    /// What its shape may grow to.
    pub most: Vec<u64>,
    /// How it is stored.
    pub layout: Layout,
    /// Where it is, if it is contiguous.
    pub offset: Option<u64>,
    /// Bytes of its elements.
    pub nbytes: u64,
    /// Bytes that it takes.
    pub stored: u64,
    /// The filters of its chunks.
    pub filters: Vec<u16>,
    /// All ranges with its bytes.
    pub ranges: Vec<(u64, u64)>,
}

impl Dataset {
    /// Notes a chunk.
    pub fn chunk(&mut self, at: u64, size: u64) -> Result<(), DecodeError> {
        let total = self.stored.checked_add(size).filter(|_| size > 0);
        let message = format!("a chunk takes {size} bytes");
        self.stored = total.ok_or_else(|| bad(Kind::Value, at, message))?;
        self.ranges.push((at, size));
        Ok(())
    }

    /// The dtype, given what an attribute says about opaque elements; the byte order.
    pub fn dtype(&self, named: Option<&[u8]>) -> Option<(Dtype, bool)> {
        match (self.datatype.class, self.datatype.size, named) {
            (Class::Number(dtype, big), _, _) => Some((dtype, big)),
            (Class::Opaque, 2, Some(b"bfloat16")) => Some((Dtype::Bfloat16, false)),
            (Class::Opaque, 1, None) => Some((Dtype::Uint8, false)),
            (Class::Opaque, 2, None) => Some((Dtype::Uint16, false)),
            _ => None,
        }
    }
}

/// Decodes a dataset, and walks the tree of its chunks.
pub fn read(
    space: &mut Space<'_>,
    header: &Header<'_>,
    layout: &Message,
    superblock: &Superblock,
) -> Result<Dataset, Stop> {
    let sizes = space.sizes;
    if let Some(message) = header.messages.iter().find(|found| found.kind == header::EXTERNAL) {
        let words = "the dataset is in other files, which are never opened";
        return Err(bad(Kind::Unsupported, message.offset, words).into());
    }
    let lacks = |what| bad(Kind::Value, layout.offset, format!("a dataset without a {what}"));
    let message =
        header.single(header::DATASPACE, "dataspace")?.ok_or_else(|| lacks("dataspace"))?;
    let shape = dataspace(&mut header.fields(message, sizes))?;
    let message = header.single(header::DATATYPE, "datatype")?.ok_or_else(|| lacks("datatype"))?;
    let datatype = datatype::decode(&mut header.fields(message, sizes))?;
    let filters = match header.single(header::FILTERS, "filters")? {
        Some(message) => filters(&mut header.fields(message, sizes))?,
        None => Vec::new(),
    };
    let Some(nbytes) = shape.nbytes(datatype.size.into()) else {
        let message = "the shape takes more bytes than a file can have";
        return Err(bad(Kind::Value, layout.offset, message).into());
    };
    let Dataspace::Simple(dims, most) = shape else {
        let message = "a dataset without a shape is no tensor";
        return Err(bad(Kind::Unsupported, layout.offset, message).into());
    };
    let mut found = Dataset {
        datatype,
        dims,
        most,
        layout: Layout::Unallocated,
        offset: None,
        nbytes,
        stored: 0,
        filters,
        ranges: Vec::new(),
    };
    stored(space, header.fields(layout, sizes), &mut found, superblock)?;
    if !found.filters.is_empty() && found.layout != Layout::Chunked {
        let message = "filters belong to chunks, and the dataset has none";
        return Err(bad(Kind::Value, layout.offset, message).into());
    }
    let backed = found.layout == Layout::Contiguous
        || found.nbytes <= FREE_SIZE
        || found.nbytes / MAX_RATIO <= found.stored;
    if !backed {
        let message = format!(
            "the shape takes {} bytes, the file has {} for it: refused as a bomb",
            found.nbytes, found.stored
        );
        return Err(bad(Kind::Unsupported, layout.offset, message).into());
    }
    Ok(found)
}

const COMPACT: u8 = 0;
const CONTIGUOUS: u8 = 1;
const CHUNKED: u8 = 2;
const VIRTUAL: u8 = 3;

fn stored(
    space: &mut Space<'_>,
    mut fields: Fields<'_>,
    found: &mut Dataset,
    superblock: &Superblock,
) -> Result<(), Stop> {
    let version = fields.version(&[1, 2, 3, 4], "a layout")?;
    let before = fields;
    if version < 3 {
        return old(space, fields, found, superblock);
    }
    match fields.byte("the class of a layout")? {
        COMPACT => {
            let size = fields.short("a size")?;
            compact(&mut fields, u64::from(size), found)?;
        }
        CONTIGUOUS => {
            let at = fields.address("the address of a dataset")?;
            let size = fields.length("the size of a dataset")?;
            if size != found.nbytes {
                let message =
                    format!("the shape takes {} bytes, the layout says {size}", found.nbytes);
                return Err(before.bad(Kind::Value, message).into());
            }
            contiguous(at, found);
        }
        CHUNKED if version == 3 => {
            let rank = fields.byte("the rank of chunks")?;
            let at = fields.address("the tree of chunks")?;
            let dims = chunk_dims(&mut fields, rank, 4, found)?;
            chunks::tree(space, at, &dims, found, superblock)?;
        }
        CHUNKED => indexes::read(space, &mut fields, found)?,
        VIRTUAL => {
            let message = "the dataset is a view of others, which may be in other files";
            return Err(before.bad(Kind::Unsupported, message).into());
        }
        class => {
            return Err(before.bad(Kind::Value, format!("a layout has the class {class}")).into());
        }
    }
    Ok(())
}

/// Versions 1 and 2, which have the dimensions of a contiguous dataset as well.
fn old(
    space: &mut Space<'_>,
    mut fields: Fields<'_>,
    found: &mut Dataset,
    superblock: &Superblock,
) -> Result<(), Stop> {
    let rank = fields.byte("a rank")?;
    let before = fields;
    let class = fields.byte("the class of a layout")?;
    fields.take(5, "reserved bytes")?;
    match class {
        COMPACT => {
            fields.take(4 * u64::from(rank), "dimensions")?;
            let size = fields.word("a size")?;
            compact(&mut fields, u64::from(size), found)?;
        }
        CONTIGUOUS => contiguous(fields.address("the address of a dataset")?, found),
        CHUNKED => {
            let at = fields.address("the tree of chunks")?;
            let dims = chunk_dims(&mut fields, rank, 4, found)?;
            chunks::tree(space, at, &dims, found, superblock)?;
        }
        _ => {
            return Err(before.bad(Kind::Value, format!("a layout has the class {class}")).into());
        }
    }
    Ok(())
}

fn compact(fields: &mut Fields<'_>, size: u64, found: &mut Dataset) -> Result<(), DecodeError> {
    if size != found.nbytes {
        let message = format!("the shape takes {} bytes, the layout says {size}", found.nbytes);
        return Err(fields.bad(Kind::Value, message));
    }
    fields.take(size, "the elements")?;
    found.layout = Layout::Compact;
    found.stored = size;
    Ok(())
}

fn contiguous(at: Option<u64>, found: &mut Dataset) {
    if let Some(at) = at.filter(|_| found.nbytes > 0) {
        found.layout = Layout::Contiguous;
        found.offset = Some(at);
        found.stored = found.nbytes;
        found.ranges.push((at, found.nbytes));
    }
}

/// The dimensions of a chunk; the last one stored is the size of an element.
pub fn chunk_dims(
    fields: &mut Fields<'_>,
    rank: u8,
    width: u8,
    found: &Dataset,
) -> Result<Vec<u64>, DecodeError> {
    let before = *fields;
    if usize::from(rank) != found.dims.len() + 1 || rank == 1 {
        let message = format!("chunks of rank {rank} in a dataset of rank {}", found.dims.len());
        return Err(before.bad(Kind::Value, message));
    }
    let dims: Result<Vec<u64>, _> =
        (0..rank).map(|_| fields.number(width, "a dimension of chunks")).collect();
    let dims = dims?;
    let (&size, rest) = dims.split_last().unwrap_or((&0, &[]));
    let bytes = dims.iter().try_fold(1_u64, |total, &dim| total.checked_mul(dim));
    if size != u64::from(found.datatype.size) || rest.contains(&0) {
        let message = format!("chunks have the dimensions {dims:?}, the last is no element size");
        return Err(before.bad(Kind::Value, message));
    }
    if bytes.is_none_or(|bytes| bytes > u64::from(u32::MAX)) {
        let message = format!("chunks of the dimensions {dims:?} take 4 GiB or more");
        return Err(before.bad(Kind::Value, message));
    }
    Ok(dims)
}

fn filters(fields: &mut Fields<'_>) -> Result<Vec<u16>, DecodeError> {
    const CUSTOM: u16 = 256;
    let version = fields.version(&[1, 2], "a list of filters")?;
    let before = *fields;
    let number = fields.byte("the number of filters")?;
    if number == 0 || number > MAX_FILTERS {
        let message = format!("a list of {number} filters has 1 to {MAX_FILTERS}");
        return Err(before.bad(Kind::Value, message));
    }
    if version == 1 {
        fields.take(6, "reserved bytes")?;
    }
    let mut found = Vec::with_capacity(number.into());
    for _ in 0..number {
        let filter = fields.short("a filter")?;
        let named = version == 1 || filter >= CUSTOM;
        let name = if named { fields.short("the name of a filter")? } else { 0 };
        fields.short("flags")?;
        let values = fields.short("the parameters of a filter")?;
        let name = u64::from(name);
        let stored = if version == 1 { name.next_multiple_of(8) } else { name };
        fields.take(stored, "the name of a filter")?;
        let padding = if version == 1 { values & 1 } else { 0 };
        fields.take(4 * (u64::from(values) + u64::from(padding)), "parameters")?;
        found.push(filter);
    }
    Ok(found)
}
