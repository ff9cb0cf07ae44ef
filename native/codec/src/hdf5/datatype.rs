//! Datatypes: what the elements of a dataset or an attribute are.
//!
//! ```text
//! class and version u8, class bits u24, size u32, properties
//! ```

use crate::error::{DecodeError, Kind};
use crate::hdf5::space::Fields;

/// A dtype that weights can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Dtype {
    /// `bool`: an enumeration of FALSE and TRUE over int8.
    Bool,
    /// `int8`
    Int8,
    /// `int16`
    Int16,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint8`
    Uint8,
    /// `uint16`
    Uint16,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `float16`
    Float16,
    /// `bfloat16`: opaque, with an attribute that says so.
    Bfloat16,
    /// `float32`
    Float32,
    /// `float64`
    Float64,
    /// `complex64`: a compound of r and i.
    Complex64,
    /// `complex128`
    Complex128,
}

impl Dtype {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Complex64 => "complex64",
            Self::Complex128 => "complex128",
        }
    }
}

/// How the text of a fixed length ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// At the first zero byte.
    Terminated,
    /// Zero bytes fill the rest.
    Zeros,
    /// Spaces fill the rest.
    Spaces,
}

/// The sort of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A number, and whether its bytes are in big-endian order.
    Number(Dtype, bool),
    /// Text of a fixed length.
    Text(Padding),
    /// Text of any length, in a global heap.
    LongText,
    /// Bytes that only their user understands.
    Opaque,
    /// Anything else, in words.
    Other(&'static str),
}

/// A datatype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datatype {
    /// The sort of its elements.
    pub class: Class,
    /// Bytes of an element.
    pub size: u32,
}

impl Datatype {
    /// What it is, for messages.
    pub fn words(&self) -> String {
        match self.class {
            Class::Number(dtype, _) => dtype.name().into(),
            Class::Text(_) => format!("text of {} bytes", self.size),
            Class::LongText => "text of any length".into(),
            Class::Opaque => format!("opaque bytes, {} each", self.size),
            Class::Other(words) => words.into(),
        }
    }
}

/// Decodes a datatype; of one that is not understood only its head is read.
pub fn decode(fields: &mut Fields<'_>) -> Result<Datatype, DecodeError> {
    nested(fields, true)
}

fn nested(fields: &mut Fields<'_>, outer: bool) -> Result<Datatype, DecodeError> {
    let before = *fields;
    let first = fields.byte("a datatype")?;
    let (class, version) = (first & 0x0f, first >> 4);
    if !(1..=5).contains(&version) {
        let message = format!("a datatype has version {version}, known are 1 to 5");
        return Err(before.bad(Kind::Unsupported, message));
    }
    let low = fields.byte("a datatype")?;
    let high = fields.short("a datatype")?;
    let size = fields.word("a datatype")?;
    if size == 0 {
        return Err(before.bad(Kind::Value, "a datatype has elements of 0 bytes"));
    }
    let class = match class {
        0 => integer(fields, low, size)?,
        1 => float(fields, low, high, size)?,
        2 => Class::Other("times"),
        3 => match low & 0x0f {
            0 => Class::Text(Padding::Terminated),
            1 => Class::Text(Padding::Zeros),
            2 => Class::Text(Padding::Spaces),
            _ => return Err(before.bad(Kind::Value, "text of an unknown padding")),
        },
        4 => Class::Other("bit fields"),
        5 => Class::Opaque,
        6 if outer => compound(fields, version, low, high, size)?,
        6 => Class::Other("compounds"),
        7 => Class::Other("references"),
        8 if outer => enumeration(fields, version, low, high, size)?,
        8 => Class::Other("enumerations"),
        9 if low & 0x0f == 1 => Class::LongText,
        9 => Class::Other("lists of any length"),
        10 => Class::Other("arrays"),
        11 => Class::Other("complex numbers of their own class"),
        _ => return Err(before.bad(Kind::Value, format!("a datatype has the class {class}"))),
    };
    Ok(Datatype { class, size })
}

fn integer(fields: &mut Fields<'_>, low: u8, size: u32) -> Result<Class, DecodeError> {
    let (at, precision) = (fields.short("a bit offset")?, fields.short("a precision")?);
    if at != 0 || u32::from(precision) != size.saturating_mul(8) {
        return Ok(Class::Other("integers that do not fill their bytes"));
    }
    let signed = low & 1 << 3 != 0;
    let dtype = match (size, signed) {
        (1, true) => Dtype::Int8,
        (2, true) => Dtype::Int16,
        (4, true) => Dtype::Int32,
        (8, true) => Dtype::Int64,
        (1, false) => Dtype::Uint8,
        (2, false) => Dtype::Uint16,
        (4, false) => Dtype::Uint32,
        (8, false) => Dtype::Uint64,
        _ => return Ok(Class::Other("integers of an unusual size")),
    };
    Ok(Class::Number(dtype, low & 1 != 0 && size > 1))
}

/// Sign, exponent and mantissa must be where IEEE 754 has them.
fn float(fields: &mut Fields<'_>, low: u8, high: u16, size: u32) -> Result<Class, DecodeError> {
    const UNUSUAL: Class = Class::Other("floats of an unusual form");
    let (at, precision) = (fields.short("a bit offset")?, fields.short("a precision")?);
    let exponent = (fields.byte("an exponent")?, fields.byte("an exponent")?);
    let mantissa = (fields.byte("a mantissa")?, fields.byte("a mantissa")?);
    let bias = fields.word("a bias")?;
    let (dtype, mantissa_bits, exponent_bits, sign) = match size {
        2 => (Dtype::Float16, 10, 5, 15),
        4 => (Dtype::Float32, 23, 8, 31),
        8 => (Dtype::Float64, 52, 11, 63),
        _ => return Ok(UNUSUAL),
    };
    let implied = low >> 4 & 3 == 2;
    let usual = at == 0
        && u32::from(precision) == size * 8
        && exponent == (mantissa_bits, exponent_bits)
        && mantissa == (0, mantissa_bits)
        && bias == (1 << (exponent_bits - 1)) - 1
        && high & 0xff == sign
        && implied
        && low & 1 << 6 == 0;
    Ok(if usual { Class::Number(dtype, low & 1 != 0) } else { UNUSUAL })
}

fn count(low: u8, high: u16) -> u16 {
    u16::from(low) | (high & 0xff) << 8
}

/// A name; in old versions its bytes are a multiple of 8.
fn name<'b>(fields: &mut Fields<'b>, version: u8) -> Result<&'b [u8], DecodeError> {
    let mut rest = *fields;
    let left = rest.left() as u64;
    let bytes = rest.take(left, "a name")?;
    let Some(length) = bytes.iter().position(|&byte| byte == 0) else {
        return Err(fields.bad(Kind::Truncated, "a name of a datatype does not end"));
    };
    let stored = if version < 3 { (length + 1).next_multiple_of(8) } else { length + 1 };
    fields.take(stored as u64, "a name")?;
    Ok(bytes.get(..length).unwrap_or_default())
}

/// A complex number is the compound of its parts.
fn compound(
    fields: &mut Fields<'_>,
    version: u8,
    low: u8,
    high: u16,
    size: u32,
) -> Result<Class, DecodeError> {
    const OTHER: Class = Class::Other("compounds");
    if count(low, high) != 2 {
        return Ok(OTHER);
    }
    let mut parts = [(Datatype { class: OTHER, size: 0 }, 0); 2];
    for (part, expected) in parts.iter_mut().zip([b"r", b"i"]) {
        if name(fields, version)? != expected {
            return Ok(OTHER);
        }
        let at = if version < 3 {
            let at = fields.word("an offset")?;
            if version == 1 && fields.take(28, "dimensions")?.first() != Some(&0) {
                return Ok(OTHER);
            }
            u64::from(at)
        } else {
            let bits = u32::BITS - size.leading_zeros();
            fields.number(u8::try_from(bits.div_ceil(8)).unwrap_or(4), "an offset")?
        };
        *part = (nested(fields, false)?, at);
    }
    let [(real, first), (imaginary, second)] = parts;
    if real != imaginary || first != 0 || second != u64::from(real.size) || size != 2 * real.size {
        return Ok(OTHER);
    }
    Ok(match real.class {
        Class::Number(Dtype::Float32, big) => Class::Number(Dtype::Complex64, big),
        Class::Number(Dtype::Float64, big) => Class::Number(Dtype::Complex128, big),
        _ => OTHER,
    })
}

/// A truth value is the enumeration of FALSE and TRUE.
fn enumeration(
    fields: &mut Fields<'_>,
    version: u8,
    low: u8,
    high: u16,
    size: u32,
) -> Result<Class, DecodeError> {
    const OTHER: Class = Class::Other("enumerations");
    let base = nested(fields, false)?;
    if count(low, high) != 2 || base.class != Class::Number(Dtype::Int8, false) || size != 1 {
        return Ok(OTHER);
    }
    let names = [name(fields, version)?, name(fields, version)?];
    let values = fields.take(2, "the values of an enumeration")?;
    let found = [(names[0], values[0]), (names[1], values[1])];
    let (no, yes) = ((b"FALSE".as_slice(), 0), (b"TRUE".as_slice(), 1));
    Ok(if found == [no, yes] || found == [yes, no] {
        Class::Number(Dtype::Bool, false)
    } else {
        OTHER
    })
}
