//! Python buffers in, `bytes` out.

#![allow(unsafe_code)] // The one file with unsafe code; see `View::bytes`.

use pyo3::buffer::{ElementType, PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A one-dimensional contiguous buffer of any item type, seen as bytes.
pub struct View(PyUntypedBuffer);

impl<'a, 'py> FromPyObject<'a, 'py> for View {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(&object)?;
        if buffer.dimensions() != 1 {
            let dimensions = buffer.dimensions();
            let message = format!("buffer has {dimensions} dimensions instead of 1");
            return Err(PyValueError::new_err(message));
        }
        if !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err("buffer is not contiguous"));
        }
        Ok(Self(buffer))
    }
}

impl View {
    /// The bytes of the buffer.
    pub fn bytes(&self) -> &[u8] {
        let length = self.0.len_bytes();
        if length == 0 {
            return &[];
        }
        // SAFETY: the exporter keeps `length` contiguous bytes at this address alive, unmoved and
        // not resized until `self.0` releases the buffer, and the slice cannot outlive `self`.
        //
        // What Python cannot promise is that no other thread writes to these bytes while they are
        // read without the GIL. A caller who does that gets an unspecified result. It cannot become
        // an access out of bounds: every index is checked against lengths that were read once,
        // never re-read from the buffer, and nothing borrowed from the buffer is taken for UTF-8
        // without Python checking it again.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast::<u8>(), length) }
    }

    /// The items of the buffer, which holds integers of this size in native order, or bytes.
    pub fn column<T: Item>(&self) -> PyResult<Vec<T>> {
        let stored = match ElementType::from_format(self.0.format()) {
            ElementType::SignedInteger { bytes } | ElementType::UnsignedInteger { bytes } => bytes,
            _ => 0,
        };
        if stored != 1 && (stored != T::SIZE || swapped(&self.0)) {
            let format = self.0.format().to_string_lossy();
            let message =
                format!("column has items '{format}', expected native integers of {}", T::NAME);
            return Err(PyValueError::new_err(message));
        }
        let bytes = self.bytes();
        if !bytes.len().is_multiple_of(T::SIZE) {
            let length = bytes.len();
            let message = format!("column has {length} bytes, no multiple of {}", T::SIZE);
            return Err(PyValueError::new_err(message));
        }
        Ok(bytes.chunks_exact(T::SIZE).map(T::read).collect())
    }
}

/// Whether a buffer says that its items are in the other byte order, which typed buffers ignore.
fn swapped(buffer: &PyUntypedBuffer) -> bool {
    let other: &[u8] = if cfg!(target_endian = "little") { b">!" } else { b"<" };
    buffer.format().to_bytes().first().is_some_and(|mark| other.contains(mark))
}

/// A one-dimensional contiguous buffer of native uint64 that a call changes.
pub struct Counts(PyBuffer<u64>);

impl<'a, 'py> FromPyObject<'a, 'py> for Counts {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let View(buffer) = object.extract()?;
        if buffer.readonly() {
            return Err(PyValueError::new_err("buffer of counts is read-only"));
        }
        let format = buffer.format().to_string_lossy().into_owned();
        let typed = if swapped(&buffer) { None } else { buffer.into_typed().ok() };
        typed.map(Self).ok_or_else(|| {
            PyValueError::new_err(format!("counts are items '{format}', expected native uint64"))
        })
    }
}

impl Counts {
    /// Copies the counts, has them changed without the GIL, and writes them back if that went well.
    pub fn update<E>(
        &self,
        py: Python<'_>,
        change: impl Send + FnOnce(&mut [u64]) -> Result<(), E>,
    ) -> PyResult<Result<(), E>>
    where
        E: Send,
    {
        let mut counts = self.0.to_vec(py)?;
        match py.detach(|| change(&mut counts)) {
            Ok(()) => self.0.copy_from_slice(py, &counts).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// A number that columns hold, in native byte order.
pub trait Item: Copy {
    /// Its size in bytes.
    const SIZE: usize;
    /// Its size in words, for messages.
    const NAME: &'static str;
    /// Reads one from exactly `SIZE` bytes.
    fn read(bytes: &[u8]) -> Self;
    /// Writes one to exactly `SIZE` bytes.
    fn write(self, bytes: &mut [u8]);
}

macro_rules! item {
    ($type: ty, $name: literal) => {
        impl Item for $type {
            const SIZE: usize = size_of::<$type>();
            const NAME: &'static str = $name;

            fn read(bytes: &[u8]) -> Self {
                bytes.first_chunk().map_or(0, |bytes| Self::from_ne_bytes(*bytes))
            }

            fn write(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_ne_bytes());
            }
        }
    };
}

item!(i64, "64 bits");
item!(i32, "32 bits");
item!(u32, "32 bits");

/// A column of numbers as `bytes`.
pub fn pack<'py, T: Item>(py: Python<'py>, items: &[T]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, items.len() * T::SIZE, |bytes| {
        for (to, item) in bytes.chunks_exact_mut(T::SIZE).zip(items) {
            item.write(to);
        }
        Ok(())
    })
}
