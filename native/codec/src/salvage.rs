//! A damaged table, read as far as it goes.
//!
//! ```text
//! good       the checksum of the block holds
//! repaired   it holds after one byte was put right, and everything in the block is in order
//! doubtful   it does not hold; what parses is given all the same
//! lost       nothing parses
//! ```
//!
//! Blocks are found by the index block and, where that is damaged or bytes are in no block, by
//! walking: forward from where a block has to start, to where the bytes and the checksum behind
//! them agree; or back from restarts that look like the end of a block, to where it starts. The
//! register of a CRC runs backward as well as forward, so that either takes one pass.

use std::ops::Range;

use crate::block::{Body, Entries, Handle, Stored, TRAILER};
use crate::crc::{self, forward};
use crate::error::DecodeError;
use crate::rows::Column;
use crate::table::{FOOTER, footer};
use crate::varint::Cursor;

const WORD: usize = 4;
/// The shortest block: no entry, one restart, the trailer.
const LEAST: usize = 2 * WORD + TRAILER;
/// A block that is looked for is no longer than this.
const LONGEST: usize = 16 << 20;
/// Only blocks up to this size are put right.
const REPAIRED: usize = 4 << 20;
/// Bytes that searching for blocks may go over, for every byte of the table, and besides.
const PASSES: usize = 16;
const SLACK: usize = 64 << 20;
/// The register before the first byte.
const START: u32 = u32::MAX;

/// How far a block can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its checksum holds.
    Good,
    /// Its checksum holds after one byte was put right.
    Repaired,
    /// Its checksum does not hold, and entries parse.
    Doubtful,
    /// Nothing parses.
    Lost,
    /// What only says where blocks are, and holds no entry of the table.
    Directory,
}

impl State {
    /// Whether the checksum of the block holds, if only once a byte was put right.
    const fn holds(self) -> bool {
        matches!(self, Self::Good | Self::Repaired)
    }
}

/// A range of the table, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it starts.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// How far it can be trusted.
    pub state: State,
    /// What is wrong; empty if nothing is.
    pub message: String,
}

/// What was read of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// The keys, in the order of the file; not sorted, and one may be there twice.
    pub keys: Column,
    /// The value of each.
    pub values: Column,
    /// The number of the region that each comes from.
    pub region: Vec<i64>,
    /// The ranges, in the order of the file; those of what says where blocks are at the end.
    pub regions: Vec<Region>,
    /// The end of the table is there: no block can be missing behind the last region.
    pub complete: bool,
}

/// Reads what there is of a table; `limit` caps the bytes of all keys and values.
#[must_use]
pub fn read(table: &[u8], limit: u64) -> Salvaged {
    let budget = table.len().saturating_mul(PASSES).saturating_add(SLACK);
    let mut reader = Reader { table, limit, budget, total: 0, found: Vec::new() };
    let directory = reader.directory();
    let mut at = 0;
    for range in directory.blocks {
        reader.walk(at, range.start);
        at = range.end;
        reader.block(range);
    }
    reader.walk(at, directory.end);
    reader.finish(&directory.known, directory.regions)
}

/// What says where blocks are.
struct Directory {
    /// Blocks that the index block names: in bounds, in order, disjoint.
    blocks: Vec<Range<usize>>,
    /// Where data ends, as far as is known.
    end: usize,
    /// Where the index block and the metaindex are, if the footer can be believed.
    known: Vec<Range<usize>>,
    regions: Vec<Region>,
}

/// A region, and the entries in it.
struct Part {
    region: Region,
    keys: Column,
    values: Column,
}

struct Reader<'a> {
    table: &'a [u8],
    limit: u64,
    budget: usize,
    /// Bytes of keys and values so far.
    total: u64,
    found: Vec<Part>,
}

