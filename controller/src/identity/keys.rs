//! The public keys that the API server publishes (RFC 7517), and what they have signed.
//!
//! Owns which kinds of keys and signatures count: those that Kubernetes makes and `ring` verifies. Never fetches a key.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

/// The keys, by their ids.
#[derive(Debug, Clone, Default)]
pub struct Keys(BTreeMap<String, Key>);

#[derive(Debug, Clone)]
enum Key {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Published>,
}

/// Strings only: a key with any other field in its place is one that nobody here can use.
#[derive(Deserialize)]
struct Published {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a JWK set. Keys of other kinds, and keys without an id, are left out.
    ///
    /// # Errors
    /// What is no JWK set.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let set: Set = serde_json::from_str(text)?;
        let usable = set.keys.into_iter().filter_map(|key| Some((key.kid.clone()?, usable(&key)?)));
        Ok(Self(usable.collect()))
    }

    /// Whether there is a key of this id.
    pub fn has(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether the key `kid` has signed `message` so. `alg` has to be one of its kind: a token does not choose how it is
    /// verified.
    pub fn have_signed(&self, kid: &str, alg: &str, message: &[u8], signature: &[u8]) -> bool {
        match (self.0.get(kid), alg) {
            (Some(Key::Rsa { n, e }), "RS256" | "RS384" | "RS512") => {
                let how = match alg {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA512,
                };
                RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok()
            }
            (Some(Key::P256(point)), "ES256") => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            (Some(Key::P384(point)), "ES384") => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn usable(key: &Published) -> Option<Key> {
    let decoded = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_deref()?).ok();
    // SEC 1, uncompressed.
    let point = || Some([vec![4], decoded(&key.x)?, decoded(&key.y)?].concat());
    match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) => Some(Key::Rsa { n: decoded(&key.n)?, e: decoded(&key.e)? }),
        ("EC", Some("P-256")) => point().map(Key::P256),
        ("EC", Some("P-384")) => point().map(Key::P384),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    fn pair() -> EcdsaKeyPair {
        let random = SystemRandom::new();
        let how = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &random).unwrap()
    }

    #[test]
    fn a_signature_counts_for_its_key_its_message_and_its_algorithm_alone() {
        let pair = pair();
        let encoded = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&pair.public_key().as_ref()[range]);
        let set = json!({ "keys": [
            { "kty": "EC", "kid": "one", "crv": "P-256", "x": encoded(1..33), "y": encoded(33..65), "alg": "ES256" },
            { "kty": "oct", "kid": "two", "k": "c2VjcmV0" },
            { "kty": "RSA", "n": "AQAB", "e": "AQAB" },
            { "kty": "RSA", "kid": "three", "n": "AQAB", "e": "AQAB" },
        ] });
        let keys = Keys::parse(&set.to_string()).unwrap();
        assert_eq!(keys.count(), 2, "a symmetric key or one without an id counts");
        let signature = pair.sign(&SystemRandom::new(), b"message").unwrap();
        let signature = signature.as_ref();
        assert!(keys.have_signed("one", "ES256", b"message", signature));
        for (kid, alg, message) in [
            ("one", "ES256", &b"another"[..]),
            ("one", "none", b"message"),
            ("one", "HS256", b"message"),
            ("one", "ES384", b"message"),
            ("one", "RS256", b"message"),
            ("two", "HS256", b"message"),
            ("three", "RS256", b"message"),
            ("four", "ES256", b"message"),
        ] {
            assert!(!keys.have_signed(kid, alg, message, signature), "{kid} {alg}");
        }
        assert!(!keys.have_signed("one", "ES256", b"message", b""));
    }

    #[test]
    fn the_usual_rsa_key_of_a_cluster_counts_too() {
        // Made with `openssl genrsa 2048` and `openssl dgst -sha256 -sign`, of the text `message`.
        const N: &str = "rjFI2sfWysKuCKdAOVRpgZHNAytkhB_I8B-vMr-rxusqR5JGma7hQF0QLU61pVGdvnFzWPbGJIrBI6omGcsHy9y_i8\
            nTo50Lsf36zOjXMFBo-gi5RY2wrvwwfDBAtKCq8hcGPpx2Yxhmm3HulhvD3yMUkh7PgdagllFId04buVq_uag_83CE\
            HxwV0ABwGP0ILKuRBHwjeFB2M6IKkH7oziN3cPPMt5dUvD__VMGNLjG_9tenink_h3XUExYd_dyasnZxSLb_70A5f2\
            SIn9MbhDv49Sae4A-0I-ut27M3QHpZcoslx9QM6N76uPF5ICGjn2VyeW4kqlXFoUAMAZPfKw";
        const SIGNATURE: &str = "FzzqitMzlbJqsagPAqPWmDQO2b7Dkpi6gSSPGMHJbBhgD6nuowLHj38yyG1Hu9Cx4ZBsSjVZM6eI4hFEAdG9RGtLTM\
            0dQqD9fvDiNX7ME4Wt-zwE_r2sbKYQG0SuE7faJ5SHGQLzxp3Xxq2uDAsZSo_Kmnk5j7e3szhrH3J2ZfbxFnp9XKB6\
            HCMba-KS7a_PN1zouGZXe6WuzTKHV2xVNExQPUc4wQMp6mKsaTup7ZpDEfQJN28yq3eXR6aaUQ2maX0EAps2BjS3Zo\
            -Eb5ccmG0PH9U9vaEXqht9pmSr19sPcBQpdmeNdYi2wANF2oTqagBqtxa4qcxdCbD9KzoXyA";
        let set = json!({ "keys": [{ "kty": "RSA", "kid": "r", "n": N, "e": "AQAB", "use": "sig", "alg": "RS256" }] });
        let keys = Keys::parse(&set.to_string()).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(SIGNATURE).unwrap();
        assert!(keys.have_signed("r", "RS256", b"message", &signature));
        assert!(!keys.have_signed("r", "RS256", b"messagf", &signature));
        assert!(!keys.have_signed("r", "RS512", b"message", &signature));
    }

    #[test]
    fn what_is_no_set_of_keys_is_an_error() {
        assert!(Keys::parse("<html>").is_err());
        assert!(Keys::parse("{}").is_err());
        assert_eq!(Keys::parse(r#"{"keys":[]}"#).unwrap().count(), 0);
    }
}
