//! What a walk found, as columns: paths, objects, attributes, and who has which bytes.

use crate::error::{DecodeError, Kind};
use crate::hdf5::attribute::Value;
use crate::hdf5::dataset::Layout;
use crate::hdf5::datatype::{Class, Dtype};
use crate::hdf5::space::{Space, bad};
use crate::hdf5::walk::{Body, Object, Objects, Refused};
use crate::rows::Column;

/// Groups in groups, at most.
const MAX_DEPTH: usize = 64;
/// No path takes fewer bytes than this in a file, unless it is one of many names of one object.
const LEAST: u64 = 16;

/// Kinds of attributes; the order is part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Sort {
    /// None that weights have.
    Other,
    /// A signed integer.
    Signed,
    /// An unsigned integer.
    Unsigned,
    /// A float.
    Float,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
}

/// Everything that is known of a file, in columns.
#[derive(Debug, Default)]
pub struct Tables {
    /// All paths, groups before what is in them.
    pub paths: Column,
    /// The number of the object that each path leads to.
    pub numbers: Vec<i64>,
    /// Where the header of each object is.
    pub addresses: Vec<i64>,
    /// The dtype of each object; none of groups.
    pub dtypes: Vec<Option<Dtype>>,
    /// Whether its elements are big-endian.
    pub big: Vec<bool>,
    /// How it is stored; none of groups.
    pub layouts: Vec<Option<Layout>>,
    /// Where a contiguous dataset is; -1 for others.
    pub offsets: Vec<i64>,
    /// Bytes of the elements.
    pub nbytes: Vec<i64>,
    /// Bytes that they take in the file.
    pub stored: Vec<i64>,
    /// All dimensions.
    pub dims: Vec<i64>,
    /// How many of them there are up to and with each object.
    pub dim_ends: Vec<i64>,
    /// All filters.
    pub filters: Vec<i64>,
    /// How many of them there are up to and with each object.
    pub filter_ends: Vec<i64>,
    /// The names of all links.
    pub links: Column,
    /// How many of them there are up to and with each object.
    pub link_ends: Vec<i64>,
    /// The names of all attributes.
    pub attributes: Column,
    /// How many of them there are up to and with each object.
    pub attribute_ends: Vec<i64>,
    /// The sort of each attribute.
    pub sorts: Vec<Sort>,
    /// The bits of each number; 0 for other attributes.
    pub bits: Vec<i64>,
    /// All texts.
    pub texts: Column,
    /// How many of them there are up to and with each attribute.
    pub text_ends: Vec<i64>,
    /// Offset and length of all ranges of metadata.
    pub metadata: Vec<i64>,
    /// Where the file ends.
    pub end: u64,
}

