//! Object headers: the messages of a group or a dataset.
//!
//! ```text
//! version 1  version, 0, count u16, references u32, length u32, 4 x 0, messages
//!            message: kind u16, length u16, flags u8, 3 x 0, data; all multiples of 8
//! version 2  "OHDR", 2, flags, [4 times], [2 limits], length of 1 to 8 bytes, messages, checksum
//!            message: kind u8, length u16, flags u8, [order u16], data
//! more       a message gives address and length of another block: messages alone in version 1,
//!            "OCHK", messages, checksum in version 2
//! ```

use std::borrow::Cow;
use std::ops::Range;

use crate::error::{DecodeError, Kind};
use crate::hdf5::checksum;
use crate::hdf5::space::{Fields, Sizes, Space, Stop, bad};

pub const NIL: u16 = 0x00;
pub const DATASPACE: u16 = 0x01;
pub const LINK_INFO: u16 = 0x02;
pub const DATATYPE: u16 = 0x03;
pub const LINK: u16 = 0x06;
pub const EXTERNAL: u16 = 0x07;
pub const LAYOUT: u16 = 0x08;
pub const GROUP_INFO: u16 = 0x0a;
pub const FILTERS: u16 = 0x0b;
pub const ATTRIBUTE: u16 = 0x0c;
pub const SHARED_TABLE: u16 = 0x0f;
pub const CONTINUATION: u16 = 0x10;
pub const SYMBOL_TABLE: u16 = 0x11;
pub const TREE_K: u16 = 0x13;
pub const DRIVER: u16 = 0x14;
pub const ATTRIBUTE_INFO: u16 = 0x15;
const LAST: u16 = 0x17;

/// The flag of a message whose data only say where it is.
pub const SHARED: u8 = 1 << 1;
const FAIL_IF_UNKNOWN: u8 = 1 << 7;

const TIMES: u8 = 1 << 5;
const LIMITS: u8 = 1 << 4;
const ORDER: u8 = 1 << 2;

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// What it is about.
    pub kind: u16,
    /// Where its data are, in the content.
    pub offset: u64,
    /// Whether its data only say where it is.
    pub shared: bool,
    block: usize,
    range: Range<usize>,
}

/// All messages of an object.
pub struct Header<'a> {
    /// In the order in which they are stored.
    pub messages: Vec<Message>,
    blocks: Vec<Cow<'a, [u8]>>,
}

impl Header<'_> {
    /// The data of a message.
    pub fn fields(&self, message: &Message, sizes: Sizes) -> Fields<'_> {
        let block = self.blocks.get(message.block).map(Cow::as_ref).unwrap_or_default();
        let data = block.get(message.range.clone()).unwrap_or_default();
        Fields::new(data, message.offset, sizes)
    }

    /// The only message of a kind, which must be in place.
    pub fn single(&self, kind: u16, what: &str) -> Result<Option<&Message>, DecodeError> {
        let mut found = self.messages.iter().filter(|message| message.kind == kind);
        let Some(first) = found.next() else { return Ok(None) };
        if let Some(second) = found.next() {
            let message = format!("an object has two messages with its {what}");
            return Err(bad(Kind::Value, second.offset, message));
        }
        first.unshared(what)?;
        Ok(Some(first))
    }
}

impl Message {
    /// Refuses a message that only says where it is.
    pub fn unshared(&self, what: &str) -> Result<(), DecodeError> {
        if self.shared {
            let message = format!("the {what} is shared with other objects");
            return Err(bad(Kind::Unsupported, self.offset, message));
        }
        Ok(())
    }
}

/// Reads a header with all its blocks.
pub fn read<'a>(space: &mut Space<'a>, at: u64) -> Result<Header<'a>, Stop> {
    let mut header = Header { messages: Vec::new(), blocks: Vec::new() };
    let start = space.read(at, 4, "an object header")?;
    let (mut more, ordered) = if &*start == b"OHDR" {
        let (more, ordered) = second(space, at, &mut header)?;
        (more, Some(ordered))
    } else {
        (first(space, at, &mut header)?, None)
    };
    let mut missing = false;
    while let Some((offset, length)) = more.pop() {
        let block = match space.block(offset, length, "a continued object header") {
            Ok(block) => block,
            Err(Stop::Missing) => {
                missing = true;
                continue;
            }
            Err(error) => return Err(error),
        };
        let sizes = space.sizes;
        let mut start = 0;
        if ordered.is_some() {
            checksum::verify(&block, offset, "a continued object header")?;
            let mut fields = Fields::new(&block, offset, sizes);
            fields.signature(b"OCHK", "a continued object header")?;
            start = fields.done();
        }
        let found = messages(&mut header, block, offset, start, ordered, sizes)?;
        // The next one to be read is the first: messages stay in order.
        more.extend(found.into_iter().rev());
    }
    if missing { Err(Stop::Missing) } else { Ok(header) }
}

