//! What the NATS server asks: the authorization request of ADR-26.
//!
//! Owns how it is opened and read. Never judges the token in it, and never shows it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daemon::config::Secret;
use nkeys::{KeyPair, KeyPairType, XKey};
use serde::Deserialize;
use shared::text::shown;

/// The server's curve key, in a header.
pub const SERVER_XKEY: &str = "Nats-Server-Xkey";
const AUDIENCE: &str = "nats-authorization-request";
/// What every JWT begins with, and nothing that is sealed.
const JWT: &[u8] = b"eyJ";
/// Of what a client says of itself, in a log.
const SHOWN: usize = 80;

/// A request.
#[derive(Debug)]
pub struct Request {
    /// The server's id: the answer is for it alone.
    pub server: String,
    /// The user that the server has made up for this client: the answer is about it alone.
    pub user: String,
    /// When the server gives up waiting, in seconds since 1970; 0 for never.
    pub until: i64,
    /// What the client gave.
    pub token: Secret,
    /// Where the client is and what it calls itself, for logs.
    pub client: String,
    /// To whom the answer is to be sealed, if the request was.
    pub sealed_to: Option<XKey>,
}

/// Why a request cannot be answered: not even whom to answer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Sealed to another key, or nothing that was sealed.
    #[error("the request is not sealed to the key of identity.xkeySeedFile; is auth_callout.xkey its public half?")]
    Sealed,
    /// No request that a server has signed.
    #[error("the request is none that a NATS server has signed")]
    Unsigned,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    #[serde(default)]
    exp: i64,
    nats: Nats,
}

#[derive(Deserialize)]
struct Nats {
    server_id: ServerId,
    user_nkey: String,
    #[serde(default)]
    client_info: ClientInfo,
    #[serde(default)]
    connect_opts: ConnectOpts,
}

#[derive(Deserialize)]
struct ServerId {
    id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ClientInfo {
    host: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConnectOpts {
    auth_token: String,
    name: String,
}

impl Request {
    /// Opens a request with our curve key, and reads it. `server_xkey`: the header [`SERVER_XKEY`].
    pub fn open(body: &[u8], server_xkey: Option<&str>, xkey: &XKey) -> Result<Self, RequestError> {
        let (text, sealed_to) = match server_xkey {
            Some(server) if !body.starts_with(JWT) => {
                let server = XKey::from_public_key(server).map_err(|_| RequestError::Sealed)?;
                let text = xkey.open(body, &server).map_err(|_| RequestError::Sealed)?;
                (text, Some(server))
            }
            _ => (body.to_vec(), None),
        };
        let claims = read(&text).ok_or(RequestError::Unsigned)?;
        let Nats { server_id, user_nkey, client_info, connect_opts } = claims.nats;
        let client = format!("{} ({})", shown(&client_info.host, SHOWN), shown(&connect_opts.name, SHOWN));
        let token = Secret::from(connect_opts.auth_token);
        Ok(Self { server: server_id.id, user: user_nkey, until: claims.exp, token, client, sealed_to })
    }
}

/// The claims, if the server whose id they name has signed them.
fn read(text: &[u8]) -> Option<Claims> {
    let text = std::str::from_utf8(text).ok()?;
    let (signed, signature) = text.rsplit_once('.')?;
    let (_, payload) = signed.split_once('.')?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let key = KeyPair::from_public_key(&claims.iss).ok()?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    key.verify(signed.as_bytes(), &signature).ok()?;
    let is_of_a_server = key.key_pair_type() == KeyPairType::Server && claims.iss == claims.nats.server_id.id;
    (is_of_a_server && claims.aud == AUDIENCE).then_some(claims)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::user::signed;

    fn request(server: &KeyPair) -> Value {
        json!({
            "aud": AUDIENCE, "iss": server.public_key(), "sub": "A", "exp": 7, "iat": 1, "jti": "x",
            "nats": {
                "type": "authorization_request", "version": 2, "user_nkey": "UABC",
                "server_id": { "name": "s", "host": "h", "id": server.public_key() },
                "client_info": { "host": "10.0.0.1", "id": 7, "kind": "Client" },
                "connect_opts": { "auth_token": "S3CR3T", "name": "warm-agent a", "protocol": 1 },
            },
        })
    }

    #[test]
    fn a_request_is_read_sealed_or_not_and_shows_no_token() {
        let (server, curve, ours) = (KeyPair::new_server(), XKey::new(), XKey::new());
        let text = signed(&server, &request(&server)).unwrap();
        let plain = Request::open(text.as_bytes(), None, &ours).unwrap();
        let recipient = XKey::from_public_key(&ours.public_key()).unwrap();
        let sealed = curve.seal(text.as_bytes(), &recipient).unwrap();
        let opened = Request::open(&sealed, Some(&curve.public_key()), &ours).unwrap();
        for request in [&plain, &opened] {
            assert_eq!((request.user.as_str(), request.server.clone()), ("UABC", server.public_key()));
            assert_eq!((request.token.expose(), request.until), ("S3CR3T", 7));
            assert!(!format!("{request:?}").contains("S3CR3T"));
            assert_eq!(request.client, "10.0.0.1 (warm-agent a)");
        }
        assert!(plain.sealed_to.is_none() && opened.sealed_to.is_some());
        let other = Request::open(&sealed, Some(&curve.public_key()), &XKey::new());
        assert_eq!(other.err(), Some(RequestError::Sealed));
        assert_eq!(Request::open(&sealed, None, &ours).err(), Some(RequestError::Unsigned));
    }

    #[test]
    fn what_no_server_has_signed_is_no_request() {
        let (server, user, ours) = (KeyPair::new_server(), KeyPair::new_user(), XKey::new());
        let good = request(&server);
        let mut foreign = good.clone();
        foreign["aud"] = json!("another");
        let mut named = good.clone();
        named["nats"]["server_id"]["id"] = json!(KeyPair::new_server().public_key());
        let mut by_user = request(&user);
        by_user["iss"] = json!(user.public_key());
        for (key, claims) in [(&user, good), (&server, foreign), (&server, named), (&user, by_user)] {
            let text = signed(key, &claims).unwrap();
            assert_eq!(Request::open(text.as_bytes(), None, &ours).err(), Some(RequestError::Unsigned));
        }
        for junk in ["", "eyJ", "eyJ.eyJ.eyJ", "{}"] {
            assert_eq!(Request::open(junk.as_bytes(), None, &ours).err(), Some(RequestError::Unsigned));
        }
    }
}
