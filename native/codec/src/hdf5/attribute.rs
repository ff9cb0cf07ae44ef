//! Attributes: a name, and a text, a number or a list of texts.
//!
//! ```text
//! version 1  1, 0, lengths of name, datatype, dataspace u16 each, the three padded to 8, data
//! version 2  2, flags, the same lengths, the three not padded, data
//! version 3  3, flags, the same lengths, charset u8, the three not padded, data
//! long text  length u32, address of a heap, number in it u32
//! ```

use crate::error::{DecodeError, Kind};
use crate::hdf5::dataset::{self, Dataspace};
use crate::hdf5::datatype::{self, Class, Datatype, Dtype, Padding};
use crate::hdf5::heap::Heaps;
use crate::hdf5::space::{Fields, Space, Stop, bad, unless_missing};

/// What an attribute says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// What weights do not have.
    Other,
    /// An integer with a sign.
    Signed(i64),
    /// An integer without.
    Unsigned(u64),
    /// A float.
    Float(f64),
    /// A text.
    Text(Vec<u8>),
    /// A list of texts; an empty one stands for anything without elements.
    Texts(Vec<Vec<u8>>),
}

/// An attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Its name.
    pub name: Vec<u8>,
    /// What it says.
    pub value: Value,
}

/// Decodes an attribute.
pub fn read<'a>(
    space: &mut Space<'a>,
    heaps: &mut Heaps<'a>,
    mut fields: Fields<'_>,
) -> Result<Attribute, Stop> {
    const SHARED: u8 = 0b11;
    let version = fields.version(&[1, 2, 3], "an attribute")?;
    let flags = fields.byte("flags")?;
    let lengths = [
        fields.short("the length of a name")?,
        fields.short("the length of a datatype")?,
        fields.short("the length of a dataspace")?,
    ];
    if version == 3 {
        fields.byte("the charset of a name")?;
    }
    let before = fields;
    let mut parts = [fields; 3];
    for (part, length) in parts.iter_mut().zip(lengths) {
        let stored =
            if version == 1 { u32::from(length).next_multiple_of(8) } else { length.into() };
        *part = fields.part(stored.into(), "an attribute")?;
    }
    let [mut name, mut datatype, mut shape] = parts;
    let name = name.take(lengths[0].into(), "the name of an attribute")?;
    let name = match name.iter().position(|&byte| byte == 0) {
        Some(end) if end > 0 => name.get(..end).unwrap_or_default().to_vec(),
        _ => return Err(before.bad(Kind::Value, "an attribute without a name").into()),
    };
    if version > 1 && flags & SHARED != 0 {
        return Ok(Attribute { name, value: Value::Other });
    }
    let datatype = datatype::decode(&mut datatype)?;
    let shape = dataset::dataspace(&mut shape)?;
    let value = value(space, heaps, &mut fields, datatype, &shape)?;
    Ok(Attribute { name, value })
}

fn value<'a>(
    space: &mut Space<'a>,
    heaps: &mut Heaps<'a>,
    fields: &mut Fields<'_>,
    datatype: Datatype,
    shape: &Dataspace,
) -> Result<Value, Stop> {
    let Some(nbytes) = shape.nbytes(datatype.size.into()) else {
        return Err(fields.bad(Kind::Value, "an attribute is larger than a file can be").into());
    };
    if nbytes == 0 {
        return Ok(Value::Texts(Vec::new()));
    }
    let mut data = fields.part(nbytes, "the value of an attribute")?;
    let scalar = match shape {
        Dataspace::Simple(dims, _) if dims.len() > 1 => return Ok(Value::Other),
        Dataspace::Simple(dims, _) => dims.is_empty(),
        Dataspace::Null => return Ok(Value::Other),
    };
    match datatype.class {
        Class::Number(dtype, big) if scalar => {
            Ok(number(data.take(nbytes, "a number")?, dtype, big))
        }
        Class::Text(_) | Class::LongText => {
            let mut texts = Vec::new();
            let mut missing = false;
            while data.left() > 0 {
                let mut item = data.part(datatype.size.into(), "a text")?;
                let found = match datatype.class {
                    Class::Text(padding) => {
                        let text = fixed(item.take(datatype.size.into(), "a text")?, padding);
                        heaps.spend(text.len(), &item)?;
                        Ok(text.to_vec())
                    }
                    _ => long(space, heaps, &mut item),
                };
                texts.extend(unless_missing(found, &mut missing)?);
            }
            if missing {
                return Err(Stop::Missing);
            }
            Ok(match texts.pop() {
                Some(only) if scalar => Value::Text(only),
                last => {
                    texts.extend(last);
                    Value::Texts(texts)
                }
            })
        }
        _ => Ok(Value::Other),
    }
}

