//! Deltas that did not connect: what lies before them was not heard.
//!
//! Owns their ranges until a read has filled what is missing.

/// More are not remembered; beats show what they meant.
const MAX: usize = 64;

/// Covers the sequences after `prev` up to `to`.
#[derive(Debug, Clone, Copy)]
struct Range {
    prev: u64,
    to: u64,
    /// It arrived while a read was under way, which may not have seen what lies before it.
    is_during: bool,
}

/// The ranges of one pool.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranges(Vec<Range>);

impl Ranges {
    /// Remembers one.
    pub(crate) fn push(&mut self, prev: u64, to: u64, is_during: bool) {
        if self.0.len() < MAX {
            self.0.push(Range { prev, to, is_during });
        }
    }

    /// A read begins: it sees all that lies before the ranges of now.
    pub(crate) fn read_begins(&mut self) {
        for range in &mut self.0 {
            range.is_during = false;
        }
    }

    /// Gives the head after the ranges that connect to it, and forgets them.
    pub(crate) fn connect(&mut self, mut head: u64) -> u64 {
        self.0.sort_by_key(|range| range.prev);
        for range in &self.0 {
            if range.prev <= head {
                head = head.max(range.to);
            }
        }
        self.0.retain(|range| range.to > head);
        head
    }

    /// A read ended. What it should have connected and did not is left to the beats. Gives whether another is needed.
    pub(crate) fn read_ended(&mut self) -> bool {
        std::mem::take(&mut self.0).iter().any(|range| range.is_during)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_connect_in_any_order_and_leave_a_hole_open() {
        let mut ranges = Ranges::default();
        for (prev, to) in [(7, 9), (3, 5), (20, 22), (5, 7)] {
            ranges.push(prev, to, true);
        }
        assert_eq!(ranges.connect(2), 2);
        assert_eq!(ranges.connect(4), 9);
        assert!(ranges.read_ended(), "the hole before 20 came up during the read");
        assert!(!ranges.read_ended());
    }
}
