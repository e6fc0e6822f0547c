//! Names that cross NATS: clusters, nodes, pools, image keys.
//!
//! Owns what is valid and how each is derived. The subject grammar on top is [`crate::subject`].

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::text::{CLIP, shown};

/// A name that does not follow its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a valid {what}: {rule}", shown(.value, CLIP))]
pub struct NameError {
    /// The kind of name.
    pub what: &'static str,
    /// What was given.
    pub value: String,
    /// What is required.
    pub rule: &'static str,
}

// Shared: a name is copied into as many books as are kept of a node or a pool.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the rule.
            pub fn parse(value: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(value) {
                    Ok(Self(value.into()))
                } else {
                    Err(NameError { what: $what, value: value.to_owned(), rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::parse(&value)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A cluster id: names buckets and subjects of one cluster on a NATS that may serve several.
    ClusterId, "cluster id", "a DNS label: 1-63 of a-z, 0-9 and -, beginning and ending with a letter or digit", is_dns_label
);
name!(
    /// The name of a Kubernetes Node: a DNS subdomain of at most 253 characters.
    NodeName, "node name", "a DNS subdomain: at most 253 characters, labels of a-z, 0-9 and - joined by dots", is_dns_subdomain
);
name!(
    /// A pool id: `all`, `auto-` + 10 hex, `node-` + 10 hex.
    PoolId, "pool id", "1-63 of a-z, 0-9 and -", |s| (1..=63).contains(&s.len()) && s.bytes().all(is_lower_alnum_or_dash)
);
/// The key of an image, and the id of its intent: 26 characters of lower-case base32. Held in place: there are as many of
/// them as images on every node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageKey([u8; KEY_LENGTH]);

const KEY_LENGTH: usize = 26;

impl ImageKey {
    /// Checks the rule.
    pub fn parse(value: &str) -> Result<Self, NameError> {
        let is_base32 = |b: &u8| b.is_ascii_lowercase() || (b'2'..=b'7').contains(b);
        match value.as_bytes().try_into() {
            Ok(bytes) if value.bytes().all(|b| is_base32(&b)) => Ok(Self(bytes)),
            _ => Err(NameError {
                what: "image key",
                value: value.to_owned(),
                rule: "26 characters of lower-case base32 (a-z, 2-7)",
            }),
        }
    }

    /// The key of a canonical reference: first 26 characters of lower-case base32 of its SHA-256.
    pub fn of(canonical: &str) -> Self {
        let text = BASE32_NOPAD.encode(&Sha256::digest(canonical));
        let mut key = [0; KEY_LENGTH];
        for (to, from) in key.iter_mut().zip(text.bytes()) {
            *to = from.to_ascii_lowercase();
        }
        Self(key)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        // It is ASCII by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::hash::Hash for ImageKey {
    /// As its text: it can be looked up by that.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for ImageKey {
    type Error = NameError;
    fn try_from(value: String) -> Result<Self, NameError> {
        Self::parse(&value)
    }
}

impl From<ImageKey> for String {
    fn from(key: ImageKey) -> Self {
        key.as_str().to_owned()
    }
}

impl Borrow<str> for ImageKey {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

fn is_lower_alnum_or_dash(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
}

fn is_dns_label(s: &str) -> bool {
    (1..=63).contains(&s.len()) && s.bytes().all(is_lower_alnum_or_dash) && !s.starts_with('-') && !s.ends_with('-')
}

fn is_dns_subdomain(s: &str) -> bool {
    // Kubernetes bounds the whole name and not its labels (RFC 1123 subdomain as in apimachinery's validation).
    (1..=253).contains(&s.len())
        && s.split('.')
            .all(|l| !l.is_empty() && l.bytes().all(is_lower_alnum_or_dash) && !l.starts_with('-') && !l.ends_with('-'))
}

impl Default for ClusterId {
    fn default() -> Self {
        Self("default".into())
    }
}

impl NodeName {
    /// The name as one subject token: `.` becomes `_`, which no node name contains.
    pub fn token(&self) -> String {
        self.0.replace('.', "_")
    }

    /// The inverse of [`NodeName::token`].
    pub fn from_token(token: &str) -> Result<Self, NameError> {
        if token.contains('.') {
            return Err(NameError {
                what: "node token",
                value: token.to_owned(),
                rule: "a node name with _ for each dot",
            });
        }
        Self::parse(&token.replace('_', "."))
    }
}

impl PoolId {
    /// The pool of the empty constraint: every node that an ordinary pod can land on.
    pub fn all() -> Self {
        Self("all".into())
    }

    /// The pool of one normalised constraint: `auto-` + 10 hex of the SHA-256 of its canonical form.
    pub fn auto(canonical_constraint: &str) -> Self {
        Self(format!("auto-{}", hash10(canonical_constraint)).into())
    }

    /// The private pool of one node, for constraints beyond the limits: `node-` + 10 hex of the SHA-256 of its name.
    pub fn private(node: &NodeName) -> Self {
        Self(format!("node-{}", hash10(node.as_str())).into())
    }
}

fn hash10(text: &str) -> String {
    let mut hex = hex::encode(Sha256::digest(text));
    hex.truncate(10);
    hex
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a", "a")]
    #[case("a.b-c", "a_b-c")]
    #[case("ctl", "ctl")]
    #[case("all", "all")]
    #[case("ip-10-0-1-5.ec2.internal", "ip-10-0-1-5_ec2_internal")]
    fn node_names_become_one_token_and_back(#[case] name: &str, #[case] token: &str) {
        let node = NodeName::parse(name).unwrap();
        assert_eq!(node.token(), token);
        assert_eq!(NodeName::from_token(token).unwrap(), node);
    }

    #[test]
    fn a_node_name_of_253_characters_is_valid_and_254_are_not() {
        let longest = format!("{}{}", "a.".repeat(126), "b");
        assert_eq!(longest.len(), 253);
        let node = NodeName::parse(&longest).unwrap();
        assert_eq!(NodeName::from_token(&node.token()).unwrap(), node);
        assert!(NodeName::parse(&format!("{longest}c")).is_err());
    }

    #[rstest]
    #[case("")]
    #[case("A")]
    #[case("a_b")]
    #[case("a..b")]
    #[case("-a")]
    #[case("a*")]
    #[case("a.>")]
    #[case("a b")]
    fn what_is_no_node_name_is_refused_with_its_value(#[case] name: &str) {
        let error = NodeName::parse(name).unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }

    #[test]
    fn ids_are_pinned_for_ever() {
        assert_eq!(ImageKey::of("docker.io/library/nginx:latest").as_str().len(), 26);
        let digest = Sha256::digest("docker.io/library/nginx:latest");
        let full = BASE32_NOPAD.encode(&digest).to_lowercase();
        assert_eq!(ImageKey::of("docker.io/library/nginx:latest").as_str(), &full[..26]);
        assert_eq!(PoolId::auto("x").as_str(), "auto-2d711642b7");
        assert_eq!(PoolId::all().as_str(), "all");
    }

    proptest! {
        #[test]
        fn tokens_are_reversible(name in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?){0,5}") {
            let node = NodeName::parse(&name).unwrap();
            prop_assert_eq!(NodeName::from_token(&node.token()).unwrap(), node);
        }

        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = (NodeName::parse(&text), NodeName::from_token(&text), PoolId::parse(&text), ImageKey::parse(&text));
        }
    }
}
