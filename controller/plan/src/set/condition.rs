//! The conditions of a set.
//!
//! Owns what counts as ready, as progress and as trouble, and since when: the time of a condition moves only with its
//! status.

use jiff::{Timestamp, Unit};

use super::status::{Condition, ConditionStatus, SetStatus};

/// What the counts do not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    /// Nothing is to be pulled for it.
    pub(crate) is_suspended: bool,
    /// So many images cannot be used, or are left out.
    pub(crate) unusable: usize,
}

/// The conditions that are ours, in their order.
pub(super) const KINDS: [&str; 3] = ["Ready", "Progressing", "Degraded"];

type Said = (ConditionStatus, &'static str, String);

/// The conditions of a status that has everything else. `shown`: what is there now.
pub(crate) fn conditions(
    status: &SetStatus,
    of: Circumstances,
    shown: Option<&SetStatus>,
    now: Timestamp,
) -> Vec<Condition> {
    // Kubernetes keeps whole seconds.
    let now = now.round(Unit::Second).unwrap_or(now);
    let condition = |kind: &str, (is, reason, message): Said| {
        let before = shown.and_then(|shown| shown.conditions.iter().find(|c| c.kind == kind && c.status == is));
        Condition {
            kind: kind.to_owned(),
            status: is,
            reason: reason.to_owned(),
            message,
            last_transition_time: before.map_or(now, |before| before.last_transition_time),
            observed_generation: status.observed_generation,
        }
    };
    vec![
        condition("Ready", ready(status, of)),
        condition("Progressing", progressing(status, of)),
        condition("Degraded", degraded(status, of)),
    ]
}

fn ready(status: &SetStatus, of: Circumstances) -> Said {
    use ConditionStatus::{False, True, Unknown};
    let SetStatus { desired, warm, nodes, .. } = status;
    let progress = format!("{warm} of {desired} images on {nodes} nodes are warm");
    if let (True, reason, message) = degraded(status, of) {
        return (False, reason, format!("{progress}; {message}"));
    }
    if status.nodes == 0 {
        let message = match status.nodes_without_agent {
            0 => "no node is selected: see nodeSelector and tolerations".to_owned(),
            n => format!("{n} nodes are selected, and none has an agent"),
        };
        return (False, "NoNodes", message);
    }
    if status.pending == 0 {
        return (True, "AllWarm", progress);
    }
    if of.is_suspended {
        return (False, "Suspended", format!("{progress}, and nothing is pulled while spec.suspend is true"));
    }
    if status.unknown == status.pending {
        return (Unknown, "NotReported", format!("{progress}; of the others nothing is known yet"));
    }
    (False, "Pulling", progress)
}

fn progressing(status: &SetStatus, of: Circumstances) -> Said {
    use ConditionStatus::{False, True};
    match (status.pending, status.failed) {
        (0, 0) => (False, "Done", "nothing is to come".to_owned()),
        _ if of.is_suspended => (False, "Suspended", "nothing is pulled while spec.suspend is true".to_owned()),
        (0, failed) => (True, "Retrying", format!("{failed} are tried again, with a growing wait")),
        (pending, _) => (True, "Pulling", format!("{pending} are to come")),
    }
}

fn degraded(status: &SetStatus, of: Circumstances) -> Said {
    use ConditionStatus::{False, True};
    // The worst is listed first.
    let worst = status.images.first();
    let why = |what: &str| {
        let reason = worst.and_then(|image| image.reasons.first()).map(|r| r.reason.as_str()).unwrap_or_default();
        format!("{what}: {reason}, such as {}", worst.map(|image| image.image.as_str()).unwrap_or_default())
    };
    if of.unusable > 0 {
        let example = worst.map(|image| format!("{}: {}", image.image, image.problem)).unwrap_or_default();
        return (True, "UnusableImages", format!("{} images are not kept, such as {example}", of.unusable));
    }
    if status.failed > 0 {
        return (True, "ImagesFail", why(&format!("{} fail", status.failed)));
    }
    if status.refused > 0 {
        return (True, "ImagesRefused", why(&format!("{} are refused", status.refused)));
    }
    (False, "AsExpected", "nothing fails".to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const FINE: Circumstances = Circumstances { is_suspended: false, unusable: 0 };
    const HELD: Circumstances = Circumstances { is_suspended: true, unusable: 0 };
    const BAD: Circumstances = Circumstances { is_suspended: false, unusable: 1 };

    fn status(warm: i64, pending: i64, failed: i64, refused: i64, unknown: i64) -> SetStatus {
        let desired = warm + pending + failed + refused;
        SetStatus { nodes: 2, desired, warm, pending, failed, refused, unknown, ..SetStatus::default() }
    }

    #[rstest]
    #[case::all_warm(FINE, status(4, 0, 0, 0, 0), ["True AllWarm", "False Done", "False AsExpected"])]
    #[case::pulling(FINE, status(3, 1, 0, 0, 0), ["False Pulling", "True Pulling", "False AsExpected"])]
    #[case::nothing_known(FINE, status(3, 1, 0, 0, 1), ["Unknown NotReported", "True Pulling", "False AsExpected"])]
    #[case::failing(FINE, status(3, 0, 1, 0, 0), ["False ImagesFail", "True Retrying", "True ImagesFail"])]
    #[case::refused(FINE, status(3, 0, 0, 1, 0), ["False ImagesRefused", "False Done", "True ImagesRefused"])]
    #[case::held(HELD, status(3, 1, 0, 0, 0), ["False Suspended", "False Suspended", "False AsExpected"])]
    #[case::held_and_warm(HELD, status(4, 0, 0, 0, 0), ["True AllWarm", "False Done", "False AsExpected"])]
    #[case::unusable(BAD, status(4, 0, 0, 0, 0), ["False UnusableImages", "False Done", "True UnusableImages"])]
    #[case::nowhere(FINE, SetStatus::default(), ["False NoNodes", "False Done", "False AsExpected"])]
    fn three_conditions_say_how_it_is(
        #[case] of: Circumstances,
        #[case] status: SetStatus,
        #[case] expected: [&str; 3],
    ) {
        let said = conditions(&status, of, None, Timestamp::UNIX_EPOCH);
        let said: Vec<String> = said.iter().map(|c| format!("{:?} {}", c.status, c.reason)).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn the_time_of_a_condition_moves_with_its_status_alone() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let mut shown = status(3, 1, 0, 0, 0);
        shown.conditions = conditions(&shown, FINE, None, at(10));
        let more = conditions(&status(2, 2, 0, 0, 0), FINE, Some(&shown), at(20));
        assert!(more.iter().all(|c| c.last_transition_time == at(10)), "{more:?}");
        let done = conditions(&status(4, 0, 0, 0, 0), FINE, Some(&shown), at(30));
        let times: Vec<i64> = done.iter().map(|c| c.last_transition_time.as_second()).collect();
        assert_eq!(times, [30, 30, 10], "ready, no more progress, and as before not degraded");
    }
}
