//! Groups: the names of links and the addresses that they lead to.
//!
//! ```text
//! old   message: tree, heap
//!       tree  "TREE", 0, level u8, entries u16, left, right, { key, child }, key
//!       leaf  "SNOD", 1, 0, entries u16, { name, header, cache u32, 0 u32, 16 bytes }
//!       heap  "HEAP", 0, 3 x 0, length, free, address; names end in a zero byte
//! new   messages, one a link; many of them in a fractal heap
//!       link  1, flags, [type], [order u64], [charset], length of 1 to 8 bytes, name, address
//! ```

use std::borrow::Cow;
use std::collections::HashSet;

use crate::error::{DecodeError, Kind};
use crate::hdf5::header::{self, Header, Message};
use crate::hdf5::space::{Fields, Space, Stop, bad, unless_missing};
use crate::hdf5::superblock::Superblock;
use crate::hdf5::{chunks, fractal, records};

/// The name of a link and the address that it leads to.
pub type Link = (Vec<u8>, u64);

/// Reads the links of a group of either kind.
pub fn read(
    space: &mut Space<'_>,
    header: &Header<'_>,
    superblock: &Superblock,
) -> Result<Vec<Link>, Stop> {
    match header.single(header::SYMBOL_TABLE, "symbol table")? {
        Some(message) => old(space, header, message, superblock),
        None => new(space, header),
    }
}

fn old(
    space: &mut Space<'_>,
    header: &Header<'_>,
    message: &Message,
    superblock: &Superblock,
) -> Result<Vec<Link>, Stop> {
    let sizes = space.sizes;
    if let Some(link) = header.messages.iter().find(|found| found.kind == header::LINK) {
        let message = "a group has both a symbol table and links of its own";
        return Err(bad(Kind::Value, link.offset, message).into());
    }
    let mut fields = header.fields(message, sizes);
    let tree = fields.place("the tree of a group")?;
    let heap = fields.place("the heap of a group")?;
    let mut missing = false;
    let names = unless_missing(names(space, heap), &mut missing)?;
    let mut walk = Walk { superblock, heap: names.as_deref(), links: Vec::new() };
    unless_missing(walk.node(space, tree, None), &mut missing)?;
    let links = walk.links;
    if missing {
        return Err(Stop::Missing);
    }
    if let Some(two) = links.windows(2).find(|two| two[0].0 >= two[1].0) {
        let (first, second) = (two[0].0.escape_ascii(), two[1].0.escape_ascii());
        let message = format!("the names \"{first}\" and \"{second}\" are not in order");
        return Err(bad(Kind::Order, tree, message).into());
    }
    Ok(links)
}

/// The names in a local heap.
fn names<'a>(space: &mut Space<'a>, at: u64) -> Result<Cow<'a, [u8]>, Stop> {
    let sizes = space.sizes;
    let length = 8 + 2 * u64::from(sizes.lengths) + u64::from(sizes.offsets);
    let block = space.block(at, length, "the heap of a group")?;
    let mut fields = Fields::new(&block, at, sizes);
    fields.signature(b"HEAP", "the heap of a group")?;
    fields.version(&[0], "the heap of a group")?;
    fields.take(3, "reserved bytes")?;
    let length = fields.length("the length of a heap")?;
    fields.length("the free list of a heap")?;
    let data = fields.place("the names of a heap")?;
    space.block(data, length, "the names of a group")
}

struct Walk<'w> {
    superblock: &'w Superblock,
    heap: Option<&'w [u8]>,
    links: Vec<Link>,
}

impl Walk<'_> {
    fn node(&mut self, space: &mut Space<'_>, at: u64, expected: Option<u8>) -> Result<(), Stop> {
        let sizes = space.sizes;
        let most = 2 * u64::from(self.superblock.group_k);
        let (key, child) = (u64::from(sizes.lengths), u64::from(sizes.offsets));
        let length = 8 + 2 * child + most * (key + child) + key;
        let block = space.block(at, length, "the tree of a group")?;
        let mut fields = Fields::new(&block, at, sizes);
        let (level, entries) = chunks::head(&mut fields, 0, expected, most, "the tree of a group")?;
        let mut missing = false;
        for _ in 0..entries {
            fields.length("a key")?;
            let at = fields.place("a node")?;
            let walked = match level.checked_sub(1) {
                Some(below) => self.node(space, at, Some(below)),
                None => self.leaf(space, at),
            };
            unless_missing(walked, &mut missing)?;
        }
        if missing { Err(Stop::Missing) } else { Ok(()) }
    }

    fn leaf(&mut self, space: &mut Space<'_>, at: u64) -> Result<(), Stop> {
        const LINKED: u32 = 2;
        let sizes = space.sizes;
        let most = 2 * u64::from(self.superblock.leaf_k);
        let length = 8 + most * (2 * u64::from(sizes.offsets) + 24);
        let block = space.block(at, length, "a symbol table")?;
        let mut fields = Fields::new(&block, at, sizes);
        fields.signature(b"SNOD", "a symbol table")?;
        fields.version(&[1], "a symbol table")?;
        fields.byte("reserved bytes")?;
        let before = fields;
        let entries = fields.short("the number of links")?;
        if u64::from(entries) > most {
            let message = format!("a symbol table has {entries} links, at most {most}");
            return Err(before.bad(Kind::Value, message).into());
        }
        for _ in 0..entries {
            let before = fields;
            let name = fields.number(sizes.offsets, "the name of a link")?;
            let mut place = fields;
            fields.take(sizes.offsets.into(), "the address of a link")?;
            let cache = fields.word("the kind of a link")?;
            fields.take(20, "a link")?;
            let Some(heap) = self.heap else { continue };
            let name = usize::try_from(name).ok().and_then(|at| heap.get(at..));
            let length = name.and_then(|rest| rest.iter().position(|&byte| byte == 0));
            let Some((name, length)) = name.zip(length) else {
                let message = "the name of a link is not in the heap of its group";
                return Err(before.bad(Kind::Bounds, message).into());
            };
            let name = name.get(..length).unwrap_or_default().to_vec();
            check(&name, &before)?;
            if cache == LINKED {
                return Err(leads_out(&before, "a soft", &name).into());
            }
            let address = place.place("an object header")?;
            self.links.push((name, address));
        }
        Ok(())
    }
}

