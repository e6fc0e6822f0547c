//! The bus logs in with a credentials file at a real NATS server in operator mode.
//!
//! Shows: the user JWT and the signature of the server's nonce that the bus makes of the file are accepted, and publish,
//! subscribe and a bucket work as that user; a file of an account the server does not know, of a seed that is not the
//! user's, or of a user who has expired is refused in words that name the file and no secret; a good file in its place is
//! taken at the next attempt, without a restart, and so it is after a user expired under a standing connection.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daemon::bus::{BucketSpec, Bus, BusStatus, NatsConfig, Status, StorageKind};
use daemon::config::SecretFile;
use daemon::supervise::Tasks;
use integration::eventually::eventually;
use integration::http::Http;
use integration::parts::{Parts, Tool};
use integration::port::Port;
use integration::process::{Invocation, Process};
use integration::run::{RunDir, scenario};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// For a whole test, on a machine that builds at the same time.
const TEST: Duration = Duration::from_mins(2);
/// For one state to be seen.
const SOON: Duration = Duration::from_secs(20);
/// Seconds since 1970 when everything was signed: 2023.
const SIGNED: u64 = 1_700_000_000;
/// A day later, long ago.
const PAST: u64 = SIGNED + 86_400;
/// The year 2100.
const FUTURE: u64 = 4_102_444_800;
/// Seconds a short-lived user has: enough to connect on a busy machine.
const SHORT: u64 = 6;

/// A server that trusts one operator, and an account of that operator.
struct World {
    url: String,
    monitor: String,
    account: KeyPair,
    /// The port stays ours while the server runs.
    _ports: [Port; 2],
    _server: Process,
}

impl World {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let operator = KeyPair::new_operator();
        let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
        let (port, monitor) = (Port::free()?, Port::free()?);
        let config = json!({
            "listen": port.address().to_string(),
            "http": monitor.address().to_string(),
            "jetstream": { "store_dir": run.folder("nats")? },
            "operator": signed("test operator", &operator, &operator, None, &json!({ "type": "operator", "version": 2 }))?,
            "system_account": system.public_key(),
            "resolver": "MEMORY",
            "resolver_preload": {
                account.public_key(): account_jwt("test", &account, &operator, -1)?,
                // The system account may not have JetStream.
                system.public_key(): account_jwt("SYS", &system, &operator, 0)?,
            },
        });
        let file = run.write("nats.conf", serde_json::to_vec_pretty(&config)?)?;
        let parts = Parts::ensure(&[Tool::NatsServer])?;
        let invocation = Invocation::new("nats-server", parts.path(Tool::NatsServer)?).arg("--config").arg(file);
        let mut server = Process::start(run, invocation)?;
        let address = format!("http://{}", monitor.address());
        server.until_answers(&format!("{address}/healthz"), SOON).await?;
        let url = format!("nats://{}", port.address());
        Ok(Self { url, monitor: address, account, _ports: [port, monitor], _server: server })
    }

    /// A user this server lets in.
    fn user(&self) -> Result<Credentials> {
        Credentials::new(&self.account, Some(FUTURE))
    }

    async fn connect(&self, file: Option<&Path>, tasks: &Tasks) -> Result<(Bus, Status)> {
        let config = NatsConfig {
            urls: vec![self.url.clone()],
            creds_file: file.map(SecretFile::new),
            reconnect_max: Duration::from_millis(200),
            request_timeout: Duration::from_secs(3),
            ..NatsConfig::default()
        };
        Ok(Bus::connect(&config, "test", "_WI.t", tasks).await?)
    }

    /// What the status must be when the server refuses `file`.
    fn refusal(&self, file: &Path) -> String {
        format!("{}: the server refuses the credentials in {}; check nats.credsFile", self.url, file.display())
    }

    /// Connections as the server sees them: account and user.
    async fn connections(&self) -> Result<Vec<(String, String)>> {
        let body = Http::new().get(&format!("{}/connz?auth=true", self.monitor)).await?.success()?;
        let page: Value = serde_json::from_slice(&body)?;
        let text = |of: &Value, field| of.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let connections = page.get("connections").and_then(Value::as_array).context("no connections in connz")?;
        Ok(connections.iter().map(|one| (text(one, "account"), text(one, "authorized_user"))).collect())
    }
}

/// What is in a credentials file.
struct Credentials {
    public: String,
    jwt: String,
    seed: String,
}

