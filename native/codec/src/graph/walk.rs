//! Globs over the paths of a graph, whose local names are escaped and joined by slashes.
//!
//! ```text
//! path   name (/ name)*      name with . -> .. and / -> .S
//! glob   ? and * stay within a name, ** goes across, **/ stands for nothing as well
//! ```
//!
//! A walk over nodes and positions in the glob, so that cycles and diamonds cost no more than
//! edges times the length of the glob. Text is code points, lone surrogates included.

use std::collections::HashMap;

use super::{children, no_graph};
use crate::error::RangeError;

const DOT: u32 = '.' as u32;
const SLASH: u32 = '/' as u32;
const ESCAPED_SLASH: u32 = 'S' as u32;

/// The local names of edges: code points of all of them, joined, and where each ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// All names.
    pub text: Vec<u32>,
    /// Where each ends.
    pub ends: Vec<usize>,
}

impl Names {
    fn get(&self, edge: usize) -> Option<&[u32]> {
        let start = match edge.checked_sub(1) {
            None => 0,
            Some(before) => *self.ends.get(before)?,
        };
        self.text.get(start..*self.ends.get(edge)?)
    }
}

/// Tells of every node whether a glob matches one of the paths that lead to it from node 0.
///
/// # Errors
/// When the columns are not those of a graph.
pub fn reach(
    edge_ends: &[i32],
    edge_child: &[i32],
    names: &Names,
    glob: &Glob,
) -> Result<Vec<u8>, RangeError> {
    // Behind the last node: the root before a step, from where names need no slash.
    let (count, width) = (edge_ends.len(), glob.words());
    if count == 0 {
        return Ok(Vec::new());
    }
    let size = (count + 1).checked_mul(width).ok_or_else(no_graph)?;
    let (mut known, mut fresh) = (vec![0_u64; size], vec![0_u64; size]);
    let mut waiting = vec![count];
    let mut is_waiting = vec![false; count + 1];
    fresh[count * width..].copy_from_slice(&glob.first);
    known[count * width..].copy_from_slice(&glob.first);
    let (mut from, mut after, mut to) = (Vec::new(), vec![0; width], vec![0; width]);
    while let Some(node) = waiting.pop() {
        is_waiting[node] = false;
        let mine = &mut fresh[node * width..][..width];
        from.clear();
        from.extend_from_slice(mine);
        mine.fill(0);
        let origin = if node == count { 0 } else { node };
        if node != count {
            glob.step(&mut from, &mut to, SLASH);
        }
        let (first, children) = children(edge_ends, edge_child, origin)?;
        if is_over(&from) {
            continue;
        }
        for (edge, &child) in (first..).zip(children) {
            let child = usize::try_from(child).ok().filter(|&child| child < count);
            let child = child.ok_or_else(no_graph)?;
            after.copy_from_slice(&from);
            glob.name(&mut after, &mut to, names.get(edge).ok_or_else(no_graph)?);
            let mut more = false;
            let place = child * width;
            for ((&found, old), new) in
                after.iter().zip(&mut known[place..]).zip(&mut fresh[place..])
            {
                let added = found & !*old;
                more |= added != 0;
                *old |= added;
                *new |= added;
            }
            if more && !is_waiting[child] {
                is_waiting[child] = true;
                waiting.push(child);
            }
        }
    }
    let ended = |node: usize| glob.is_end(&known[node * width..][..width]);
    let mut found: Vec<u8> = (0..count).map(|node| u8::from(ended(node))).collect();
    found[0] |= u8::from(ended(count));
    Ok(found)
}

/// A glob, and what may follow within it once some text has been seen, as sets of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    parts: usize,
    first: Vec<u64>,
    within: Vec<u64>,
    across: Vec<u64>,
    any: Vec<u64>,
    letters: HashMap<u32, Vec<u64>>,
    /// A position, and how far one may go on from there without text.
    skips: Vec<(usize, [usize; 2])>,
}

impl Glob {
    /// Splits a glob; where it is `grouped`, parentheses stand for nothing.
    #[must_use]
    pub fn new(glob: &[u32], grouped: bool) -> Self {
        let [star, mark, open, close] = ['*', '?', '(', ')'].map(u32::from);
        let width = (glob.len() * 3) / 64 + 1;
        let empty = || vec![0; width];
        let mut made = Self {
            parts: 0,
            first: empty(),
            within: empty(),
            across: empty(),
            any: empty(),
            letters: HashMap::new(),
            skips: Vec::new(),
        };
        let mut at = 0;
        while let Some(&letter) = glob.get(at) {
            at += 1;
            let part = made.parts;
            if letter == star && glob.get(at) == Some(&star) {
                at += 1;
                if glob.get(at) == Some(&SLASH) {
                    at += 1;
                    made.skips.push((part, [1, 3]));
                    made.skips.push((part + 1, [1, 1]));
                    set(&mut made.across, part + 1);
                    set(made.letters.entry(SLASH).or_insert_with(empty), part + 2);
                    made.parts += 3;
                    continue;
                }
                made.skips.push((part, [1, 1]));
                set(&mut made.across, part);
            } else if letter == star {
                made.skips.push((part, [1, 1]));
                set(&mut made.within, part);
            } else if letter == mark {
                set(&mut made.any, part);
            } else if grouped && (letter == open || letter == close) {
                continue;
            } else {
                set(made.letters.entry(letter).or_insert_with(empty), part);
            }
            made.parts += 1;
        }
        let mut first = empty();
        set(&mut first, 0);
        made.skip(&mut first);
        made.first = first;
        made
    }