type More = Vec<(u64, u64)>;

fn first<'a>(space: &mut Space<'a>, at: u64, header: &mut Header<'a>) -> Result<More, Stop> {
    let prefix = space.read(at, 16, "an object header")?;
    let mut fields = Fields::new(&prefix, at, space.sizes);
    fields.version(&[1], "an object header")?;
    fields.take(7, "an object header")?;
    let length = fields.word("the length of an object header")?;
    let block = space.block(at, 16 + u64::from(length), "an object header")?;
    let mut more = messages(header, block, at, 16, None, space.sizes)?;
    more.reverse();
    Ok(more)
}

fn second<'a>(
    space: &mut Space<'a>,
    at: u64,
    header: &mut Header<'a>,
) -> Result<(More, bool), Stop> {
    let prefix = space.read(at, 6, "an object header")?;
    let mut fields = Fields::new(&prefix, at, space.sizes);
    fields.take(4, "an object header")?;
    fields.version(&[2], "an object header")?;
    let flags = fields.byte("flags")?;
    let width = 1_u8 << (flags & 3);
    let times = if flags & TIMES == 0 { 0 } else { 16 };
    let limits = if flags & LIMITS == 0 { 0 } else { 4 };
    let start = 6 + times + limits;
    let prefix = space.read(at + start, width.into(), "an object header")?;
    let length = Fields::new(&prefix, at + start, space.sizes).number(width, "a length")?;
    let start = start + u64::from(width);
    let whole = length.saturating_add(start + 4);
    let block = space.block(at, whole, "an object header")?;
    checksum::verify(&block, at, "an object header")?;
    let ordered = flags & ORDER != 0;
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let mut more = messages(header, block, at, start, Some(ordered), space.sizes)?;
    more.reverse();
    Ok((more, ordered))
}

/// Notes the messages of a block, and returns the blocks that continue it.
fn messages<'a>(
    header: &mut Header<'a>,
    block: Cow<'a, [u8]>,
    offset: u64,
    start: usize,
    ordered: Option<bool>,
    sizes: Sizes,
) -> Result<More, DecodeError> {
    let stop = block.len() - if ordered.is_some() { 4 } else { 0 };
    let part = block.get(start..stop).unwrap_or_default();
    let mut fields = Fields::new(part, offset + start as u64, sizes);
    let mut more = More::new();
    let least = match ordered {
        None => 1,
        Some(false) => 4,
        Some(true) => 6,
    };
    while fields.left() >= least {
        let before = fields;
        let (kind, length, flags) = match ordered {
            None => {
                let found = (fields.short("a kind")?, fields.short("a length")?);
                let flags = fields.byte("flags")?;
                fields.take(3, "reserved bytes")?;
                (found.0, found.1, flags)
            }
            Some(ordered) => {
                let kind = fields.byte("a kind")?;
                let found = (u16::from(kind), fields.short("a length")?, fields.byte("flags")?);
                if ordered {
                    fields.short("the order of a message")?;
                }
                found
            }
        };
        if ordered.is_none() && length % 8 != 0 {
            let message = format!("a message has {length} bytes, no multiple of 8");
            return Err(before.bad(Kind::Value, message));
        }
        if kind > LAST && flags & FAIL_IF_UNKNOWN != 0 {
            let message = format!("a message of kind {kind} that a reader has to know");
            return Err(before.bad(Kind::Unsupported, message));
        }
        let (from, at) = (start + fields.done(), fields.offset());
        let mut data = fields.part(length.into(), "a message")?;
        let shared = flags & SHARED != 0;
        if kind == CONTINUATION {
            let place = data.place("a continued object header")?;
            more.push((place, data.length("the length of an object header")?));
        } else if kind != NIL {
            let range = from..from + usize::from(length);
            let block = header.blocks.len();
            header.messages.push(Message { kind, offset: at, shared, block, range });
        }
    }
    header.blocks.push(block);
    Ok(more)
}
