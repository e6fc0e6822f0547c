//! A service-account token: what it says, and whether that makes its bearer the agent of a node.
//!
//! Owns every rule about its contents. Pure: keys and time come in. Never shows a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use shared::name::NodeName;
use shared::reason::Reason;

use super::keys::Keys;

/// How much two clocks may differ, in seconds: `protocol.md` section 5.
const LEEWAY: i64 = 60;
/// A longer text is no token of Kubernetes.
const LONGEST: usize = 16 * 1024;

/// A token as it came, not verified. Shows nothing of itself.
pub struct Token<'a> {
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
    header: Header,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// What a token must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Who has issued it.
    pub issuer: String,
    /// For whom.
    pub audience: String,
    /// Of the agents.
    pub namespace: String,
    /// Of the agents.
    pub service_account: String,
}

/// Who the bearer is, by a verified token; whether its Pod is there is yet to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The node.
    pub node: NodeName,
    /// Name of the Pod.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Object,
    pod: Option<Object>,
    node: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    #[serde(default)]
    uid: String,
}

impl<'a> Token<'a> {
    /// Takes a compact JWS (RFC 7515) apart.
    ///
    /// # Errors
    /// [`Reason::TokenMissing`] and [`Reason::TokenMalformed`].
    pub fn parse(text: &'a str) -> Result<Self, Reason> {
        if text.is_empty() {
            return Err(Reason::TokenMissing);
        }
        let malformed = Reason::TokenMalformed;
        let (signed, signature) = text.rsplit_once('.').filter(|_| text.len() <= LONGEST).ok_or(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(malformed)?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed);
        let header = serde_json::from_slice(&decoded(header)?).map_err(|_| malformed)?;
        Ok(Self { signed, payload: decoded(payload)?, signature: decoded(signature)?, header })
    }

    /// The id of the key that is said to have signed it.
    pub fn kid(&self) -> &str {
        &self.header.kid
    }

    /// Who the bearer is. `now` in seconds since 1970.
    ///
    /// # Errors
    /// The first rule that it breaks; of a token whose signature is wrong nothing else is looked at.
    pub fn judge(&self, keys: &Keys, expected: &Expected, now: i64) -> Result<Bearer, Reason> {
        let Header { alg, kid } = &self.header;
        if !keys.has(kid) {
            return Err(Reason::TokenKey);
        }
        if !keys.have_signed(kid, alg, self.signed.as_bytes(), &self.signature) {
            return Err(Reason::TokenSignature);
        }
        let claims: Claims = serde_json::from_slice(&self.payload).map_err(|_| Reason::TokenMalformed)?;
        claims.judge(expected, now)
    }
}