impl Credentials {
    /// A new user, signed by `account`.
    fn new(account: &KeyPair, expires: Option<u64>) -> Result<Self> {
        let user = KeyPair::new_user();
        let nats = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} });
        let jwt = signed("test user", &user, account, expires, &nats)?;
        Ok(Self { public: user.public_key(), jwt, seed: user.seed()? })
    }

    /// Replaces `file` in one step, as a kubelet replaces a mounted secret.
    fn write(&self, file: &Path) -> Result<()> {
        let Self { jwt, seed, .. } = self;
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEY Seed printed below can be used to sign and prove identity.\n\
             NKEYs are sensitive and should be treated as secrets.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n\
             *************************************************************\n"
        );
        let new = file.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, file).context("replacing the credentials file")
    }

    /// Neither the seed nor a part of the JWT that is only this user's may be said.
    fn is_kept_secret(&self, said: &str) -> Result<()> {
        for secret in self.jwt.split('.').skip(1).chain([self.seed.as_str()]) {
            ensure!(!said.contains(secret), "a secret is shown: {said}");
        }
        Ok(())
    }
}

fn account_jwt(name: &str, account: &KeyPair, operator: &KeyPair, storage: i64) -> Result<String> {
    let nats = json!({
        "type": "account",
        "version": 2,
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
        },
        "default_permissions": { "pub": {}, "sub": {} },
    });
    signed(name, account, operator, None, &nats)
}

/// A JWT as `nsc` makes it: about `subject`, by `issuer`.
fn signed(name: &str, subject: &KeyPair, issuer: &KeyPair, expires: Option<u64>, nats: &Value) -> Result<String> {
    let mut claims = json!({
        "jti": subject.public_key(),
        "iat": SIGNED,
        "iss": issuer.public_key(),
        "sub": subject.public_key(),
        "name": name,
        "nats": nats,
    });
    if let (Some(expires), Some(claims)) = (expires, claims.as_object_mut()) {
        claims.insert("exp".into(), expires.into());
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes())?);
    Ok(format!("{text}.{signature}"))
}

#[expect(clippy::disallowed_methods, reason = "the server compares an expiry with the real time")]
fn in_seconds(seconds: u64) -> Result<u64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + seconds)
}

async fn connected(status: &mut Status) -> Result<u64> {
    let waited = tokio::time::timeout(SOON, status.wait_for(BusStatus::is_connected)).await;
    let seen = waited.map(|status| status.map(|status| status.generation()));
    match seen {
        Ok(generation) => generation?.context("connected without a generation"),
        Err(_) => bail!("not connected: {}", *status.borrow()),
    }
}

/// Waits until the status is `text`; the words seen on the way must keep the secrets of `credentials`, too.
async fn until_said(status: &mut Status, text: &str, credentials: &Credentials) -> Result<()> {
    let mut leaked = Ok(());
    let waited = tokio::time::timeout(
        SOON,
        status.wait_for(|status| {
            let said = format!("{status} {status:?}");
            leaked = credentials.is_kept_secret(&said);
            leaked.is_err() || status.to_string() == text
        }),
    )
    .await
    .map(|seen| seen.map(drop));
    leaked?;
    match waited {
        Ok(seen) => Ok(seen?),
        Err(_) => bail!("`{text}` was not said; last: {}", *status.borrow()),
    }
}

/// A message to oneself.
async fn round_trip(bus: &Bus, body: &'static str) -> Result<()> {
    let mut subscription = bus.subscribe("warm.v1.t.>").await?;
    bus.publish("warm.v1.t.beat.all", &[], body.into()).await?;
    let message = tokio::time::timeout(SOON, subscription.recv()).await?.context("the subscription ended")?;
    ensure!(message.subject == "warm.v1.t.beat.all" && message.payload.as_ref() == body.as_bytes(), "{message:?}");
    Ok(())
}

/// The file is refused in words, and after a good one took its place the same bus connects.
async fn refused_until_replaced(run: &RunDir, world: &World, name: &str, bad: &Credentials) -> Result<()> {
    let file = run.path().join(format!("{name}.creds"));
    bad.write(&file)?;
    let (tasks, _) = Tasks::new();
    let (bus, mut status) = world.connect(Some(&file), &tasks).await?;
    until_said(&mut status, &world.refusal(&file), bad).await.with_context(|| name.to_owned())?;
    let Err(error) = bus.publish("warm.v1.t.beat.all", &[], "lost".into()).await else {
        bail!("{name}: published without a connection")
    };
    ensure!(error.to_string().contains(&world.refusal(&file)), "{error}");
    bad.is_kept_secret(&format!("{error} {error:?} {bus:?}"))?;

    world.user()?.write(&file)?;
    let generation = connected(&mut status).await.with_context(|| name.to_owned())?;
    ensure!(generation == 1, "{name}: connection {generation}");
    round_trip(&bus, "after").await
}

