//! The walk over all objects, breadth first: as far as the bytes go.

use std::collections::HashMap;

use crate::error::{DecodeError, Kind};
use crate::hdf5::attribute::{self, Attribute};
use crate::hdf5::dataset::{self, Dataset};
use crate::hdf5::group::{self, Link};
use crate::hdf5::header::{self, Header};
use crate::hdf5::heap::Heaps;
use crate::hdf5::space::{Space, Stop, bad, unless_missing};
use crate::hdf5::superblock::{self, Superblock};
use crate::hdf5::{fractal, records};

/// What an object is.
pub enum Body {
    /// Not read yet.
    Pending,
    /// A group with its links.
    Group(Vec<Link>),
    /// A dataset.
    Dataset(Dataset),
}

/// An object of the file.
pub struct Object {
    /// Where its header is.
    pub address: u64,
    /// What it is.
    pub body: Body,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Where it was come by first: the group, and the number of the link.
    from: Option<(usize, usize)>,
}

/// All objects, the root first.
#[derive(Default)]
pub struct Objects {
    /// In the order in which they were come by.
    pub all: Vec<Object>,
    numbers: HashMap<u64, usize>,
}

impl Objects {
    /// The number of the object with a header at an address.
    pub fn number(&self, address: u64) -> Option<usize> {
        self.numbers.get(&address).copied()
    }

    fn meet(&mut self, address: u64, from: Option<(usize, usize)>) {
        let next = self.all.len();
        if *self.numbers.entry(address).or_insert(next) == next {
            let (body, attributes) = (Body::Pending, Vec::new());
            self.all.push(Object { address, body, attributes, from });
        }
    }

    /// A path to an object, for messages.
    pub fn path(&self, mut number: usize) -> Vec<u8> {
        const LONGEST: usize = 4096;
        let mut names: Vec<&[u8]> = Vec::new();
        let mut length = 0;
        while let Some((group, link)) = self.all.get(number).and_then(|object| object.from) {
            if let Some(Body::Group(links)) = self.all.get(group).map(|object| &object.body)
                && let Some((name, _)) = links.get(link)
                && length < LONGEST
            {
                length += name.len() + 1;
                names.push(name);
            }
            number = group;
        }
        names.reverse();
        names.join(&b'/')
    }
}

/// An object that is in the way: its number, and the reason.
pub type Refused = (usize, DecodeError);

/// Walks over all objects that the windows hold; tells whether that were all.
pub fn run(space: &mut Space<'_>, objects: &mut Objects, cap: u64) -> Result<bool, Refused> {
    let superblock = match superblock::read(space) {
        Ok(superblock) => superblock,
        Err(Stop::Missing) => return Ok(false),
        Err(Stop::Bad(error)) => return Err((0, error)),
    };
    objects.meet(superblock.root, None);
    let mut heaps = Heaps::new(cap);
    let mut whole = true;
    let mut number = 0;
    while let Some(object) = objects.all.get(number) {
        match read(space, &mut heaps, &superblock, object.address) {
            Err(Stop::Missing) => whole = false,
            Err(Stop::Bad(error)) => return Err((number, error)),
            Ok((body, attributes)) => {
                if let Body::Group(links) = &body {
                    for (link, &(_, address)) in links.iter().enumerate() {
                        objects.meet(address, Some((number, link)));
                    }
                }
                if let Some(object) = objects.all.get_mut(number) {
                    (object.body, object.attributes) = (body, attributes);
                }
            }
        }
        number += 1;
    }
    Ok(whole)
}

fn read<'a>(
    space: &mut Space<'a>,
    heaps: &mut Heaps<'a>,
    superblock: &Superblock,
    at: u64,
) -> Result<(Body, Vec<Attribute>), Stop> {
    let header = header::read(space, at)?;
    let mut missing = false;
    let body = unless_missing(body(space, &header, superblock, at), &mut missing)?;
    let attributes = unless_missing(attributes(space, heaps, &header, at), &mut missing)?;
    body.zip(attributes).ok_or(Stop::Missing)
}