/// Checks the objects against one another, and puts them into columns.
pub fn build(space: &mut Space<'_>, objects: &Objects, cap: u64) -> Result<Tables, Refused> {
    let mut tables = Tables { end: space.end, ..Tables::default() };
    for (offset, length) in space.claimed() {
        tables.metadata.extend([signed(offset), signed(length)]);
    }
    for number in 0..objects.all.len() {
        tables.object(space, objects, number).map_err(|error| (number, error))?;
    }
    tables.walk(objects, cap)?;
    Ok(tables)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Tables {
    fn object(
        &mut self,
        space: &mut Space<'_>,
        objects: &Objects,
        number: usize,
    ) -> Result<(), DecodeError> {
        let Some(object) = objects.all.get(number) else { return Ok(()) };
        self.addresses.push(signed(object.address));
        let (mut dtype, mut layout) = (None, None);
        let mut numbers = (-1, 0, 0);
        match &object.body {
            Body::Pending => {}
            Body::Group(links) => links.iter().for_each(|(name, _)| self.links.push(name)),
            Body::Dataset(dataset) => {
                for &(offset, length) in &dataset.ranges {
                    space.claim(offset, length, "data of a dataset")?;
                }
                let named = object.attributes.iter().find_map(|attribute| {
                    let Value::Text(text) = &attribute.value else { return None };
                    (attribute.name == b"dtype").then_some(text.as_slice())
                });
                dtype = dataset.dtype(named);
                if dtype.is_none() {
                    let mut words = dataset.datatype.words();
                    if let (Class::Opaque, Some(named)) = (dataset.datatype.class, named) {
                        words = format!("{words}, said to be \"{}\"", named.escape_ascii());
                    }
                    let message = format!("a dataset of {words}, which no weights are");
                    return Err(bad(Kind::Unsupported, object.address, message));
                }
                layout = Some(dataset.layout);
                let offset = dataset.offset.map_or(-1, signed);
                numbers = (offset, signed(dataset.nbytes), signed(dataset.stored));
                self.dims.extend(dataset.dims.iter().map(|&dim| signed(dim)));
                self.filters.extend(dataset.filters.iter().map(|&filter| i64::from(filter)));
            }
        }
        self.dtypes.push(dtype.map(|(dtype, _)| dtype));
        self.big.push(dtype.is_some_and(|(_, big)| big));
        self.layouts.push(layout);
        self.offsets.push(numbers.0);
        self.nbytes.push(numbers.1);
        self.stored.push(numbers.2);
        self.dim_ends.push(count(self.dims.len()));
        self.filter_ends.push(count(self.filters.len()));
        self.link_ends.push(count(self.links.ends.len()));
        for attribute in &object.attributes {
            self.attributes.push(&attribute.name);
            self.value(&attribute.value);
        }
        self.attribute_ends.push(count(self.attributes.ends.len()));
        Ok(())
    }

    fn value(&mut self, value: &Value) {
        let (sort, bits) = match value {
            Value::Other => (Sort::Other, 0),
            Value::Signed(value) => (Sort::Signed, *value),
            Value::Unsigned(value) => (Sort::Unsigned, value.cast_signed()),
            Value::Float(value) => (Sort::Float, value.to_bits().cast_signed()),
            Value::Text(text) => {
                self.texts.push(text);
                (Sort::Text, 0)
            }
            Value::Texts(texts) => {
                for text in texts {
                    self.texts.push(text);
                }
                (Sort::Texts, 0)
            }
        };
        self.sorts.push(sort);
        self.bits.push(bits);
        self.text_ends.push(count(self.texts.ends.len()));
    }

    /// Goes down every link in turn.
    fn walk(&mut self, objects: &Objects, cap: u64) -> Result<(), Refused> {
        let refuse = |number: usize, kind: Kind, message: &str| {
            let at = objects.all.get(number).map_or(0, |object| object.address);
            (number, bad(kind, at, message))
        };
        if !matches!(objects.all.first(), Some(Object { body: Body::Group(_), .. })) {
            return Err(refuse(0, Kind::Value, "the root is no group"));
        }
        let most = (self.end / LEAST).max(LEAST);
        let mut inside = vec![false; objects.all.len()];
        let mut path = Vec::new();
        // Groups that the walk is in: number, next link, and length of their path.
        let mut stack = vec![(0, 0, 0)];
        self.visit(&[], 0);
        if let Some(mark) = inside.first_mut() {
            *mark = true;
        }
        while let Some(&mut (number, ref mut next, length)) = stack.last_mut() {
            path.truncate(length);
            let Some(Body::Group(links)) = objects.all.get(number).map(|object| &object.body)
            else {
                break;
            };
            let Some((name, address)) = links.get(*next) else {
                inside.get_mut(number).into_iter().for_each(|mark| *mark = false);
                stack.pop();
                continue;
            };
            *next += 1;
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let Some(target) = objects.number(*address) else { continue };
            if self.numbers.len() as u64 >= most
                || (self.paths.data.len() + path.len()) as u64 > cap
            {
                let message = "hard links make more paths than a file of this size has objects";
                return Err(refuse(target, Kind::Limit, message));
            }
            self.visit(&path, target);
            if let Some(Body::Group(_)) = objects.all.get(target).map(|object| &object.body) {
                if inside.get(target).is_some_and(|&mark| mark) {
                    let message = "the group contains itself: a cycle of hard links";
                    return Err(refuse(target, Kind::Unsupported, message));
                }
                if stack.len() > MAX_DEPTH {
                    let message = "groups lie in groups, more than 64 deep";
                    return Err(refuse(target, Kind::Unsupported, message));
                }
                inside.get_mut(target).into_iter().for_each(|mark| *mark = true);
                stack.push((target, 0, path.len()));
            }
        }
        Ok(())
    }

    fn visit(&mut self, path: &[u8], number: usize) {
        self.paths.push(path);
        self.numbers.push(count(number));
    }
}
