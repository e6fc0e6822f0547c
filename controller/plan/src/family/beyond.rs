//! What a workload runs that its own template does not name.
//!
//! Owns where that is looked for: in the Pods below it, into which others inject, and in the templates that the controller of
//! a configured kind makes for it. (A Knative Service that is scaled to zero has no Pod; its queue-proxy, and the digest its tag
//! was resolved to, stand in the Deployment of its revision alone.)

use std::collections::BTreeSet;

use super::{DEPTH, Family};
use crate::input::{Constraint, ContainerImage, Controller, Workload, WorkloadKey, WorkloadKind};

impl Family {
    /// What stands below an object and is named by no template of its own, with where, and with the constraint that stands
    /// beside it.
    pub(super) fn shown_beyond(&self, top: &WorkloadKey, good: &Workload) -> Vec<(ContainerImage, Constraint)> {
        let mut shown = Vec::new();
        let mut next = vec![(top.clone(), 0)];
        while let Some((key, depth)) = next.pop() {
            let Some(member) = self.objects.get(&key).and_then(|member| member.good.as_ref()) else { continue };
            let own = good.every_image().chain(self.template_of(good).into_iter().flat_map(Workload::every_image));
            let of_member = member.every_image();
            let of_its_template = self.template_of(member).into_iter().flat_map(Workload::every_image);
            let mut named: BTreeSet<&str> = own.map(|image| image.image.as_str()).collect();
            if depth > 0 && is_made_for(top, &key) && !member.deleting {
                let beyond = member.every_image().filter(|image| !named.contains(image.image.as_str()));
                let (kind, name) = (key.kind.name(), &key.name);
                shown.extend(beyond.map(|image| {
                    let position = format!("{kind} {name} {}", image.position);
                    (ContainerImage { position, image: image.image.clone() }, member.constraint.clone())
                }));
            }
            named.extend(of_member.chain(of_its_template).map(|image| image.image.as_str()));
            let of = Controller { key: key.clone(), uid: member.uid.clone() };
            for replica in self.replicas.get(&of).into_iter().flatten() {
                let beyond = replica.view.every_image().filter(|image| !named.contains(image.image.as_str()));
                shown.extend(beyond.map(|image| {
                    let position = format!("pod {} {}", replica.pod, image.position);
                    (ContainerImage { position, image: image.image.clone() }, replica.view.constraint.clone())
                }));
            }
            if depth < DEPTH {
                let children = self.children.get(&key).into_iter().flatten();
                let mine =
                    children.filter(|child| self.owner(child).is_some_and(|(owner, there)| there && owner == key));
                next.extend(mine.map(|child| (child.clone(), depth + 1)));
            }
        }
        shown
    }
}

/// Whether the template of an object is one that pods are made of next, as far as anybody knows who does not know the kind
/// at the top. `ReplicaSets` and Jobs are left out: those of earlier revisions and of work that is done stay about.
fn is_made_for(top: &WorkloadKey, key: &WorkloadKey) -> bool {
    matches!(top.kind, WorkloadKind::Other(_))
        && matches!(key.kind, WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::DaemonSet)
}
