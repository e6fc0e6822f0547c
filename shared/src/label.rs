//! The labels, annotations and taints of ours that people meet on Kubernetes objects.
//!
//! Owns their names and values. Never knows a Kubernetes type.

use crate::image::Digest;
use crate::name::ImageKey;

/// Prefix of the node label of one image: `image.warm-images.dev/<key>` = first 32 hex digits of the digest.
pub const IMAGE_PREFIX: &str = "image.warm-images.dev/";

/// Suffix of the prefix of set labels: `<namespace>.set.warm-images.dev/<set>`.
pub const SET_PREFIX_SUFFIX: &str = ".set.warm-images.dev";

/// The value of a set's label.
pub const SET_VALUE: &str = "warm";

/// Annotation that opts a workload, its pod template or its namespace out (`"false"`) or in (`"true"`).
pub const WARM_ANNOTATION: &str = "warm-images.dev/warm";

/// Annotation with the priority of a workload's images, 0-100.
pub const PRIORITY_ANNOTATION: &str = "warm-images.dev/priority";

/// Annotation with the most nodes that a workload's images are warmed on; on the workload or on its pod template.
pub const MAX_NODES_ANNOTATION: &str = "warm-images.dev/max-nodes";

/// Prefix of every taint of ours.
pub const TAINT_PREFIX: &str = "warm-images.dev/";

/// The field manager of every write to Kubernetes.
pub const FIELD_MANAGER: &str = "warm-images";

/// The node label key of an image.
pub fn image_label(key: &ImageKey) -> String {
    format!("{IMAGE_PREFIX}{key}")
}

/// The node label value of a digest: 32 hex digits, as label values hold 63 characters at most.
pub fn image_label_value(digest: &Digest) -> String {
    digest.short().to_owned()
}

/// The image of a label key of ours.
pub fn parse_image_label(label: &str) -> Option<ImageKey> {
    ImageKey::parse(label.strip_prefix(IMAGE_PREFIX)?).ok()
}

/// The node label key of a set. Both parts are DNS labels, so it fits: a prefix of 253 characters at most, a name of 63.
pub fn set_label(namespace: &str, name: &str) -> String {
    format!("{namespace}{SET_PREFIX_SUFFIX}/{name}")
}

/// Whether a label key of ours is that of a set.
pub fn is_of_set(label: &str) -> bool {
    label.split_once('/').is_some_and(|(prefix, _)| prefix.ends_with(SET_PREFIX_SUFFIX))
}

/// Whether a node label is ours to write and to remove.
pub fn is_ours(label: &str) -> bool {
    label.starts_with(IMAGE_PREFIX) || is_of_set(label)
}

/// Whether a taint with this key is ours to put and to remove.
pub fn is_our_taint(key: &str) -> bool {
    key.starts_with(TAINT_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_fits_kubernetes_limits_and_is_reversible() {
        let key = ImageKey::of("docker.io/library/nginx:latest");
        let label = image_label(&key);
        assert!(label.split_once('/').is_some_and(|(p, n)| p.len() <= 253 && n.len() <= 63));
        assert_eq!(parse_image_label(&label), Some(key));
        let longest = "a".repeat(63);
        let set = set_label(&longest, &longest);
        assert!(set.split_once('/').is_some_and(|(p, n)| p.len() <= 253 && n.len() <= 63));
        assert!(is_of_set(&set) && !is_of_set(&label));
        assert!(is_ours(&label) && is_ours("shop.set.warm-images.dev/base") && !is_ours("kubernetes.io/os"));
    }
}