impl<'a> Reader<'a> {
    fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        self.table.get(range).unwrap_or_default()
    }

    fn directory(&self) -> Directory {
        let length = self.table.len();
        let region =
            |start, end, message| vec![Region { start, end, state: State::Directory, message }];
        let nothing = |end, known, regions| Directory { blocks: Vec::new(), end, known, regions };
        let footer = match footer(self.table) {
            Ok(footer) => footer,
            Err(DecodeError { message, .. }) => {
                let start = length.saturating_sub(FOOTER);
                let message = format!("the footer: {message}");
                return nothing(length, Vec::new(), region(start, length, message));
            }
        };
        let end = footer.start;
        let Some(index) = footer.index.range(end) else {
            let message = "the footer: the index block is beyond it".to_owned();
            return nothing(end, Vec::new(), region(end, length, message));
        };
        let mut known = vec![index.clone()];
        known.extend(footer.metaindex.range(end));
        let stored = self.bytes(index.clone());
        let opened = Body::open(stored, index.start, self.limit.saturating_add(length as u64));
        let (bytes, mut regions) = match opened {
            Ok(body) => (body.bytes().to_vec(), Vec::new()),
            Err(error) => {
                let Some((fixed, what)) = repaired(stored, self.limit) else {
                    let message = format!("the index block: {}", error.message);
                    return nothing(end, known, region(index.start, index.end, message));
                };
                let message = format!("the index block: {what}");
                (fixed, region(index.start, index.end, message))
            }
        };
        let mut handles = Vec::new();
        let whole = lenient(&bytes, |_, _, value| {
            let handle = Handle::decode(&mut Cursor::new(value, 0)).ok();
            handles.extend(handle.and_then(|handle| handle.range(index.start)));
            true
        });
        if !whole {
            let message = "the index block: not all of it parses".to_owned();
            regions = region(index.start, index.end, message);
        }
        handles.sort_unstable_by_key(|range| (range.start, range.end));
        let mut blocks: Vec<Range<usize>> = Vec::new();
        for range in handles {
            if blocks.last().is_none_or(|before| before.end <= range.start) {
                blocks.push(range);
            }
        }
        Directory { blocks, end: index.start, known, regions }
    }

    /// Looks for blocks in a range that starts where a block may start.
    fn walk(&mut self, low: usize, high: usize) {
        let mut at = low;
        while at < high {
            if let Some(end) = self.forward(at, high) {
                self.block(at..end);
                at = end;
            } else if let Some(range) = self.backward(at, high) {
                if at < range.start {
                    self.block(at..range.start);
                }
                at = range.end;
                self.block(range);
            } else {
                self.block(at..high);
                at = high;
            }
        }
    }

    /// Where the block ends that starts at a byte, by its checksum.
    fn forward(&mut self, start: usize, high: usize) -> Option<usize> {
        let stop = high.min(start.saturating_add(LONGEST));
        let bytes = self.bytes(start..stop);
        let mut register = START;
        let mut found = None;
        let mut seen = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if at >= self.budget {
                break;
            }
            seen = at + 1;
            register = forward(register, byte);
            if byte > 1 || seen < LEAST - WORD {
                continue;
            }
            let Some(stored) = word(bytes, seen) else { break };
            if crc::mask(!register) == stored {
                found = Some(start + seen + WORD);
                break;
            }
        }
        self.budget = self.budget.saturating_sub(seen);
        found
    }

    /// The next block whose end can be told by its restarts, and whose start by its checksum.
    fn backward(&mut self, low: usize, high: usize) -> Option<Range<usize>> {
        let bytes = self.bytes(low..high);
        for end in LEAST - WORD..bytes.len().saturating_sub(WORD - 1) {
            if self.budget == 0 {
                return None;
            }
            self.budget -= 1;
            let Some((entries, last)) = ending(bytes, end) else { continue };
            let stored = word(bytes, end)?;
            let floor = end.saturating_sub(LONGEST);
            let mut register = !crc::unmask(stored);
            let (mut at, mut steps) = (end, 0);
            while at > floor && steps < self.budget {
                at -= 1;
                steps += 1;
                register = crc::backward(register, *bytes.get(at)?);
                if register == START && at <= entries && (last == 0 || last < entries - at) {
                    self.budget -= steps;
                    return Some(low + at..low + end + WORD);
                }
            }
            self.budget -= steps;
        }
        None
    }

    /// Reads a block, as far as it goes.
    fn block(&mut self, range: Range<usize>) {
        let stored = self.bytes(range.clone());
        let limit = self.limit;
        let (mut state, body, mut message) = match Body::open(stored, range.start, limit) {
            Ok(body) => (State::Good, body.bytes().to_vec(), String::new()),
            Err(error) => match repaired(stored, limit) {
                Some((body, what)) => (State::Repaired, body, what),
                None => (State::Doubtful, doubtful(stored, limit), error.message),
            },
        };
        let mut total = self.total;
        let (mut keys, mut values) = (Column::default(), Column::default());
        let whole = lenient(&body, |shared, suffix, value| {
            let before = keys.rows().start(keys.ends.len().saturating_sub(1));
            let more = [shared, suffix.len(), value.len()].iter().sum::<usize>();
            total = total.saturating_add(more as u64);
            if total > limit {
                return false;
            }
            let stop = before.saturating_add(shared);
            keys.data.extend_from_within(before.min(keys.data.len())..stop.min(keys.data.len()));
            keys.push(suffix);
            values.push(value);
            true
        });
        self.total = total.min(limit);
        if !whole && state.holds() {
            "not all of it parses".clone_into(&mut message);
        }
        if state == State::Doubtful && keys.ends.is_empty() {
            state = State::Lost;
        }
        let region = Region { start: range.start, end: range.end, state, message };
        self.found.push(Part { region, keys, values });
    }

    /// Joins all parts, but for those that say where others are.
    fn finish(self, known: &[Range<usize>], mut regions: Vec<Region>) -> Salvaged {
        // In the order of the file, so that they can be searched.
        let place = |part: &Part| (part.region.start, part.region.end);
        let blocks: Vec<(usize, usize)> = self.found.iter().map(place).collect();
        let mut out = Salvaged { complete: !known.is_empty(), ..Salvaged::default() };
        for mut part in self.found {
            let Region { start, end, state, .. } = part.region;
            let index = is_index(&part, &blocks);
            if index && state.holds() {
                out.complete = true;
                continue;
            }
            let within = known.iter().any(|range| range.start <= start && end <= range.end);
            if (index || within) && !state.holds() {
                part.region.state = State::Directory;
                (part.keys, part.values) = (Column::default(), Column::default());
                if regions.iter().any(|region| region.start == start) {
                    continue;
                }
            }
            let number = i64::try_from(out.regions.len()).unwrap_or(i64::MAX);
            for (key, value) in part.keys.rows().iter().zip(part.values.rows().iter()) {
                out.keys.push(key);
                out.values.push(value);
                out.region.push(number);
            }
            out.regions.push(part.region);
        }
        out.regions.append(&mut regions);
        out
    }
}