#[test]
fn a_credentials_file_logs_in_and_the_server_knows_who_it_is() -> Result<()> {
    scenario("creds_login", TEST, async |run| {
        let world = World::start(&run).await?;
        let (tasks, _) = Tasks::new();
        let (_nobody, mut status) = world.connect(None, &tasks).await?;
        let user = world.user()?;
        let refused = format!(
            "{}: the server refuses a client without credentials; set nats.user and nats.passwordFile, \
             nats.credsFile, nats.nkeySeedFile or nats.tokenFile",
            world.url
        );
        until_said(&mut status, &refused, &user).await?;

        let file = run.path().join("user.creds");
        user.write(&file)?;
        let (bus, mut status) = world.connect(Some(&file), &tasks).await?;
        connected(&mut status).await?;
        round_trip(&bus, "one").await?;
        let spec = BucketSpec {
            name: "warm-t-intents".into(),
            max_message_bytes: 65_536,
            allow_rollup: true,
            max_bytes: -1,
            replicas: 1,
            storage: StorageKind::File,
        };
        bus.ensure_bucket(&spec, true).await?;
        let seq = bus.put("$KV.warm-t-intents.all.def", &[], "x".into(), None).await.await?;
        ensure!(seq == 1, "{seq}");
        let wanted = (world.account.public_key(), user.public.clone());
        let connections = world.connections().await?;
        ensure!(connections.contains(&wanted), "{connections:?}, not {wanted:?}");
        Ok(())
    })
}

#[test]
fn credentials_that_are_not_this_servers_are_refused_until_the_file_is_replaced() -> Result<()> {
    scenario("creds_foreign", TEST, async |run| {
        let world = World::start(&run).await?;
        let unknown = Credentials::new(&KeyPair::new_account(), Some(FUTURE))?;
        refused_until_replaced(&run, &world, "unknown-account", &unknown).await?;
        // The JWT alone is worth nothing: the nonce must be signed by the user it is about.
        let foreign = Credentials { seed: KeyPair::new_user().seed()?, ..world.user()? };
        refused_until_replaced(&run, &world, "foreign-seed", &foreign).await
    })
}

#[test]
fn an_expired_user_is_refused_until_the_file_is_replaced() -> Result<()> {
    scenario("creds_expired", TEST, async |run| {
        let world = World::start(&run).await?;
        refused_until_replaced(&run, &world, "expired", &Credentials::new(&world.account, Some(PAST))?).await
    })
}

#[test]
fn a_user_that_expires_while_connected_is_disconnected_until_the_file_is_replaced() -> Result<()> {
    scenario("creds_expires", TEST, async |run| {
        let world = World::start(&run).await?;
        let file = run.path().join("short.creds");
        let short = Credentials::new(&world.account, Some(in_seconds(SHORT)?))?;
        short.write(&file)?;
        let (tasks, _) = Tasks::new();
        let (bus, mut status) = world.connect(Some(&file), &tasks).await?;
        ensure!(connected(&mut status).await? == 1);
        until_said(&mut status, &world.refusal(&file), &short).await?;
        ensure!(matches!(*status.borrow(), BusStatus::Disconnected { .. }), "{:?}", *status.borrow());

        let next = world.user()?;
        next.write(&file)?;
        // Until the second of its expiry is over the server lets the user in and cuts it off at once: it refuses when "now"
        // is greater than `exp`, in whole seconds (nats-io/jwt, claims.go, `Validate`), while the timer is set for
        // `exp - now`, which is then 0 (nats-server, client.go, `setExpiration`). So the number of connections is not ours.
        ensure!(connected(&mut status).await? >= 2);
        round_trip(&bus, "two").await?;
        eventually("the server knows the new user only", SOON, async || {
            let users: Vec<_> = world.connections().await?.into_iter().map(|(_, user)| user).collect();
            if users == [next.public.clone()] { Ok(()) } else { bail!("{users:?}") }
        })
        .await
    })
}
