//! The byte layers of TensorFlow and Keras checkpoints, encode and decode side by side.
//!
//! Every function here is a pure function of buffers: no file is opened, nothing is kept between
//! calls, and no length found in a buffer is believed before it was compared with the bytes that
//! are there. The order is always bounds, then checksum, then decode.
//!
//! ```text
//! crc        CRC-32C and CRC-32, their algebra, the masked form
//! varint     variable-length integers and the bounds-checked cursor
//! snappy     raw Snappy blocks, decompression only
//! block      one block of a table: entries, restarts, trailer
//! table      a whole table: data blocks, index block, footer
//! salvage    a damaged table, as far as it goes
//! protobuf   fields of a protobuf message
//! bounds     entries against one another and the shards
//! entry      columns of BundleEntryProto records, and their splicing
//! record     single BundleEntryProto and TensorSliceProto messages
//! header     BundleHeaderProto
//! graph      TrackableObjectGraph as columns, and its splicing
//! ordered    keys of slice entries
//! strings    payload of DT_STRING tensors
//! packed     values of a TensorProto, in parts
//! variants   payload of DT_VARIANT tensors
//! rows       columns of byte strings: checks, sorting
//! farmhash   FarmHash Fingerprint64
//! hashed     the order of names in a hash map of the GNU C++ library
//! hdf5       metadata of HDF5 files, decode only
//!
//! zip        headers of zip archives
//!
//! sums       sums of values and of their squares
//! radix      counts of values by digits of ordered keys
//! philox     random values by element index
//! normal     the inverse of the normal distribution
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod block;
pub mod bounds;
pub mod crc;
pub mod entry;
pub mod error;
pub mod farmhash;
pub mod graph;
pub mod hashed;
pub mod hdf5;
pub mod header;
pub mod normal;
pub mod ordered;
pub mod packed;
pub mod philox;
pub mod protobuf;
pub mod radix;
pub mod record;
pub mod rows;
pub mod salvage;
pub mod snappy;
pub mod strings;
pub mod sums;
pub mod table;
pub mod variants;
pub mod varint;
pub mod zip;

pub use error::{DecodeError, Kind, RangeError};
