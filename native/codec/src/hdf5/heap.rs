//! Global heaps: texts of any length.
//!
//! ```text
//! heap    "GCOL", 1, 3 x 0, length of the whole, objects
//! object  number u16, references u16, 4 x 0, length, data padded to 8; number 0 is what is free
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use crate::error::{DecodeError, Kind};
use crate::hdf5::space::{Fields, Space, Stop};

/// What a text takes besides its bytes.
const TEXT: u64 = 32;

struct Heap<'a> {
    block: Cow<'a, [u8]>,
    objects: HashMap<u64, Range<usize>>,
}

/// All heaps that a walk came by.
pub struct Heaps<'a> {
    known: HashMap<u64, Option<Heap<'a>>>,
    left: u64,
}

impl<'a> Heaps<'a> {
    /// None yet; at most `cap` bytes of texts are taken out of them.
    pub fn new(cap: u64) -> Self {
        Self { known: HashMap::new(), left: cap }
    }

    /// The bytes of an object.
    pub fn object(
        &mut self,
        space: &mut Space<'a>,
        at: u64,
        number: u32,
        from: &Fields<'_>,
    ) -> Result<&[u8], Stop> {
        let heap = match self.known.entry(at) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(match read(space, at) {
                Err(Stop::Missing) => None,
                found => Some(found?),
            }),
        };
        let Some(heap) = heap else { return Err(Stop::Missing) };
        let range = heap.objects.get(&u64::from(number)).cloned();
        let found = range.and_then(|range| heap.block.get(range));
        found.ok_or_else(|| {
            from.bad(Kind::Bounds, format!("a heap has no object number {number}")).into()
        })
    }

    /// Counts the bytes of a text: many attributes can name the same object.
    pub fn spend(&mut self, text: usize, from: &Fields<'_>) -> Result<(), DecodeError> {
        let left = self.left.checked_sub(text as u64 + TEXT);
        let message = "the texts of attributes take more memory than is allowed";
        self.left = left.ok_or_else(|| from.bad(Kind::Limit, message))?;
        Ok(())
    }
}

fn read<'a>(space: &mut Space<'a>, at: u64) -> Result<Heap<'a>, Stop> {
    let sizes = space.sizes;
    let head = (8 + u64::from(sizes.lengths)).next_multiple_of(8);
    let prefix = space.read(at, head, "a global heap")?;
    let mut fields = Fields::new(&prefix, at, sizes);
    fields.signature(b"GCOL", "a global heap")?;
    fields.version(&[1], "a global heap")?;
    fields.take(3, "reserved bytes")?;
    let before = fields;
    let length = fields.length("the length of a heap")?;
    if length < head {
        return Err(before.bad(Kind::Value, format!("a global heap has {length} bytes")).into());
    }
    let block = space.block(at, length, "a global heap")?;
    let mut fields = Fields::new(&block, at, sizes);
    fields.take(head, "a global heap")?;
    let mut objects = HashMap::new();
    while fields.left() as u64 >= head {
        let before = fields;
        let number = fields.short("the number of an object")?;
        let mut object = fields.part(head - 2, "an object")?;
        object.take(6, "an object")?;
        let length = object.length("the length of an object")?;
        if number == 0 {
            break;
        }
        let start = fields.done();
        fields.take(length, "an object of a global heap")?;
        let range = start..fields.done();
        fields.align("an object of a global heap")?;
        if objects.insert(u64::from(number), range).is_some() {
            let message = format!("a global heap has two objects with the number {number}");
            return Err(before.bad(Kind::Value, message).into());
        }
    }
    Ok(Heap { block, objects })
}
