//! An object with several pod templates.
//!
//! Owns which of them are one workload: those with one constraint.

use crate::input::{Constraint, ContainerImage, Part, Workload, WorkloadKey};

/// One workload a constraint: the first by the object's own name, the others by their place in it. `template` is that of
/// another object which this one refers to, `extras` what only Pods show.
pub(super) fn parts(
    key: &WorkloadKey,
    mut good: Workload,
    template: Option<Workload>,
    extras: Vec<(ContainerImage, Constraint)>,
) -> Vec<(WorkloadKey, Result<Workload, String>)> {
    if let Some(template) = template {
        refer(&mut good, template);
    }
    let more = std::mem::take(&mut good.more);
    let plain = Workload { images: Vec::new(), problems: Vec::new(), ..good.clone() };
    let mut parts: Vec<(Option<String>, Workload)> = vec![(None, good)];
    for Part { at, images, constraint, template_warm, runtime_class } in more {
        let is_same = |other: &Workload| {
            other.constraint == constraint
                && other.template_warm == template_warm
                && other.runtime_class == runtime_class
        };
        if let Some((_, other)) = parts.iter_mut().find(|(_, other)| is_same(other)) {
            other.images.extend(images);
        } else {
            let part = Workload { images, constraint, template_warm, runtime_class, ..plain.clone() };
            parts.push((Some(at), part));
        }
    }
    for (image, constraint) in extras {
        let at = parts.iter().position(|(_, part)| made(&part.constraint, &constraint)).unwrap_or_default();
        if let Some((_, part)) = parts.get_mut(at) {
            part.images.push(image);
        }
    }
    let named = parts.into_iter().map(|(at, part)| {
        let name = at.map_or_else(|| key.name.clone(), |at| format!("{}#{at}", key.name));
        (WorkloadKey { name, ..key.clone() }, Ok(part))
    });
    named.collect()
}

fn refer(good: &mut Workload, template: Workload) {
    let Workload { images, constraint, more, template_warm, runtime_class, .. } = template;
    if good.images.is_empty() {
        (good.images, good.constraint, good.runtime_class) = (images, constraint, runtime_class);
        good.template_warm = good.template_warm.take().or(template_warm);
    } else {
        good.more.push(Part { at: "workloadRef".to_owned(), images, constraint, template_warm, runtime_class });
    }
    good.more.extend(more);
}

/// Whether a Pod with this constraint may be one of that template: admission adds tolerations.
fn made(template: &Constraint, pod: &Constraint) -> bool {
    template.node_selector == pod.node_selector
        && template.affinity == pod.affinity
        && template.tolerations.is_subset(&pod.tolerations)
}