fn leads_out(fields: &Fields<'_>, kind: &str, name: &[u8]) -> DecodeError {
    let name = name.escape_ascii();
    let message = format!("\"{name}\" is {kind} link; only hard links are followed");
    fields.bad(Kind::Unsupported, message)
}

/// Names that no path can have.
fn check(name: &[u8], fields: &Fields<'_>) -> Result<(), DecodeError> {
    let bare = !matches!(name, b"" | b"." | b"..");
    if !bare || name.iter().any(|byte| [0, b'/'].contains(byte)) {
        let message = format!("a link has the name \"{}\"", name.escape_ascii());
        return Err(fields.bad(Kind::Value, message));
    }
    Ok(())
}

fn new(space: &mut Space<'_>, header: &Header<'_>) -> Result<Vec<Link>, Stop> {
    const TRACKED: u8 = 1;
    const INDEXED: u8 = 2;
    let sizes = space.sizes;
    let mut tracked = false;
    let mut links = Vec::new();
    if let Some(message) = header.single(header::LINK_INFO, "links")? {
        let mut fields = header.fields(message, sizes);
        fields.version(&[0], "the links of a group")?;
        let flags = fields.byte("flags")?;
        tracked = flags & TRACKED != 0;
        if tracked {
            fields.number(8, "the largest order of a link")?;
        }
        let heap = fields.address("the heap of links")?;
        let by_name = fields.address("the tree of links")?;
        let by_order =
            if flags & INDEXED != 0 { fields.address("the tree of links by order")? } else { None };
        if let Some(heap) = heap {
            let by_name = by_name.ok_or_else(|| fields.bad(Kind::Value, "links without a tree"))?;
            many(space, heap, by_name, by_order, &mut links)?;
        }
    }
    for message in header.messages.iter().filter(|message| message.kind == header::LINK) {
        message.unshared("link")?;
        links.push(link(&mut header.fields(message, sizes))?);
    }
    if tracked {
        links.sort_by_key(|link| link.order);
    } else {
        links.sort_by(|one, other| one.name.cmp(&other.name));
    }
    let mut seen = HashSet::with_capacity(links.len());
    if let Some(twice) = links.iter().find(|link| !seen.insert(&link.name)) {
        let message = format!("two links have the name \"{}\"", twice.name.escape_ascii());
        return Err(bad(Kind::Value, twice.offset, message).into());
    }
    Ok(links.into_iter().map(|link| (link.name, link.address)).collect())
}

/// Reads links in a heap, which a tree of their names leads to.
fn many(
    space: &mut Space<'_>,
    heap: u64,
    by_name: u64,
    by_order: Option<u64>,
    links: &mut Vec<Found>,
) -> Result<(), Stop> {
    const BY_NAME: u8 = 5;
    const BY_ORDER: u8 = 6;
    const HASH: usize = 4;
    let mut missing = false;
    let heap = unless_missing(fractal::read(space, heap), &mut missing)?;
    let found = unless_missing(records::read(space, by_name, BY_NAME), &mut missing)?;
    if let Some(at) = by_order {
        unless_missing(records::read(space, at, BY_ORDER), &mut missing)?;
    }
    let (heap, found) = heap.zip(found).filter(|_| !missing).ok_or(Stop::Missing)?;
    for record in found.iter() {
        let id = record.get(HASH..).unwrap_or_default();
        links.push(link(&mut heap.object(id, by_name)?)?);
    }
    Ok(())
}

struct Found {
    name: Vec<u8>,
    order: u64,
    address: u64,
    offset: u64,
}

fn link(fields: &mut Fields<'_>) -> Result<Found, DecodeError> {
    const ORDERED: u8 = 1 << 2;
    const TYPED: u8 = 1 << 3;
    const CHARSET: u8 = 1 << 4;
    let before = *fields;
    fields.version(&[1], "a link")?;
    let flags = fields.byte("flags")?;
    let kind = if flags & TYPED != 0 { fields.byte("the type of a link")? } else { 0 };
    let order = if flags & ORDERED != 0 { fields.number(8, "the order of a link")? } else { 0 };
    if flags & CHARSET != 0 {
        fields.byte("the charset of a link")?;
    }
    let length = fields.number(1 << (flags & 3), "the length of a name")?;
    let name = fields.take(length, "the name of a link")?.to_vec();
    check(&name, &before)?;
    match kind {
        0 => {}
        1 => return Err(leads_out(&before, "a soft", &name)),
        64 => return Err(leads_out(&before, "an external", &name)),
        _ => return Err(leads_out(&before, "a user-defined", &name)),
    }
    let address = fields.place("an object header")?;
    Ok(Found { name, order, address, offset: before.offset() })
}