fn fixed(bytes: &[u8], padding: Padding) -> &[u8] {
    let last = |pad: u8| bytes.iter().rposition(|&byte| byte != pad).map_or(0, |at| at + 1);
    let end = match padding {
        Padding::Terminated => bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()),
        Padding::Zeros => last(0),
        Padding::Spaces => last(b' '),
    };
    bytes.get(..end).unwrap_or_default()
}

fn long<'a>(
    space: &mut Space<'a>,
    heaps: &mut Heaps<'a>,
    item: &mut Fields<'_>,
) -> Result<Vec<u8>, Stop> {
    let before = *item;
    let length = item.word("the length of a text")?;
    let at = item.address("the heap of a text")?;
    let number = item.word("the number of a text")?;
    let Some(at) = at.filter(|&at| length > 0 && at > 0) else { return Ok(Vec::new()) };
    let found = heaps.object(space, at, number, &before)?;
    let Some(text) = usize::try_from(length).ok().and_then(|length| found.get(..length)) else {
        let message = format!("a text of {length} bytes in {} bytes of a heap", found.len());
        return Err(before.bad(Kind::Bounds, message).into());
    };
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or_default().to_vec();
    heaps.spend(text.len(), &before)?;
    Ok(text)
}

fn number(bytes: &[u8], dtype: Dtype, big: bool) -> Value {
    let mut raw = [0; 8];
    for (at, to) in raw.iter_mut().enumerate().take(bytes.len()) {
        let from = if big { bytes.len() - 1 - at } else { at };
        *to = bytes.get(from).copied().unwrap_or_default();
    }
    let bits = u64::from_le_bytes(raw);
    let shift = 64 - 8 * u32::try_from(bytes.len().clamp(1, 8)).unwrap_or(8);
    let low = |mask: u64| u32::try_from(bits & mask).unwrap_or_default();
    match dtype {
        Dtype::Bool | Dtype::Int8 | Dtype::Int16 | Dtype::Int32 | Dtype::Int64 => {
            Value::Signed((bits << shift).cast_signed() >> shift)
        }
        Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 | Dtype::Uint64 => Value::Unsigned(bits),
        Dtype::Float16 => Value::Float(half(low(0xffff))),
        Dtype::Float32 => Value::Float(f32::from_bits(low(0xffff_ffff)).into()),
        Dtype::Float64 => Value::Float(f64::from_bits(bits)),
        Dtype::Bfloat16 | Dtype::Complex64 | Dtype::Complex128 => Value::Other,
    }
}

/// The value of a float16.
fn half(bits: u32) -> f64 {
    let (exponent, mantissa) = (bits >> 10 & 0x1f, f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => mantissa * f64::powi(2.0, -24),
        0x1f if mantissa > 0.0 => f64::NAN,
        0x1f => f64::INFINITY,
        _ => (1024.0 + mantissa) * f64::powi(2.0, exponent.cast_signed() - 25),
    };
    if bits & 0x8000 != 0 { -size } else { size }
}

/// Refuses two attributes of the same name.
pub fn distinct(attributes: &[Attribute], at: u64) -> Result<(), DecodeError> {
    let mut seen = std::collections::HashSet::with_capacity(attributes.len());
    match attributes.iter().find(|attribute| !seen.insert(&attribute.name)) {
        None => Ok(()),
        Some(twice) => {
            let message = format!("two attributes are named \"{}\"", twice.name.escape_ascii());
            Err(bad(Kind::Value, at, message))
        }
    }
}
