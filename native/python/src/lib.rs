//! The thin Python binding of `ckptkit_codec`: buffers in, values out, the GIL released between.
//!
//! What each function does is documented in the stub, `ckptkit/_native.pyi`.

#![deny(unsafe_code)]
#![allow(
    clippy::needless_pass_by_value, // Python arguments arrive by value.
    clippy::must_use_candidate,
    clippy::missing_errors_doc,
    clippy::missing_safety_doc
)]

mod buffer;
mod checks;
mod checksums;
mod errors;
mod graph;
mod hdf5;
mod numbers;
mod payloads;
mod records;
mod salvage;
mod tables;
mod zip;

/// Decoders and encoders of the byte layers of TensorFlow and Keras checkpoints.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::checks::{crc32c_unmask_column, entries_check, shapes_decode};
    #[pymodule_export]
    use crate::checksums::{
        crc32, crc32_combine, crc32_patch, crc32_patch_runs, crc32c, crc32c_combine, crc32c_mask,
        crc32c_patch, crc32c_patch_runs, crc32c_segments, crc32c_unmask, fingerprint64,
    };
    #[pymodule_export]
    use crate::errors::DecodeError;
    #[pymodule_export]
    use crate::graph::{graph_decode, graph_holders, graph_reach, graph_splice, graph_tree};
    #[pymodule_export]
    use crate::hdf5::hdf5_scan;
    #[pymodule_export]
    use crate::numbers::{philox, power_sum, radix_count, radix_value};
    #[pymodule_export]
    use crate::payloads::{
        fields_scan, strings_decode, strings_encode, strings_scan, variants_decode,
        variants_encode, varints_decode, varints_skip,
    };
    #[pymodule_export]
    use crate::records::{
        entries_decode, entries_encode, entries_salvage, entry_encode, entry_respec, entry_slices,
        entry_slices_encode, header_decode, header_encode, header_splice, slice_key,
        slice_key_decode,
    };
    #[pymodule_export]
    use crate::salvage::table_salvage;
    #[pymodule_export]
    use crate::tables::{
        keys_hashed, keys_order, names_decode, names_encode, snappy_decompress, table_decode,
        table_encode, table_warnings,
    };
    #[pymodule_export]
    use crate::zip::{zip_descriptor, zip_directory, zip_end, zip_local};
    /// Whether the extension was built without optimisation.
    #[pymodule_export]
    #[allow(non_upper_case_globals)] // The name that Python sees.
    const __debug_build__: bool = cfg!(debug_assertions);
}