impl Claims {
    fn judge(self, expected: &Expected, now: i64) -> Result<Bearer, Reason> {
        if self.iss != expected.issuer {
            return Err(Reason::TokenIssuer);
        }
        if self.exp.saturating_add(LEEWAY) <= now {
            return Err(Reason::TokenExpired);
        }
        if self.nbf.saturating_sub(LEEWAY) > now {
            return Err(Reason::TokenEarly);
        }
        let is_for_us = match &self.aud {
            Audience::One(audience) => *audience == expected.audience,
            Audience::Many(audiences) => audiences.contains(&expected.audience),
        };
        if !is_for_us {
            return Err(Reason::TokenAudience);
        }
        let Expected { namespace, service_account, .. } = expected;
        let kubernetes = self.kubernetes.ok_or(Reason::TokenUnbound)?;
        let is_the_agents = kubernetes.namespace == *namespace
            && kubernetes.serviceaccount.name == *service_account
            && self.sub == format!("system:serviceaccount:{namespace}:{service_account}");
        if !is_the_agents {
            return Err(Reason::TokenAccount);
        }
        match (kubernetes.pod, kubernetes.node) {
            (Some(pod), Some(node)) if !pod.uid.is_empty() => {
                let node = NodeName::parse(&node.name).map_err(|_| Reason::TokenMalformed)?;
                Ok(Bearer { node, pod: pod.name, pod_uid: pod.uid })
            }
            _ => Err(Reason::TokenUnbound),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Self {
            let (random, how) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
            let document = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
            Self(EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &random).unwrap())
        }

        fn keys(&self) -> Keys {
            let encoded = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&self.0.public_key().as_ref()[range]);
            let (x, y) = (encoded(1..33), encoded(33..65));
            let set = json!({ "keys": [{ "kty": "EC", "kid": "k", "crv": "P-256", "x": x, "y": y }] });
            Keys::parse(&set.to_string()).unwrap()
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
            let signed = format!("{}.{}", encoded(header), encoded(claims));
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
        }
    }

    fn header() -> Value {
        json!({ "alg": "ES256", "kid": "k" })
    }

    fn good() -> Value {
        json!({
            "iss": "https://kubernetes.default.svc",
            "sub": "system:serviceaccount:warm:agent",
            "aud": ["warm-images"],
            "exp": NOW + 3600, "nbf": NOW, "iat": NOW,
            "kubernetes.io": {
                "namespace": "warm",
                "serviceaccount": { "name": "agent", "uid": "s" },
                "pod": { "name": "agent-x", "uid": "p" },
                "node": { "name": "node-a", "uid": "n" },
            },
        })
    }

    fn expected() -> Expected {
        Expected {
            issuer: "https://kubernetes.default.svc".into(),
            audience: "warm-images".into(),
            namespace: "warm".into(),
            service_account: "agent".into(),
        }
    }

    #[test]
    fn a_good_token_says_whose_agent_its_bearer_is() {
        let signer = Signer::new();
        let text = signer.sign(&header(), &good());
        let bearer = Token::parse(&text).unwrap().judge(&signer.keys(), &expected(), NOW).unwrap();
        let node = NodeName::parse("node-a").unwrap();
        assert_eq!(bearer, Bearer { node, pod: "agent-x".into(), pod_uid: "p".into() });
    }

    #[test]
    fn each_rule_that_a_token_breaks_has_its_reason() {
        let signer = Signer::new();
        for (pointer, value, reason) in [
            ("/iss", json!("https://elsewhere"), Reason::TokenIssuer),
            ("/exp", json!(NOW - 60), Reason::TokenExpired),
            ("/nbf", json!(NOW + 61), Reason::TokenEarly),
            ("/aud", json!(["kubernetes"]), Reason::TokenAudience),
            ("/aud", json!("warm-images-2"), Reason::TokenAudience),
            ("/sub", json!("system:serviceaccount:warm:other"), Reason::TokenAccount),
            ("/kubernetes.io/namespace", json!("default"), Reason::TokenAccount),
            ("/kubernetes.io/serviceaccount/name", json!("other"), Reason::TokenAccount),
            ("/kubernetes.io", json!(null), Reason::TokenUnbound),
            ("/kubernetes.io/pod", json!(null), Reason::TokenUnbound),
            ("/kubernetes.io/pod/uid", json!(""), Reason::TokenUnbound),
            ("/kubernetes.io/node", json!(null), Reason::TokenUnbound),
            ("/kubernetes.io/node/name", json!("a.>"), Reason::TokenMalformed),
            ("/kubernetes.io/node/name", json!("*"), Reason::TokenMalformed),
            ("/exp", json!("never"), Reason::TokenMalformed),
        ] {
            let mut claims = good();
            *claims.pointer_mut(pointer).unwrap() = value.clone();
            let text = signer.sign(&header(), &claims);
            let judged = Token::parse(&text).unwrap().judge(&signer.keys(), &expected(), NOW);
            assert_eq!(judged, Err(reason), "{pointer} {value}");
        }
        let mut claims = good();
        claims["aud"] = json!("warm-images");
        // Clocks may differ by less than a minute.
        claims["exp"] = json!(NOW - 59);
        claims["nbf"] = json!(NOW + 60);
        let text = signer.sign(&header(), &claims);
        assert!(Token::parse(&text).unwrap().judge(&signer.keys(), &expected(), NOW).is_ok());
    }

    #[test]
    fn a_signature_of_another_key_and_a_changed_text_are_refused() {
        let (signer, other) = (Signer::new(), Signer::new());
        let judged = |text: &str| Token::parse(text)?.judge(&signer.keys(), &expected(), NOW).map(drop);
        assert_eq!(judged(&other.sign(&header(), &good())), Err(Reason::TokenSignature));
        let foreign = json!({ "alg": "ES256", "kid": "other" });
        assert_eq!(judged(&signer.sign(&foreign, &good())), Err(Reason::TokenKey));
        for alg in ["none", "HS256", "RS256"] {
            let header = json!({ "alg": alg, "kid": "k" });
            assert_eq!(judged(&signer.sign(&header, &good())), Err(Reason::TokenSignature), "{alg}");
        }
        let mut claims = good();
        claims["kubernetes.io"]["node"]["name"] = json!("node-b");
        let (text, changed) = (signer.sign(&header(), &good()), signer.sign(&header(), &claims));
        let (parts, foreign): (Vec<_>, Vec<_>) = (text.split('.').collect(), changed.split('.').collect());
        let mixed = format!("{}.{}.{}", parts[0], foreign[1], parts[2]);
        assert_eq!(judged(&mixed), Err(Reason::TokenSignature));
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        assert_eq!(Token::parse("").err(), Some(Reason::TokenMissing));
        let long = "a".repeat(LONGEST + 1);
        for text in ["a", ".", "..", "a.b.c", "e30.e30.e30", "\u{0}.\u{0}.\u{0}", long.as_str()] {
            assert_eq!(Token::parse(text).err(), Some(Reason::TokenMalformed), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_or_is_let_in(text in "(?s).{0,300}") {
            let keys = Signer::new().keys();
            if let Ok(token) = Token::parse(&text) {
                assert!(token.judge(&keys, &expected(), NOW).is_err());
            }
        }
    }
}