/// Whether a part is the index block, or what is left of it: its values say where blocks are.
fn is_index(part: &Part, blocks: &[(usize, usize)]) -> bool {
    let values = part.values.rows();
    let handle = |value: &[u8]| {
        let mut cursor = Cursor::new(value, 0);
        let handle = Handle::decode(&mut cursor).ok().filter(|_| cursor.is_empty())?;
        handle.range(part.region.start)
    };
    // No record of a tensor is as short as a handle, so that one which fits a block is enough.
    let known = |range: Range<usize>| blocks.binary_search(&(range.start, range.end)).is_ok();
    values.iter().filter_map(handle).any(known)
        || part.region.state == State::Good
            && !values.is_empty()
            && values.iter().all(|value| handle(value).is_some())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether restarts and type of a raw block end here: where its entries end, and its last restart.
fn ending(bytes: &[u8], end: usize) -> Option<(usize, usize)> {
    let restarts = end.checked_sub(WORD + 1)?;
    if bytes.get(end - 1) != Some(&0) {
        return None;
    }
    let count = word(bytes, restarts)? as usize;
    let entries = restarts.checked_sub(count.checked_mul(WORD).filter(|&length| length > 0)?)?;
    if word(bytes, entries)? != 0 {
        return None;
    }
    let last = word(bytes, restarts - WORD)? as usize;
    let second = if count > 1 { word(bytes, entries + WORD)? as usize } else { 1 };
    (second > 0 && last <= entries && (last > 0) == (count > 1)).then_some((entries, last))
}

/// The body of a block whose checksum does not hold; nothing where it does not decompress.
fn doubtful(stored: &[u8], limit: u64) -> Vec<u8> {
    let covered = stored.get(..stored.len().saturating_sub(WORD)).unwrap_or_default();
    match covered.split_last() {
        Some((1, body)) => crate::snappy::decompress(body, limit.min(LONGEST as u64))
            .unwrap_or_else(|_| stored.to_vec()),
        // The type may be what is damaged, or no part of a block at all.
        Some((0, body)) => body.to_vec(),
        _ => stored.to_vec(),
    }
}

/// Puts one byte of a block right, if that makes its checksum hold, and all of it be in order.
///
/// Returns the body, and what was done.
fn repaired(stored: &[u8], limit: u64) -> Option<(Vec<u8>, String)> {
    let (covered, checksum) = stored.split_last_chunk::<WORD>()?;
    if covered.len() > REPAIRED {
        return None;
    }
    let checksum = u32::from_le_bytes(*checksum);
    let sound = |block: &[u8]| {
        let body = Body::open(block, 0, limit.min(LONGEST as u64)).ok()?;
        let mut entries = Entries::default();
        // Keys in order, restarts at entries, nothing left: else something else is wrong as well.
        body.decode(&mut entries, limit).ok().map(|_| body.bytes().to_vec())
    };
    let right = crc::mask(crc::crc32c(covered));
    let difference = right ^ checksum;
    if difference.to_le_bytes().iter().filter(|&&byte| byte != 0).count() == 1 {
        let mut block = stored.to_vec();
        let at = covered.len();
        block.get_mut(at..)?.copy_from_slice(&right.to_le_bytes());
        if let Some(body) = sound(&block) {
            return Some((body, "one byte of its checksum was wrong".to_owned()));
        }
    }
    let mut registers = Vec::with_capacity(covered.len());
    let mut register = START;
    for &byte in covered {
        registers.push(register);
        register = forward(register, byte);
    }
    let mut wanted = !crc::unmask(checksum);
    let mut answer = None;
    for (at, (&byte, &before)) in covered.iter().zip(&registers).enumerate().rev() {
        if let Some(right) = crc::between(before, wanted) {
            let mut block = stored.to_vec();
            *block.get_mut(at)? = right;
            if let Some(body) = sound(&block) {
                let what = format!("byte {at} of the block was {byte:02x}, not {right:02x}");
                if answer.replace((body, what)).is_some() {
                    // Two bytes would do: nothing tells which one.
                    return None;
                }
            }
        }
        wanted = crc::backward(wanted, byte);
    }
    answer
}

/// Goes through the entries of a body, from restart to restart where one does not parse.
///
/// `each` gets how many bytes a key shares with the one before, its other bytes, and the value; it
/// says whether to go on. Returns whether everything parsed.
fn lenient(body: &[u8], mut each: impl FnMut(usize, &[u8], &[u8]) -> bool) -> bool {
    let (entries, restarts) = split(body);
    let (mut at, mut whole, mut known) = (0, !restarts.is_empty(), 0);
    while at < entries.len() {
        let place = restarts.partition_point(|&restart| restart <= at);
        let next = restarts.get(place).copied().unwrap_or(entries.len());
        let fresh = at == 0 || place.checked_sub(1).and_then(|p| restarts.get(p)) == Some(&at);
        let mut cursor = Cursor::new(entries.get(at..next).unwrap_or_default(), 0);
        let parsed = Stored::read(&mut cursor, |_, _| Ok(())).ok();
        let most = if fresh { 0 } else { known };
        if let Some(entry) = parsed.filter(|entry| entry.shared <= most) {
            if !each(entry.shared, entry.suffix, entry.value) {
                return false;
            }
            known = entry.shared + entry.suffix.len();
            at += cursor.position();
        } else {
            whole = false;
            at = next;
            known = 0;
        }
    }
    whole
}

/// Splits a body into entries and restarts, which rise; all of it is entries where they do not.
fn split(body: &[u8]) -> (&[u8], Vec<usize>) {
    let found = (|| {
        let (rest, count) = body.split_last_chunk::<WORD>()?;
        let length = (u32::from_le_bytes(*count) as usize).checked_mul(WORD)?;
        let entries = rest.len().checked_sub(length).filter(|_| length > 0)?;
        let (entries, restarts) = rest.split_at_checked(entries)?;
        let restarts: Vec<usize> = restarts
            .chunks_exact(WORD)
            .filter_map(|bytes| bytes.first_chunk())
            .map(|bytes| u32::from_le_bytes(*bytes) as usize)
            .collect();
        let rises = restarts.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        (rises && restarts.last() <= Some(&entries.len())).then_some((entries, restarts))
    })();
    found.unwrap_or((body, Vec::new()))
}

#[cfg(test)]
#[path = "salvage_tests.rs"]
mod tests;
