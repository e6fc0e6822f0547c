//! Agents log in by the service-account token of their Pod: real API server, real NATS, two real controllers.
//!
//! Shows: a Pod's own token lets in as the agent of its node, in the account of agents, sealed on the way; no token, junk,
//! a token that has expired, for somebody else, of another service account or namespace, of no Pod, of a Pod that is gone or
//! was made anew, of a node where the Pod is not, or signed with a foreign key lets nobody in, and each has its reason; when
//! the cluster's key is rotated tokens of the new key are good at once, and of the old one as long as it is published; no
//! log shows a token.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client, ConnectOptions};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use integration::eventually::eventually;
use integration::installation::identity::{AGENT_ACCOUNT, AUDIENCE, AgentPods, pod_of};
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::run::{RunDir, scenario};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(20);
const LOGINS: &str = "warm_logins_total";

/// Controllers and NATS, two Node objects without anything on them, and whatever Pods a test makes.
struct World {
    installation: Installation,
    pods: AgentPods,
}

impl World {
    async fn start(run: &std::sync::Arc<RunDir>) -> Result<Self> {
        let spec = InstallationSpec::new(Vec::new()).controllers(2).with_callout();
        let installation = Installation::start(run, spec).await?;
        for node in ["node-a", "node-b"] {
            installation.cluster.node_objects().create(&NodeSpec::new(node)).await?;
        }
        let pods = AgentPods::new(installation.cluster.client());
        Ok(Self { installation, pods })
    }

    /// A new agent's Pod on a node, and its token.
    async fn agent(&self, node: &str) -> Result<(String, String)> {
        let uid = self.pods.create(&pod_of(node), AGENT_ACCOUNT, node).await?;
        let token = self.pods.token(&pod_of(node), &uid, AGENT_ACCOUNT, AUDIENCE).await?;
        Ok((uid, token))
    }

    async fn login(&self, options: ConnectOptions) -> Result<Client> {
        let client = options
            .custom_inbox_prefix("_WI.default.agent.node-a")
            .connect(self.installation.cluster.nats.url())
            .await?;
        // Only an answer shows that the server has let us in.
        client.flush().await?;
        tokio::time::timeout(SOON, client.request("$JS.API.DIRECT.GET.KV_warm-default-intents", r#"{"seq":1}"#.into()))
            .await
            .context("no answer")??;
        Ok(client)
    }

    async fn refused(&self, what: &str, token: &str, reason: &str) -> Result<()> {
        let labels = format!("reason=\"{reason}\"");
        let before = self.installation.over_controllers(LOGINS, &labels).await;
        let options =
            if token.is_empty() { ConnectOptions::new() } else { ConnectOptions::with_token(token.to_owned()) };
        let answer = self.login(options).await;
        ensure!(answer.is_err(), "{what} is let in");
        eventually(format!("{what} is refused for {reason}"), SOON, async || {
            let after = self.installation.over_controllers(LOGINS, &labels).await;
            ensure!(after > before, "{}", self.reasons().await);
            Ok(())
        })
        .await
    }

    /// What was counted, for the message of a failure.
    async fn reasons(&self) -> String {
        let mut said = String::new();
        for member in std::iter::once(&self.installation.controller).chain(&self.installation.others) {
            let answer = integration::http::Http::new().get(&format!("{}/metrics", member.admin())).await;
            let text = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned()).unwrap_or_default();
            said.extend(text.lines().filter(|line| line.starts_with(LOGINS)).map(|line| format!("{line}; ")));
        }
        said
    }

    /// Signs `claims` with the cluster's own key, as its id `kid`.
    fn forge(&self, kid: &str, claims: &Value) -> Result<String> {
        sign(&std::fs::read_to_string(self.installation.cluster.api.token_key())?, kid, claims)
    }

    /// The ids of the published keys, newest last in no particular order.
    async fn kids(&self) -> Result<Vec<String>> {
        let request = hyper::Request::get("/openid/v1/jwks").body(Vec::new())?;
        let text = self.installation.cluster.client().request_text(request).await?;
        let set: Value = serde_json::from_str(&text)?;
        let keys = set.get("keys").and_then(Value::as_array).context("no keys")?;
        Ok(keys.iter().filter_map(|key| key.get("kid")?.as_str().map(str::to_owned)).collect())
    }
}

fn sign(pem: &str, kid: &str, claims: &Value) -> Result<String> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &STANDARD.decode(body)?, &random)
        .map_err(|error| anyhow::anyhow!("the key of tokens: {error}"))?;
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let text = format!("{}.{}", encoded(&json!({ "alg": "ES256", "kid": kid })), encoded(claims));
    let signature = key.sign(&random, text.as_bytes()).map_err(|_| anyhow::anyhow!("signing"))?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
}