    fn words(&self) -> usize {
        self.first.len()
    }

    fn is_end(&self, states: &[u64]) -> bool {
        get(states, self.parts)
    }

    fn name(&self, states: &mut [u64], to: &mut [u64], name: &[u32]) {
        for &letter in name {
            match letter {
                DOT => {
                    self.step(states, to, DOT);
                    self.step(states, to, DOT);
                }
                SLASH => {
                    self.step(states, to, DOT);
                    self.step(states, to, ESCAPED_SLASH);
                }
                _ => self.step(states, to, letter),
            }
            if is_over(states) {
                break;
            }
        }
    }

    /// Replaces states by those after a letter; `to` is room for them.
    fn step(&self, states: &mut [u64], to: &mut [u64], letter: u32) {
        let exact = self.letters.get(&letter);
        let other = letter != SLASH;
        let mut carry = 0;
        for (at, (&word, to)) in states.iter().zip(to.iter_mut()).enumerate() {
            let mut go = exact.map_or(0, |exact| exact[at]);
            let mut stay = self.across[at];
            if other {
                go |= self.any[at];
                stay |= self.within[at];
            }
            let moved = word & go;
            *to = word & stay | moved << 1 | carry;
            carry = moved >> 63;
        }
        self.skip(to);
        states.copy_from_slice(to);
    }

    /// Adds what is reached without text; in the order of positions, so that one pass is enough.
    fn skip(&self, states: &mut [u64]) {
        for &(part, ways) in &self.skips {
            if get(states, part) {
                for way in ways {
                    set(states, part + way);
                }
            }
        }
    }
}

/// Whether no text can follow.
fn is_over(states: &[u64]) -> bool {
    states.iter().all(|&word| word == 0)
}

fn set(bits: &mut [u64], at: usize) {
    bits[at / 64] |= 1 << (at % 64);
}

fn get(bits: &[u64], at: usize) -> bool {
    bits[at / 64] >> (at % 64) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u32> {
        text.chars().map(u32::from).collect()
    }

    fn names(all: &[&str]) -> Names {
        let mut names = Names::default();
        for name in all {
            names.text.extend(text(name));
            names.ends.push(names.text.len());
        }
        names
    }

    /// 0 -a-> 1, -b-> 2; 1 -x-> 3; 2 -y.z-> 3, -up-> 0; 3 -/-> 4
    fn found(glob: &str) -> Vec<usize> {
        let (ends, child) = ([2, 3, 5, 6, 6], [1, 2, 3, 3, 0, 4]);
        let names = names(&["a", "b", "x", "y.z", "up", "/"]);
        let glob = Glob::new(&text(glob), glob.contains('('));
        let found = reach(&ends, &child, &names, &glob).unwrap();
        (0..5).filter(|&node| found[node] != 0).collect()
    }

    #[test]
    fn globs_reach_nodes_by_every_path() {
        assert_eq!(found(""), [0]);
        assert_eq!(found("a"), [1]);
        assert_eq!(found("*"), [0, 1, 2]);
        assert_eq!(found("?/x"), [3]);
        assert_eq!(found("b/y..z"), [3]);
        assert_eq!(found("b/y.z"), []);
        assert_eq!(found("b/up/b/up/a"), [1]);
        assert_eq!(found("**/.S"), [4]);
        assert_eq!(found("**/a"), [1]);
        assert_eq!(found("**"), [0, 1, 2, 3, 4]);
        assert_eq!(found("(*)/(x)"), [3]);
        assert_eq!(found("a**S"), [4]);
        assert_eq!(found("/a"), []);
        assert_eq!(found(&format!("{}a", "b/up/".repeat(60))), [1]);
    }

    #[test]
    fn columns_that_are_none_are_refused() {
        let glob = Glob::new(&text("**"), false);
        let one = names(&["a"]);
        assert!(reach(&[], &[], &one, &glob).unwrap().is_empty());
        assert!(reach(&[1], &[0], &names(&[]), &glob).is_err());
        assert!(reach(&[1], &[1], &one, &glob).is_err());
        assert!(reach(&[2], &[0], &one, &glob).is_err());
        assert!(reach(&[-1], &[0], &one, &glob).is_err());
    }
}
