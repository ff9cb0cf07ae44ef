//! HDF5 metadata: which datasets a file has, and where their bytes are.
//!
//! The source of every fact is the HDF5 File Format Specification, version 3.
//!
//! ```text
//! space       windows on the file, and which block owns which bytes
//! checksum    of metadata
//! superblock  where the root is
//! header      object headers: the messages of an object
//! group       links: symbol tables, or messages
//! datatype    what elements are
//! dataset     dataspace, layout, filters
//! chunks      trees of chunks
//! indexes     other indexes of chunks
//! growing     one of them, for datasets that grow
//! records     trees of version 2
//! fractal     heaps of many links or attributes
//! attribute   names and values
//! heap        texts of any length
//! walk        all objects, breadth first
//! tables      columns of paths, objects, attributes
//! ```
//!
//! Nothing that leads out of the file is followed: soft, external and user-defined links, external
//! storage and views are refused, and so are groups that contain themselves.

mod attribute;
mod checksum;
mod chunks;
mod dataset;
mod datatype;
mod fractal;
mod group;
mod growing;
mod header;
mod heap;
mod indexes;
mod records;
mod space;
mod superblock;
mod tables;
mod walk;

pub use checksum::lookup3;
pub use dataset::Layout;
pub use datatype::Dtype;
pub use tables::{Sort, Tables};

use crate::error::{DecodeError, Error};
use space::Space;
use walk::Objects;

/// What a call comes to.
#[derive(Debug)]
pub enum Outcome {
    /// The walk needs more: offset and length of each range.
    Needs(Vec<i64>),
    /// The walk is through.
    Tables(Box<Tables>),
}

/// An error, and the path of the object that it is about.
#[derive(Debug)]
pub struct Refusal {
    /// What is wrong, at which byte of the whole.
    pub error: Error,
    /// The path.
    pub path: Vec<u8>,
}

/// Walks over the metadata of a file, as far as its windows go.
///
/// `content` are the bytes of the windows, joined; `windows` are offset and length of each, which
/// do not overlap; `size` is that of the whole; at most `cap` bytes of metadata, of paths and of
/// texts each are taken.
///
/// # Errors
/// When the file is malformed, asks for what is not done, or passes a cap; when windows and content
/// do not agree.
pub fn scan(content: &[u8], windows: &[i64], size: u64, cap: u64) -> Result<Outcome, Refusal> {
    let mut space = Space::new(content, windows, size, cap)
        .map_err(|error| Refusal { error: error.into(), path: Vec::new() })?;
    let mut objects = Objects::default();
    let refuse = |objects: &Objects, (number, error): (usize, DecodeError)| Refusal {
        error: error.into(),
        path: objects.path(number),
    };
    match walk::run(&mut space, &mut objects, cap) {
        Err(refused) => Err(refuse(&objects, refused)),
        Ok(false) => {
            let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let needs = space.needs.iter().flat_map(|&(at, length)| [signed(at), signed(length)]);
            Ok(Outcome::Needs(needs.collect()))
        }
        Ok(true) => match tables::build(&mut space, &objects, cap) {
            Err(refused) => Err(refuse(&objects, refused)),
            Ok(tables) => Ok(Outcome::Tables(Box::new(tables))),
        },
    }
}