fn claims_of(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).context("no payload")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// `claims` with `value` at `pointer`.
fn with(claims: &Value, pointer: &str, value: Value) -> Result<Value> {
    let mut claims = claims.clone();
    *claims.pointer_mut(pointer).with_context(|| format!("no {pointer}"))? = value;
    Ok(claims)
}

#[test]
fn a_pods_own_token_lets_in_and_everything_else_is_refused_with_its_reason() -> Result<()> {
    scenario("identity", LIMIT, async |run| {
        let world = World::start(&run).await?;
        let (_, token) = world.agent("node-a").await?;
        let client = world.login(ConnectOptions::with_token(token.clone())).await?;
        let connections = world.installation.cluster.nats.monitor("connz?auth=1").await?;
        let is_known = connections.pointer("/connections").and_then(Value::as_array).is_some_and(|all| {
            all.iter().any(|one| {
                one.get("authorized_user") == Some(&json!("agent-node-a"))
                    && one.get("account") == Some(&json!("AGENTS"))
            })
        });
        ensure!(is_known, "{connections}");
        drop(client);

        let now = jiff::Timestamp::now().as_second();
        let (good, kids) = (claims_of(&token)?, world.kids().await?);
        let kid = kids.first().context("no key is published")?;
        let forged = |pointer: &str, value: Value| world.forge(kid, &with(&good, pointer, value)?);
        // The forger has the real key: what it changes nothing of is good.
        world.login(ConnectOptions::with_token(world.forge(kid, &good)?)).await?;
        world.refused("nothing", "", "token-missing").await?;
        world.refused("junk", "S3CR3T.S3CR3T.S3CR3T", "token-malformed").await?;
        world.refused("an expired token", &forged("/exp", json!(now - 120))?, "token-expired").await?;
        world.refused("a token of the future", &forged("/nbf", json!(now + 600))?, "token-early").await?;
        world.refused("another issuer's token", &forged("/iss", json!("https://else"))?, "token-issuer").await?;
        world.refused("a wrong node", &forged("/kubernetes.io/node/name", json!("node-b"))?, "pod-elsewhere").await?;
        let foreign = sign(&rcgen::KeyPair::generate()?.serialize_pem(), kid, &good)?;
        world.refused("a foreign signature", &foreign, "token-signature").await?;
        let mut parts: Vec<&str> = token.split('.').collect();
        let other = claims_of(&token).and_then(|claims| with(&claims, "/kubernetes.io/node/name", json!("node-b")))?;
        let payload = URL_SAFE_NO_PAD.encode(other.to_string());
        if let Some(part) = parts.get_mut(1) {
            *part = &payload;
        }
        world.refused("a changed token", &parts.join("."), "token-signature").await?;
        world.refused("an unknown key", &world.forge("unknown", &good)?, "token-key").await?;
        real_tokens_of_others(&world).await?;

        for log in [std::fs::read_to_string(run.log("nats-server"))?, world.logs()] {
            let signature = token.rsplit('.').next().context("no signature")?;
            ensure!(!log.contains(signature) && !log.contains("S3CR3T"), "a log shows a token");
        }
        ensure!(world.logs().contains("token-expired"), "controllers do not say why");
        Ok(())
    })
}