fn body(
    space: &mut Space<'_>,
    header: &Header<'_>,
    superblock: &Superblock,
    at: u64,
) -> Result<Body, Stop> {
    let has = |kinds: &[u16]| header.messages.iter().any(|message| kinds.contains(&message.kind));
    let group = has(&[header::SYMBOL_TABLE, header::LINK_INFO, header::LINK, header::GROUP_INFO]);
    match (header.single(header::LAYOUT, "layout")?, group) {
        (Some(_), true) => {
            Err(bad(Kind::Value, at, "an object is both a group and a dataset").into())
        }
        (Some(layout), false) => {
            Ok(Body::Dataset(dataset::read(space, header, layout, superblock)?))
        }
        (None, true) => Ok(Body::Group(group::read(space, header, superblock)?)),
        (None, false) if has(&[header::DATATYPE]) => {
            Err(bad(Kind::Unsupported, at, "a datatype with a name, which is no weight").into())
        }
        (None, false) => {
            Err(bad(Kind::Value, at, "an object is neither a group nor a dataset").into())
        }
    }
}

fn attributes<'a>(
    space: &mut Space<'a>,
    heaps: &mut Heaps<'a>,
    header: &Header<'_>,
    at: u64,
) -> Result<Vec<Attribute>, Stop> {
    let sizes = space.sizes;
    let mut found = Vec::new();
    let mut missing = false;
    if let Some(message) = header.single(header::ATTRIBUTE_INFO, "attributes")? {
        const TRACKED: u8 = 1;
        const INDEXED: u8 = 2;
        let mut fields = header.fields(message, sizes);
        fields.version(&[0], "the attributes of an object")?;
        let flags = fields.byte("flags")?;
        if flags & TRACKED != 0 {
            fields.short("the largest order of an attribute")?;
        }
        let heap = fields.address("the heap of attributes")?;
        let by_name = fields.address("the tree of attributes")?;
        let by_order = if flags & INDEXED != 0 {
            fields.address("the tree of attributes by order")?
        } else {
            None
        };
        if let Some(heap) = heap {
            let by_name =
                by_name.ok_or_else(|| fields.bad(Kind::Value, "attributes without a tree"))?;
            let many = many(space, heaps, heap, by_name, by_order);
            found.extend(unless_missing(many, &mut missing)?.unwrap_or_default());
        }
    }
    for message in header.messages.iter().filter(|found| found.kind == header::ATTRIBUTE) {
        message.unshared("attribute")?;
        let read = attribute::read(space, heaps, header.fields(message, sizes));
        found.extend(unless_missing(read, &mut missing)?);
    }
    attribute::distinct(&found, at)?;
    if missing { Err(Stop::Missing) } else { Ok(found) }
}

/// Reads attributes in a heap, which a tree of their names leads to.
fn many<'a>(
    space: &mut Space<'a>,
    heaps: &mut Heaps<'a>,
    heap: u64,
    by_name: u64,
    by_order: Option<u64>,
) -> Result<Vec<Attribute>, Stop> {
    const BY_NAME: u8 = 8;
    const BY_ORDER: u8 = 9;
    const ID: usize = 8;
    let mut missing = false;
    let heap = unless_missing(fractal::read(space, heap), &mut missing)?;
    let records = unless_missing(records::read(space, by_name, BY_NAME), &mut missing)?;
    if let Some(at) = by_order {
        unless_missing(records::read(space, at, BY_ORDER), &mut missing)?;
    }
    let (heap, records) = heap.zip(records).filter(|_| !missing).ok_or(Stop::Missing)?;
    let mut found = Vec::new();
    for record in records.iter() {
        if record.get(ID).is_none_or(|flags| flags & header::SHARED != 0) {
            let message = "an attribute that is shared with other objects";
            return Err(bad(Kind::Unsupported, by_name, message).into());
        }
        let object = heap.object(record.get(..ID).unwrap_or_default(), by_name)?;
        found.extend(unless_missing(attribute::read(space, heaps, object), &mut missing)?);
    }
    if missing { Err(Stop::Missing) } else { Ok(found) }
}
