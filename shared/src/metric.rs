//! Every metric there is: name, kind, labels, help.
//!
//! Owns the one table that feeds registration (`daemon::metrics`), docs and dashboard checks. Labels come from
//! {kind, state, reason, outcome, source, event}: never image, node or pod.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// A value now.
    Gauge,
    /// A distribution, in seconds.
    Histogram,
}

/// Which process has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Both.
    Both,
    /// `warm-controller`.
    Controller,
    /// `warm-agent`.
    Agent,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// `warm_<noun>_<unit>[_total]`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// Which process has it.
    pub process: Process,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($const:ident = $kind:ident $process:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $const: Metric = Metric {
                name: $name,
                kind: MetricKind::$kind,
                process: Process::$process,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// The table.
        pub const ALL: &[Metric] = &[$($const),*];
    };
}

metrics! {
    BUILD = Gauge Both "warm_build_info" ["version"] "Always 1; the label says which version runs.";
    FACTS = Counter Both "warm_facts_total" ["kind"] "Facts taken in by the loop.";
    EFFECTS = Counter Both "warm_effects_total" ["kind", "outcome", "reason"] "Effects carried out, by outcome.";
    STEP_SECONDS = Histogram Both "warm_step_seconds" [] "Time one step of the machine takes.";
    INBOX_DEPTH = Gauge Both "warm_inbox_depth" [] "Facts that wait for the loop.";
    SYNCED = Gauge Both "warm_synced" [] "1 once every source has delivered its first full content.";
    NATS_CONNECTED = Gauge Both "warm_nats_connected" [] "1 while there is a connection to NATS.";
    NATS_EVENTS = Counter Both "warm_nats_events_total" ["event"] "Events of the NATS connection.";
    MESSAGES_REFUSED = Counter Both "warm_messages_refused_total" ["kind", "reason"] "Messages dropped: forged, newer, or not decodable.";
    RECORDING = Gauge Both "warm_recording" [] "1 while facts are recorded to a file.";
    RECORDED_BYTES = Counter Both "warm_recorded_bytes_total" [] "Bytes written to the recording of facts.";
    SOURCE_SYNCED = Gauge Controller "warm_source_synced" ["source"] "1 once this source has delivered its first full list.";
    SOURCE_ERRORS = Counter Controller "warm_source_errors_total" ["source"] "Failed lists and watches, retried by themselves.";
    OBJECTS_INVALID = Gauge Controller "warm_objects_invalid_objects" ["kind"] "Workloads with a part that cannot be used; the rest of them is.";
    LEASE_HELD = Gauge Controller "warm_lease_held" [] "1 while this controller holds the Lease, and so may take the term.";
    LEADING = Gauge Controller "warm_leading" [] "1 while this controller holds the term and writes.";
    CONFIG_CURRENT = Gauge Controller "warm_config_current" [] "1 while the configuration file says what runs; 0 while it is wrong, needs a restart, or its `select` waits for objects to be evaluated.";
    PAUSED = Gauge Controller "warm_paused" [] "1 while a person has paused warm-images (`ctl.pause`).";
    TERM = Gauge Controller "warm_term" [] "The newest term seen.";
    WORKLOADS = Gauge Controller "warm_workloads_objects" [] "Workloads whose images are wanted.";
    INTENTS = Gauge Controller "warm_intents_objects" [] "Intents over all pools.";
    NEWER_KEYS = Gauge Controller "warm_newer_keys_objects" [] "Keys that a newer version has written; they are left alone.";
    BUCKET_USED = Gauge Controller "warm_bucket_used_ratio" ["source"] "How full each bucket of NATS is: 1 is `buckets.maxBytes`.";
    POOLS = Gauge Controller "warm_pools_objects" [] "Pools with at least one intent.";
    NODES = Gauge Controller "warm_nodes_objects" ["state"] "Nodes by what is known of their agent: ready, unknown, no-agent.";
    NODE_IMAGES = Gauge Controller "warm_node_images_objects" ["state"] "Pairs of node and wanted image by state; `unknown` has no evidence.";
    IMAGES_FAILING = Gauge Controller "warm_workload_images_failing_objects" [] "Images of workloads that fail on at least one node.";
    EVENTS_LIMITED = Counter Controller "warm_workload_events_limited_total" [] "Kubernetes Events on workloads that had to wait for room in their minute (`events.perMinute`).";
    LOGINS = Counter Controller "warm_logins_total" ["outcome", "reason"] "Logins of agents that NATS asked about: granted, refused, late (NATS had given up), unanswered.";
    LOGIN_SECONDS = Histogram Controller "warm_login_seconds" [] "Time from the question of NATS to the answer.";
    NODE_LABELS = Gauge Controller "warm_node_labels_objects" ["kind"] "Labels of ours on all nodes: of images, of sets.";
    NODE_LABELS_BEYOND = Gauge Controller "warm_node_labels_beyond_objects" [] "Labels that would be right, for which their nodes have no room (`labels.maxPerNode`).";
    SETS = Gauge Controller "warm_sets_objects" ["state"] "Sets of images by whether everything of them is warm: ready, not-ready.";
    SET_STATUS_WRITES = Counter Controller "warm_set_status_writes_total" ["outcome"] "Writes of the status of sets.";
    LABEL_PATCHES = Counter Controller "warm_label_patches_total" ["outcome"] "Patches of Node labels.";
    IMAGES = Gauge Agent "warm_images_objects" ["state"] "Wanted images on this node by state.";
    PULLS = Counter Agent "warm_pulls_total" ["outcome", "reason"] "Pulls of missing images that ended.";
    REFRESHES = Counter Agent "warm_refreshes_total" ["outcome", "reason"] "Pulls of images that were there already, because their tag may have moved: same, moved, or how they failed.";
    PULL_SECONDS = Histogram Agent "warm_pull_seconds" [] "Time a successful pull takes.";
    PULL_BYTES = Counter Agent "warm_pull_bytes_total" [] "Size of pulled images as the runtime reports it.";
    PULLS_IN_FLIGHT = Gauge Agent "warm_pulls_in_flight_objects" [] "Pulls now in flight.";
    EVICTIONS = Counter Agent "warm_evictions_total" [] "Images that were warm and are gone.";
    REMOVALS = Counter Agent "warm_removals_total" ["outcome"] "Removals of images that nobody wants any more: removed, planned (dry run), used, changed, failed.";
    REMOVED_BYTES = Counter Agent "warm_removed_bytes_total" [] "Size of removed images as the runtime reports it.";
    DISK = Gauge Agent "warm_disk_bytes" ["kind"] "Image file system: used, free, and the mark above which nothing is pulled.";
    INVENTORY_LEFT_OUT = Gauge Agent "warm_inventory_left_out_objects" [] "Wanted images for which the last inventory had no room: nothing is said of them.";
    READS = Counter Agent "warm_reads_total" ["kind"] "Reads of the intents bucket: delta or full; of the full ones, those that found a snapshot.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_and_are_unique() {
        let bounded = ["kind", "state", "reason", "outcome", "source", "event", "version"];
        let mut seen = std::collections::BTreeSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert!(metric.name.starts_with("warm_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            for label in metric.labels {
                assert!(bounded.contains(label), "{}: label {label} is not bounded", metric.name);
            }
        }
    }
}
