//! The superblock: where the root is, and how wide addresses and lengths are.
//!
//! ```text
//! signature "\x89HDF\r\n\x1a\n" at byte 0, 512, 1024, 2048, ... of the content
//! 0, 1   versions, widths, K of the trees, flags, [chunk K], base, free space, end, driver, root entry
//! 2, 3   widths, flags, base, extension, end, root header, checksum
//! ```

use crate::error::{DecodeError, Kind};
use crate::hdf5::space::{Fields, Sizes, Space, Stop, bad};
use crate::hdf5::{checksum, header};

const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
const USERBLOCK: u64 = 512;
const CHUNK_K: u16 = 32;
const WRITING: u8 = 0b101;

/// What the rest of the file depends on.
#[derive(Clone, Copy, Debug)]
pub struct Superblock {
    /// Where the header of the root group is.
    pub root: u64,
    /// Half of the entries of a symbol table node.
    pub leaf_k: u16,
    /// Half of the entries of a node of a group's tree.
    pub group_k: u16,
    /// Half of the entries of a node of a tree of chunks.
    pub chunk_k: u16,
}

/// Finds and decodes the superblock; from then on the space knows widths, base and end.
pub fn read(space: &mut Space<'_>) -> Result<Superblock, Stop> {
    let at = find(space)?;
    let version = space.read(at + 8, 1, "the superblock")?.first().copied().unwrap_or_default();
    match version {
        0 | 1 => old(space, at, version),
        2 | 3 => new(space, at),
        _ => {
            let message = format!("the superblock has version {version}, known are 0 to 3");
            Err(bad(Kind::Unsupported, at + 8, message).into())
        }
    }
}

fn find(space: &mut Space<'_>) -> Result<u64, Stop> {
    let mut at = 0;
    while at + 9 <= space.end {
        if &*space.read(at, 8, "the signature")? == SIGNATURE {
            return Ok(at);
        }
        at = if at == 0 { USERBLOCK } else { at * 2 };
    }
    let message = "no HDF5 signature at byte 0, 512, 1024, ...: not an HDF5 file, or cut short";
    Err(bad(Kind::Value, 0, message).into())
}

fn widths(fields: &mut Fields<'_>) -> Result<(u8, u8), DecodeError> {
    let before = *fields;
    let found = (fields.byte("the width of addresses")?, fields.byte("the width of lengths")?);
    if ![found.0, found.1].iter().all(|width| [2, 4, 8].contains(width)) {
        let message = format!("addresses and lengths are {} and {} bytes wide", found.0, found.1);
        return Err(before.bad(Kind::Unsupported, message));
    }
    Ok(found)
}

/// Takes over base and end. A file that moved with its superblock moved as a whole.
fn settle(
    space: &mut Space<'_>,
    at: u64,
    base: Option<u64>,
    end: Option<u64>,
) -> Result<(), DecodeError> {
    let moved = |end: u64| end.checked_sub(base?)?.checked_add(at);
    let Some(end) = end.and_then(moved) else {
        return Err(bad(Kind::Value, at, "the superblock has no base address or end of the file"));
    };
    if end > space.end {
        let message =
            format!("the file is cut short: it should have {end} bytes, it has {}", space.end);
        return Err(bad(Kind::Truncated, space.end, message));
    }
    space.end = end;
    space.sizes.base = at;
    Ok(())
}

fn old(space: &mut Space<'_>, at: u64, version: u8) -> Result<Superblock, Stop> {
    let prefix = space.read(at, 16, "the superblock")?;
    let mut fields = Fields::new(&prefix, at, space.sizes);
    fields.take(13, "the superblock")?;
    let (offsets, lengths) = widths(&mut fields)?;
    let fixed = if version == 0 { 24 } else { 28 };
    let length = fixed + 4 * u64::from(offsets) + 2 * u64::from(offsets) + 24;
    let block = space.block(at, length, "the superblock")?;
    space.sizes = Sizes { offsets, lengths, base: 0 };
    let mut fields = Fields::new(&block, at, space.sizes);
    fields.take(16, "the superblock")?;
    let leaf_k = fields.short("K of symbol tables")?;
    let group_k = fields.short("K of group trees")?;
    let flags = fields.word("flags")?;
    let mut chunk_k = CHUNK_K;
    if version == 1 {
        chunk_k = fields.short("K of chunk trees")?;
        fields.short("reserved bytes")?;
    }
    open(u8::try_from(flags & 0xff).unwrap_or(u8::MAX), at)?;
    let base = fields.address("the base")?;
    fields.address("free space")?;
    let end = fields.address("the end of the file")?;
    if fields.address("the driver block")?.is_some() {
        return Err(fields.bad(Kind::Unsupported, "the file is one of a family of files").into());
    }
    settle(space, at, base, end)?;
    let mut root = Fields::new(fields.take(2 * u64::from(offsets), "the root")?, at, space.sizes);
    root.number(offsets, "the name of the root")?;
    let root = root.place("the root group")?;
    Ok(Superblock { root, leaf_k, group_k, chunk_k })
}

fn new(space: &mut Space<'_>, at: u64) -> Result<Superblock, Stop> {
    let prefix = space.read(at, 12, "the superblock")?;
    let mut fields = Fields::new(&prefix, at, space.sizes);
    fields.take(9, "the superblock")?;
    let (offsets, lengths) = widths(&mut fields)?;
    let flags = fields.byte("flags")?;
    let block = space.block(at, 16 + 4 * u64::from(offsets), "the superblock")?;
    checksum::verify(&block, at, "the superblock")?;
    open(flags, at)?;
    space.sizes = Sizes { offsets, lengths, base: 0 };
    let mut fields = Fields::new(&block, at, space.sizes);
    fields.take(12, "the superblock")?;
    let base = fields.address("the base")?;
    let places = fields;
    let (_, end) = (fields.address("the extension")?, fields.address("the end of the file")?);
    settle(space, at, base, end)?;
    let rest = places.clone().take(3 * u64::from(offsets), "the superblock")?;
    let mut places = Fields::new(rest, places.offset(), space.sizes);
    let extension = places.address("the extension")?;
    places.address("the end of the file")?;
    let root = places.place("the root group")?;
    let mut found = Superblock { root, leaf_k: 4, group_k: 16, chunk_k: CHUNK_K };
    if let Some(extension) = extension {
        extended(space, extension, &mut found)?;
    }
    Ok(found)
}

/// A file that someone writes, or stopped writing in the middle.
fn open(flags: u8, at: u64) -> Result<(), DecodeError> {
    if flags & WRITING != 0 {
        let message = "the file is marked as being written: its writer is at work, or never closed \
                       it (h5clear takes the mark away)";
        return Err(bad(Kind::Value, at, message));
    }
    Ok(())
}

fn extended(space: &mut Space<'_>, at: u64, found: &mut Superblock) -> Result<(), Stop> {
    let header = header::read(space, at)?;
    for message in &header.messages {
        let mut fields = header.fields(message, space.sizes);
        match message.kind {
            header::TREE_K => {
                fields.version(&[0], "the K of trees")?;
                found.chunk_k = fields.short("K of chunk trees")?;
                found.group_k = fields.short("K of group trees")?;
                found.leaf_k = fields.short("K of symbol tables")?;
            }
            header::SHARED_TABLE => {
                let message = "the file shares messages between object headers";
                return Err(fields.bad(Kind::Unsupported, message).into());
            }
            header::DRIVER => {
                let message = "the file is one of a family of files";
                return Err(fields.bad(Kind::Unsupported, message).into());
            }
            _ => {}
        }
    }
    Ok(())
}
