//! The order of names in a hash map of the GNU C++ library, in which `TensorFlow` lists tensors.
//!
//! `std::unordered_map<std::string, T>` hashes with a variant of `MurmurHash64A`, keeps all nodes in
//! one list, and puts a new node first in its bucket; a bucket that was empty comes before all
//! others. It grows to the next prime of a table, which doubles at least, and then links every node
//! again in the order of the list. So the order follows from the order of insertion alone.

use crate::rows::{Rows, position};

const SEED: u64 = 0xc70f_6907;
const MUL: u64 = 0xc6a4_a793_5bd1_e995;

/// The numbers of buckets that a map has that grows one by one.
const BUCKETS: [usize; 28] = [
    13,
    29,
    59,
    127,
    257,
    541,
    1_109,
    2_357,
    5_087,
    10_273,
    20_753,
    42_043,
    85_229,
    172_933,
    351_061,
    712_697,
    1_447_153,
    2_938_679,
    5_967_347,
    12_117_689,
    24_607_243,
    49_969_847,
    101_473_717,
    206_062_531,
    418_451_333,
    849_749_479,
    1_725_587_117,
    3_504_151_727,
];

/// The hash of a string.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    let mut hash = SEED ^ length.wrapping_mul(MUL);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let data = mix(u64::from_le_bytes(*word).wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = (hash ^ data).wrapping_mul(MUL);
    }
    if !rest.is_empty() {
        let data = rest.iter().rev().fold(0, |data, &byte| data << 8 | u64::from(byte));
        hash = (hash ^ data).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}

const fn mix(value: u64) -> u64 {
    value ^ value >> 47
}

/// The rows in the order in which a map lists them that they were inserted into one by one.
///
/// Rows are distinct; of equal ones the order means nothing.
#[must_use]
pub fn order(rows: Rows<'_>) -> Vec<i64> {
    let mut list = List::new(rows.iter().map(hash).collect());
    for row in 0..rows.len() {
        list.insert(row);
    }
    list.rows().map(position).collect()
}

/// Where the list begins: a node before the first one.
const HEAD: usize = usize::MAX;
const NONE: usize = usize::MAX - 1;

/// All nodes in one list, and for each bucket the node before its first one.
struct List {
    hashes: Vec<u64>,
    next: Vec<usize>,
    first: usize,
    before: Vec<usize>,
    step: usize,
}

impl List {
    fn new(hashes: Vec<u64>) -> Self {
        let next = vec![NONE; hashes.len()];
        Self { hashes, next, first: NONE, before: Vec::new(), step: 0 }
    }

    fn rows(&self) -> impl Iterator<Item = usize> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let found = (at != NONE).then_some(at)?;
            at = self.after(found);
            Some(found)
        })
    }

    fn after(&self, node: usize) -> usize {
        if node == HEAD { self.first } else { self.next.get(node).copied().unwrap_or(NONE) }
    }

    fn link(&mut self, node: usize, to: usize) {
        if node == HEAD {
            self.first = to;
        } else if let Some(next) = self.next.get_mut(node) {
            *next = to;
        }
    }

    fn bucket(&self, node: usize) -> usize {
        let hash = self.hashes.get(node).copied().unwrap_or(0);
        usize::try_from(hash % self.before.len().max(1) as u64).unwrap_or(0)
    }

    fn insert(&mut self, node: usize) {
        if node >= self.before.len() {
            self.grow();
        }
        self.place(node);
    }

    /// Links a node in front of those of its bucket, or in front of all if there are none.
    fn place(&mut self, node: usize) {
        let bucket = self.bucket(node);
        let known = self.before.get(bucket).copied().unwrap_or(NONE);
        let before = if known == NONE { HEAD } else { known };
        let next = self.after(before);
        self.link(node, next);
        self.link(before, node);
        if known != NONE {
            return;
        }
        if next != NONE {
            let moved = self.bucket(next);
            self.set_before(moved, node);
        }
        self.set_before(bucket, HEAD);
    }

    fn set_before(&mut self, bucket: usize, node: usize) {
        if let Some(before) = self.before.get_mut(bucket) {
            *before = node;
        }
    }

    fn grow(&mut self) {
        let nodes: Vec<usize> = self.rows().collect();
        let Some(&buckets) = BUCKETS.get(self.step) else { return };
        self.step += 1;
        self.before = vec![NONE; buckets];
        self.first = NONE;
        for node in nodes {
            self.place(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{hash, order};
    use crate::rows::Column;

    fn ordered(names: &[&str]) -> Vec<i64> {
        let mut column = Column::default();
        for name in names {
            column.push(name.as_bytes());
        }
        order(column.rows())
    }

    #[test]
    fn hashes_are_those_of_the_library() {
        let known = [
            (b"".as_slice(), 0x553e_9390_1e46_2a6e),
            (b"a", 0x454d_dee4_88c1_ed6b),
            (b"12345678", 0x8c5b_90a3_3a04_dca5),
            (b"dense/kernel", 0x1154_6f51_9898_1b56),
            (b"123456789abcdefg", 0x45b5_fa8a_ff22_019c),
        ];
        for (bytes, expected) in known {
            assert_eq!(hash(bytes), expected);
        }
    }

    #[test]
    fn a_new_bucket_comes_first() {
        assert_eq!(ordered(&[]), [] as [i64; 0]);
        assert_eq!(ordered(&["a"]), [0]);
        assert_eq!(ordered(&["s", "v0", "v1", "v2"]), [3, 2, 1, 0]);
    }
}
