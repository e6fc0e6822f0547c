//! What pods ask for and nodes can give, as far as a node could never have enough.
//!
//! Owns the coarse steps in which both are compared: rounding down what is asked for never leaves out a node that could
//! fit, keeps constraints that differ little in one pool, and makes most changes of a Node no news.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Below this nearly every node has enough: nothing is asked of it.
const LEAST_CORES: u64 = 4;
/// As [`LEAST_CORES`], in GiB.
const LEAST_GIB: u64 = 16;
const GIB: u64 = 1 << 30;

/// What a pod asks for at least at one moment of its life, overhead included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Requests {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
    /// Extended resources by name, such as `nvidia.com/gpu`.
    pub extended: BTreeMap<String, u64>,
}

impl Requests {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Rounded down to the steps that count: cores and GiB to powers of two, from 4 and 16 on; nothing below.
    #[must_use]
    pub fn coarse(&self) -> Self {
        let step = |n: u64, least: u64| if n < least { 0 } else { power_of_two(n) };
        Self {
            cpu_milli: step(self.cpu_milli / 1_000, LEAST_CORES) * 1_000,
            memory: step(self.memory / GIB, LEAST_GIB).saturating_mul(GIB),
            extended: self.extended.iter().filter(|(_, n)| **n > 0).map(|(name, n)| (name.clone(), *n)).collect(),
        }
    }

    /// Both at once.
    pub fn add(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory = self.memory.saturating_add(other.memory);
        for (name, n) in &other.extended {
            let sum = self.extended.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*n);
        }
    }

    /// Now one, now the other.
    pub fn at_least(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory = self.memory.max(other.memory);
        for (name, n) in &other.extended {
            let most = self.extended.entry(name.clone()).or_default();
            *most = (*most).max(*n);
        }
    }

    /// For people: what is asked for, by name.
    pub fn named(&self) -> BTreeMap<&str, String> {
        let mut named: BTreeMap<&str, String> =
            self.extended.iter().map(|(name, n)| (name.as_str(), n.to_string())).collect();
        if self.cpu_milli > 0 {
            named.insert("cpu", (self.cpu_milli / 1_000).to_string());
        }
        if self.memory > 0 {
            named.insert("memory", format!("{}Gi", self.memory / GIB));
        }
        named
    }
}

/// What a node gives pods if it has no others, in the same steps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capacity {
    /// Cores, rounded down to a power of two; `None` if the Node does not tell.
    pub cores: Option<u64>,
    /// GiB, rounded down to a power of two; `None` if the Node does not tell.
    pub gib: Option<u64>,
    /// Extended resources. One that is there at 0 may come back: its plugin restarts.
    pub extended: BTreeMap<String, u64>,
}

impl Capacity {
    /// The capacity of a node with so many thousandths of a core and bytes.
    pub fn of(cpu_milli: Option<u64>, memory: Option<u64>, extended: BTreeMap<String, u64>) -> Self {
        let step = |n: u64| if n == 0 { 0 } else { power_of_two(n) };
        Self { cores: cpu_milli.map(|m| step(m / 1_000)), gib: memory.map(|bytes| step(bytes / GIB)), extended }
    }

    /// The first of what is asked for of which there is never enough: its name, and what there is.
    pub(crate) fn lacks<'r>(&self, requests: &'r Requests) -> Option<(&'r str, Option<u64>)> {
        let wanted = requests.coarse();
        if let Some(cores) = self.cores.filter(|cores| cores.saturating_mul(1_000) < wanted.cpu_milli) {
            return Some(("cpu", Some(cores)));
        }
        if let Some(gib) = self.gib.filter(|gib| gib.saturating_mul(GIB) < wanted.memory) {
            return Some(("memory", Some(gib)));
        }
        requests.extended.iter().filter(|(_, n)| **n > 0).find_map(|(name, n)| match self.extended.get(name) {
            Some(0) => None,
            Some(there) if there >= n => None,
            there => Some((name.as_str(), there.copied())),
        })
    }
}

/// The highest power of two that is not above `n`, which is not 0.
fn power_of_two(n: u64) -> u64 {
    1 << n.ilog2()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn gpus(n: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("nvidia.com/gpu".to_owned(), n)])
    }

    #[rstest]
    #[case::little_is_asked_of_no_node(3_999, 15 * GIB, 1, 1, None)]
    #[case::four_cores(4_000, 0, 3_920, 64, Some("cpu"))]
    #[case::rounded_down(7_000, 0, 4_500, 64, None)]
    #[case::memory(0, 64 * GIB, 8_000, 63, Some("memory"))]
    #[case::memory_that_fits(0, 64 * GIB, 8_000, 64, None)]
    fn a_node_that_could_never_fit_is_told(
        #[case] cpu_milli: u64,
        #[case] memory: u64,
        #[case] cores_milli: u64,
        #[case] gib: u64,
        #[case] lacks: Option<&str>,
    ) {
        let capacity = Capacity::of(Some(cores_milli), Some(gib * GIB), BTreeMap::new());
        let requests = Requests { cpu_milli, memory, ..Requests::default() };
        assert_eq!(capacity.lacks(&requests).map(|(name, _)| name), lacks);
        assert_eq!(Capacity::default().lacks(&requests), None, "a node that does not tell counts");
    }

    #[rstest]
    #[case(Some(8), 8, true)]
    #[case(Some(8), 9, false)]
    #[case::its_plugin_restarts(Some(0), 8, true)]
    #[case::it_has_none(None, 1, false)]
    #[case::none_is_asked_for(None, 0, true)]
    fn extended_resources_count_exactly(#[case] there: Option<u64>, #[case] wanted: u64, #[case] fits: bool) {
        let capacity = Capacity { extended: there.map(gpus).unwrap_or_default(), ..Capacity::default() };
        let requests = Requests { extended: gpus(wanted), ..Requests::default() };
        assert_eq!(capacity.lacks(&requests), (!fits).then_some(("nvidia.com/gpu", there)));
    }

    proptest! {
        #[test]
        fn rounding_leaves_out_no_node_that_could_fit(
            (cpu, memory) in (0_u64..400_000, 0_u64..(2_000 * GIB)),
            (cores, bytes) in (0_u64..400_000, 0_u64..(2_000 * GIB)),
        ) {
            let requests = Requests { cpu_milli: cpu, memory, ..Requests::default() };
            let capacity = Capacity::of(Some(cores), Some(bytes), BTreeMap::new());
            prop_assert_eq!(requests.coarse().coarse(), requests.coarse());
            let coarse = requests.coarse();
            prop_assert_eq!(capacity.lacks(&requests), capacity.lacks(&coarse));
            if cpu <= cores && memory <= bytes {
                prop_assert_eq!(capacity.lacks(&requests), None);
            }
        }
    }
}
