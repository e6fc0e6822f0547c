//! What the server is answered: the JWT of a user of NATS (nats-io/jwt, version 2), or a refusal.
//!
//! Owns the form of both and how long a user is let in. What a user may do is `shared::permission`'s. Never decides whom.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use shared::name::{ClusterId, NodeName};
use shared::permission::{Agents, Permissions, agent};
use shared::reason::Reason;

use super::request::Request;

/// Who signs, and for which account of which cluster.
pub struct Signer {
    issuer: KeyPair,
    account: String,
    cluster: ClusterId,
    ttl: Duration,
}

/// A key that cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of identity.issuerSeedFile cannot sign")]
pub struct SignError;

impl Signer {
    /// Signs with `issuer` for users of `account`, who are let in for about `ttl`.
    pub fn new(issuer: KeyPair, account: &str, cluster: &ClusterId, ttl: Duration) -> Self {
        Self { issuer, account: account.to_owned(), cluster: cluster.clone(), ttl }
    }

    /// Lets the agent of `node` in. `now` in seconds since 1970, `draw` between 0 and 1: when the user expires is drawn, so
    /// that a fleet that came at once does not come back at once.
    pub fn grant(&self, request: &Request, node: &NodeName, now: i64, draw: f64) -> Result<String, SignError> {
        let issuer = self.issuer.public_key();
        let claims = json!({
            "jti": id(), "iat": now, "exp": expiry(now, self.ttl, draw),
            "iss": issuer, "sub": request.user, "aud": self.account, "name": format!("agent-{}", node.token()),
            "nats": user(&agent(&self.cluster, Agents::Of(node))),
        });
        let user = signed(&self.issuer, &claims)?;
        self.answer(request, now, &json!({ "jwt": user }))
    }

    /// Refuses. The server logs the word, the client does not learn it.
    pub fn refuse(&self, request: &Request, reason: Reason, now: i64) -> Result<String, SignError> {
        self.answer(request, now, &json!({ "error": reason.as_str() }))
    }

    fn answer(&self, request: &Request, now: i64, content: &Value) -> Result<String, SignError> {
        let mut nats = json!({ "type": "authorization_response", "version": 2 });
        if let (Some(nats), Some(content)) = (nats.as_object_mut(), content.as_object()) {
            nats.extend(content.clone());
        }
        let claims = json!({
            "jti": id(), "iat": now,
            "iss": self.issuer.public_key(), "sub": request.user, "aud": request.server,
            "nats": nats,
        });
        signed(&self.issuer, &claims)
    }
}

/// Between three and five quarters of `ttl` from now.
fn expiry(now: i64, ttl: Duration, draw: f64) -> i64 {
    let seconds = ttl.mul_f64(0.75 + 0.5 * draw.clamp(0.0, 1.0)).as_secs().max(1);
    now.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn user(permissions: &Permissions) -> Value {
    let rule = |rule: &shared::permission::Rule| json!({ "allow": rule.allow, "deny": rule.deny });
    let mut user = json!({
        "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
        "pub": rule(&permissions.publish), "sub": rule(&permissions.subscribe),
        "allowed_connection_types": ["STANDARD"],
    });
    if let (Some(user), Some(responses)) = (user.as_object_mut(), permissions.responses) {
        // Go's durations: nanoseconds.
        let ttl = u64::try_from(responses.ttl.as_nanos()).unwrap_or(u64::MAX);
        user.insert("resp".to_owned(), json!({ "max": responses.max, "ttl": ttl }));
    }
    user
}

fn id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A JWT as NATS wants it: signed with an nkey.
pub fn signed(key: &KeyPair, claims: &Value) -> Result<String, SignError> {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let text = format!("{}.{}", encoded(&header), encoded(claims));
    let signature = key.sign(text.as_bytes()).map_err(|_| SignError)?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use daemon::config::Secret;

    use super::*;

    fn claims(key: &KeyPair, text: &str) -> Value {
        let (signed, signature) = text.rsplit_once('.').unwrap();
        key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap()).unwrap()
    }

    #[test]
    fn a_user_is_of_its_node_alone_for_about_twelve_hours() {
        let key = KeyPair::new_account();
        let public = KeyPair::from_public_key(&key.public_key()).unwrap();
        let cluster = ClusterId::default();
        let signer = Signer::new(
            KeyPair::from_seed(&key.seed().unwrap()).unwrap(),
            "AGENTS",
            &cluster,
            Duration::from_hours(12),
        );
        let request = Request {
            server: "NABC".into(),
            user: "UABC".into(),
            until: 0,
            token: Secret::from("S3CR3T".to_owned()),
            client: String::new(),
            sealed_to: None,
        };
        let node = NodeName::parse("a.b").unwrap();
        let answer = claims(&public, &signer.grant(&request, &node, 1_000, 0.5).unwrap());
        assert_eq!((&answer["sub"], &answer["aud"]), (&json!("UABC"), &json!("NABC")));
        let user = claims(&public, answer["nats"]["jwt"].as_str().unwrap());
        assert_eq!(
            (&user["sub"], &user["aud"], &user["name"]),
            (&json!("UABC"), &json!("AGENTS"), &json!("agent-a_b"))
        );
        assert_eq!(user["exp"], 1_000 + 12 * 3_600);
        assert_eq!(user["nats"]["pub"]["allow"], json!(agent(&cluster, Agents::Of(&node)).publish.allow));
        assert_eq!(user["nats"]["resp"], json!({ "max": 1, "ttl": 30_000_000_000_u64 }));
        let refusal = claims(&public, &signer.refuse(&request, Reason::TokenExpired, 1_000).unwrap());
        assert_eq!(refusal["nats"]["error"], "token-expired");
        assert!(refusal["nats"]["jwt"].is_null());
    }

    #[test]
    fn sessions_end_between_nine_and_fifteen_hours() {
        let at = |draw| expiry(0, Duration::from_hours(12), draw) / 3_600;
        assert_eq!((at(0.0), at(1.0), at(-7.0), at(7.0)), (9, 15, 9, 15));
        assert_eq!(expiry(0, Duration::from_secs(1), 0.0), 1);
    }
}
