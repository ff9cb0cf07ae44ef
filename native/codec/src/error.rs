//! What can go wrong: hostile bytes ([`DecodeError`]) or a wrong argument ([`RangeError`]).

use std::fmt;

/// The closed list of ways in which bytes can be malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The bytes end before the value does.
    Truncated,
    /// A stored offset, size or count points outside of what is there.
    Bounds,
    /// A stored checksum differs from the computed one.
    Checksum,
    /// A variable-length integer is too long, too large or not minimal.
    Varint,
    /// A protobuf field has a wire type that it cannot have.
    Wire,
    /// Keys, blocks or restarts are not in the order that the format prescribes.
    Order,
    /// The decoded size would exceed the cap given by the caller.
    Limit,
    /// A magic number, block type or marker that this format does not have.
    Unsupported,
    /// A number that is well encoded but cannot be true.
    Value,
    /// Bytes that a Snappy decoder refuses.
    Snappy,
}

/// A malformation of a buffer, at a byte offset in the buffer that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Which sort of malformation it is.
    pub kind: Kind,
    /// Where: an offset in the buffer given to the decoder.
    pub offset: usize,
    /// What was expected and what was found, in one short line.
    pub message: String,
}

impl DecodeError {
    /// Builds an error; `message` says what was expected and what was found.
    pub fn new(kind: Kind, offset: usize, message: impl Into<String>) -> Self {
        Self { kind, offset, message: message.into() }
    }

    /// Moves the error from a part of a buffer to the buffer: `base` is where the part starts.
    #[must_use]
    pub fn shifted(mut self, base: usize) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.message, self.offset)
    }
}

impl std::error::Error for DecodeError {}

/// A caller's argument that no valid call could have; not a property of hostile bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeError(pub String);

impl RangeError {
    /// Builds an error from one short line.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RangeError {}

/// Either of the two, for functions that decode templates and take columns of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bytes are malformed.
    Decode(DecodeError),
    /// An argument is out of range.
    Range(RangeError),
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<RangeError> for Error {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}
