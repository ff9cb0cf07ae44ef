//! The error of malformed bytes as a Python exception.

use ckptkit_codec as codec;
use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

create_exception!(
    ckptkit._native,
    DecodeError,
    PyValueError,
    "Bytes that are not what the format prescribes; `offset` says where in the buffer given."
);

/// `DecodeError` with its attributes.
pub fn malformed(py: Python<'_>, error: codec::DecodeError) -> PyErr {
    let exception = DecodeError::new_err(error.message.clone());
    let value = exception.value(py);
    let set = value
        .setattr("message", error.message)
        .and_then(|()| value.setattr("offset", error.offset));
    match set {
        Ok(()) => exception,
        Err(failure) => failure,
    }
}

/// `ValueError`.
pub fn refused(error: codec::RangeError) -> PyErr {
    PyValueError::new_err(error.0)
}

/// Either of the two.
pub fn either(py: Python<'_>, error: codec::error::Error) -> PyErr {
    match error {
        codec::error::Error::Decode(error) => malformed(py, error),
        codec::error::Error::Range(error) => refused(error),
    }
}
