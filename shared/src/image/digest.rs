//! Digests of content.
//!
//! Owns what a digest is: `algorithm:hex` of the three algorithms of `github.com/opencontainers/go-digest` v1.0.0
//! (`algorithm.go`), lower-case and of the algorithm's length. Never computes one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{clip, grammar};

/// Hex digits of [`Digest::short`]: label values hold 63 characters at most.
const SHORT: usize = 32;

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No algorithm and hex with a colon between them.
    #[error("`{text}` is not a digest: write <algorithm>:<hex>, such as sha256: and 64 hex digits")]
    Form {
        /// What was given, clipped.
        text: String,
    },
    /// An algorithm that registries and runtimes do not share.
    #[error("`{text}` is not a digest: its algorithm must be sha256, sha384 or sha512")]
    Algorithm {
        /// What was given, clipped.
        text: String,
    },
    /// Hex of the wrong length or with other characters.
    #[error(
        "`{text}` is not a digest: after {algorithm}: must come exactly {digits} of 0-9 and a-f; copy it unshortened"
    )]
    Hex {
        /// What was given, clipped.
        text: String,
        /// The algorithm named.
        algorithm: &'static str,
        /// The hex digits it has.
        digits: usize,
    },
}

// Declared in the order of their names, so that digests sort as their texts do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    const fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }
}

/// The digest of a manifest, an index or a blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// Reads `algorithm:hex`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let Some((name, hex)) = text.split_once(':').filter(|(name, hex)| !name.is_empty() && !hex.is_empty()) else {
            return Err(DigestError::Form { text: clip(text) });
        };
        let Some(algorithm) = Algorithm::ALL.into_iter().find(|a| a.name() == name) else {
            return Err(DigestError::Algorithm { text: clip(text) });
        };
        if !grammar::is_lower_hex(hex, algorithm.digits()) {
            let (name, digits) = (algorithm.name(), algorithm.digits());
            return Err(DigestError::Hex { text: clip(text), algorithm: name, digits });
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    /// `sha256`, `sha384` or `sha512`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// The hex digits after the colon: 64, 96 or 128.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first 32 hex digits, which a label value can hold.
    pub fn short(&self) -> &str {
        self.hex.get(..SHORT).unwrap_or(&self.hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(value: String) -> Result<Self, DigestError> {
        Self::parse(&value)
    }
}

impl From<Digest> for String {
    fn from(value: Digest) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("sha256", 64)]
    #[case("sha384", 96)]
    #[case("sha512", 128)]
    fn each_algorithm_has_its_own_length_and_no_other(#[case] algorithm: &str, #[case] digits: usize) {
        let digest = Digest::parse(&format!("{algorithm}:{}", "0f".repeat(digits / 2))).unwrap();
        assert_eq!(digest.algorithm(), algorithm);
        assert_eq!(digest.hex(), "0f".repeat(digits / 2));
        assert_eq!(digest.short(), "0f".repeat(16));
        for wrong in [1, 32, digits - 1, digits + 1] {
            let error = Digest::parse(&format!("{algorithm}:{}", "a".repeat(wrong))).unwrap_err();
            assert!(error.to_string().contains(&format!("exactly {digits}")), "{error}");
        }
    }

    #[rstest]
    #[case("", "<algorithm>:<hex>")]
    #[case(":", "<algorithm>:<hex>")]
    #[case("sha256:", "<algorithm>:<hex>")]
    #[case(":aa", "<algorithm>:<hex>")]
    #[case("sha256", "<algorithm>:<hex>")]
    #[case("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "sha256, sha384 or sha512")]
    #[case("SHA256:0", "sha256, sha384 or sha512")]
    #[case(" sha256:0", "sha256, sha384 or sha512")]
    #[case("sha256+b64:0", "sha256, sha384 or sha512")]
    #[case("sha256:sha256:0", "0-9 and a-f")]
    fn what_is_no_digest_is_refused_with_the_text_and_the_rule(#[case] text: &str, #[case] rule: &str) {
        let error = Digest::parse(text).unwrap_err().to_string();
        assert!(error.contains(&format!("`{text}`")) && error.contains(rule), "{error}");
    }

    #[test]
    fn hex_is_lower_case_and_ends_where_the_text_ends() {
        let hex = "a".repeat(64);
        assert!(Digest::parse(&format!("sha256:{hex}")).is_ok());
        assert!(Digest::parse(&format!("sha256:{}", hex.to_uppercase())).is_err());
        assert!(Digest::parse(&format!("sha256:{hex}\n")).is_err());
        assert!(Digest::parse(&format!("sha256:{}g", &hex[1..])).is_err());
        assert!(Digest::parse(&format!("sha256:{}é", &hex[2..])).is_err());
    }

    #[test]
    fn a_digest_is_a_string_in_json_and_a_wrong_one_is_refused() {
        let json = format!("\"sha256:{}\"", "1".repeat(64));
        let digest: Digest = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&digest).unwrap(), json);
        assert!(serde_json::from_str::<Digest>("\"sha256:1\"").is_err());
    }

    proptest! {
        #[test]
        fn parsing_is_the_inverse_of_printing(
            text in prop_oneof!["sha256:[0-9a-f]{64}", "sha384:[0-9a-f]{96}", "sha512:[0-9a-f]{128}"]
        ) {
            let digest = Digest::parse(&text).unwrap();
            prop_assert_eq!(digest.to_string(), &*text);
            prop_assert_eq!(digest.short().len(), 32);
        }

        #[test]
        fn digests_sort_as_their_texts(a in "sha(256:[0-1]{64}|384:[0-1]{96})", b in "sha(256:[0-1]{64}|512:[0-1]{128})") {
            prop_assert_eq!(Digest::parse(&a).unwrap().cmp(&Digest::parse(&b).unwrap()), a.cmp(&b));
        }

        #[test]
        fn no_text_panics_and_what_is_accepted_prints_as_it_was(text in "\\PC{0,40}|(sha256:)?[0-9a-fA-Fg:]{0,70}|(?s).{0,200}") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