/// Tokens that the API server itself has given out.
async fn real_tokens_of_others(world: &World) -> Result<()> {
    let pods = &world.pods;
    let uid = pods.create("audience", AGENT_ACCOUNT, "node-a").await?;
    let token = pods.token("audience", &uid, AGENT_ACCOUNT, "https://kubernetes.default.svc").await?;
    world.refused("a token for the API server", &token, "token-audience").await?;
    world.refused("a token of no Pod", &pods.unbound_token(AGENT_ACCOUNT, AUDIENCE).await?, "token-unbound").await?;
    pods.create_account("other").await?;
    let uid = pods.create("other", "other", "node-a").await?;
    let token = pods.token("other", &uid, "other", AUDIENCE).await?;
    world.refused("another service account", &token, "token-account").await?;
    let elsewhere = AgentPods::in_namespace(world.installation.cluster.client(), "default");
    elsewhere.create_account(AGENT_ACCOUNT).await?;
    let uid = elsewhere.create("agent", AGENT_ACCOUNT, "node-a").await?;
    let token = elsewhere.token("agent", &uid, AGENT_ACCOUNT, AUDIENCE).await?;
    world.refused("another namespace", &token, "token-account").await?;

    // A Pod is who it is by its UID.
    let uid = pods.create("gone", AGENT_ACCOUNT, "node-a").await?;
    let token = pods.token("gone", &uid, AGENT_ACCOUNT, AUDIENCE).await?;
    world.login(ConnectOptions::with_token(token.clone())).await?;
    pods.delete("gone").await?;
    world.refused("a deleted Pod", &token, "pod-gone").await?;
    pods.create("gone", AGENT_ACCOUNT, "node-a").await?;
    world.refused("a Pod made anew", &token, "pod-gone").await
}

impl World {
    fn logs(&self) -> String {
        let all = std::iter::once(&self.installation.controller).chain(&self.installation.others);
        all.map(|member| member.process.log_text()).collect()
    }
}

#[test]
fn a_new_key_of_the_cluster_is_taken_at_once_and_one_no_longer_published_is_forgotten() -> Result<()> {
    scenario("rotation", LIMIT, async |run| {
        let mut world = World::start(&run).await?;
        let (uid, old) = world.agent("node-a").await?;
        world.login(ConnectOptions::with_token(old.clone())).await?;
        world.installation.cluster.api.rotate_token_key(true).await?;
        let new = world.pods.token(&pod_of("node-a"), &uid, AGENT_ACCOUNT, AUDIENCE).await?;
        let kid = |token: &str| -> Result<Value> {
            let header = URL_SAFE_NO_PAD.decode(token.split('.').next().context("no header")?)?;
            Ok(serde_json::from_slice::<Value>(&header)?.get("kid").cloned().unwrap_or_default())
        };
        ensure!(kid(&old)? != kid(&new)?, "the key was not rotated");
        // A replica that read the keys just now reads them again ten seconds later.
        eventually("a token of the new key lets in", SOON, async || {
            world.login(ConnectOptions::with_token(new.clone())).await.map(drop)
        })
        .await?;
        world.login(ConnectOptions::with_token(old.clone())).await?;

        world.installation.cluster.api.rotate_token_key(false).await?;
        let newest = world.pods.token(&pod_of("node-a"), &uid, AGENT_ACCOUNT, AUDIENCE).await?;
        // Each replica reads the keys when somebody shows it the newest; until then it takes the old ones.
        eventually("tokens of the old keys are refused", LIMIT, async || {
            world.login(ConnectOptions::with_token(newest.clone())).await.context("the newest")?;
            for token in [&old, &new] {
                let answer = world.login(ConnectOptions::with_token(token.clone())).await;
                ensure!(answer.is_err(), "an old token is taken");
            }
            Ok(())
        })
        .await
    })
}
