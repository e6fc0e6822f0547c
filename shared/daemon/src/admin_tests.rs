use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::machine::{Changed, Kind, Machine, Moment, Now};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::clock::Clock;
use crate::driver::{self, Dispatch, DriverSettings, Inbox};
use crate::inspect::{View, inspect};
use crate::{metrics, telemetry};

struct Still;

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Never {}

impl Kind for Never {
    fn kind(&self) -> &'static str {
        match *self {}
    }
}

impl Machine for Still {
    type Fact = Never;
    type Effect = Never;

    fn apply(&mut self, fact: Never, _: Now) -> Changed {
        match fact {}
    }

    fn step(&mut self, _: Now) -> Vec<Never> {
        Vec::new()
    }

    fn next_due(&self) -> Option<Moment> {
        None
    }
}

struct Nowhere;

impl Dispatch<Never> for Nowhere {
    fn dispatch(&mut self, effect: Never) {
        match effect {}
    }
}

struct Server {
    address: SocketAddr,
    ready: watch::Sender<Readiness>,
    tasks: Tasks,
    // Its liveness is what is served.
    _inbox: Inbox<Never>,
}

static LOG: tokio::sync::OnceCell<LogHandle> = tokio::sync::OnceCell::const_new();

async fn start() -> Server {
    let (tasks, shutdown) = Tasks::new();
    let clock = Clock::new();
    let (inbox, facts) = driver::channel(4);
    let views: BTreeMap<&'static str, View<Still>> =
        BTreeMap::from([(MAIN, (|_, _| json!({ "still": true })) as View<Still>), ("pools", |_, _| json!(["all"]))]);
    let (state, mut inspector) = inspect(views, &inbox);
    let (ready, readiness) = watch::channel(Err("nodes: not listed yet\nnats: connecting".to_owned()));
    let running = driver::run(
        Still,
        facts,
        Nowhere,
        DriverSettings::default(),
        clock,
        move |machine: &Still, now| inspector.answer(machine, now),
        shutdown.clone(),
    );
    tasks.spawn("driver", async move {
        let _still = running.await;
    });
    let log = LOG.get_or_init(|| async { telemetry::init(&telemetry::LogSettings::default()).unwrap() }).await;
    let live = inbox.liveness(&clock);
    let metrics = metrics::install();
    let admin = Admin { live, ready: readiness, state, metrics, log: log.clone(), shutdown };
    let address = serve("127.0.0.1:0", admin, &tasks).await.unwrap();
    Server { address, ready, tasks, _inbox: inbox }
}

async fn http(address: SocketAddr, request: &str, body: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn it_says_whether_it_is_alive_and_ready_and_what_it_waits_for() {
    let server = start().await;
    assert_eq!(http(server.address, "GET /livez", "").await, (200, "ok\n".into()));
    let waiting = (503, "nodes: not listed yet\nnats: connecting\n".into());
    assert_eq!(http(server.address, "GET /readyz", "").await, waiting);
    let _before = server.ready.send_replace(Ok("leads term 3".to_owned()));
    assert_eq!(http(server.address, "GET /readyz", "").await, (200, "leads term 3\n".into()));
}

#[tokio::test]
async fn it_shows_the_machine_as_the_loop_sees_it() {
    let server = start().await;
    let (status, body) = http(server.address, "GET /state", "").await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, json!({ "still": true })));
    assert_eq!(http(server.address, "GET /state/pools", "").await, (200, "[\"all\"]".into()));
    let missing = (404, "there is no view `pool`; there are: pools\n".into());
    assert_eq!(http(server.address, "GET /state/pool", "").await, missing);
}

#[tokio::test]
async fn it_shows_metrics_and_changes_the_log_filter() {
    let server = start().await;
    let (status, body) = http(server.address, "GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(body.contains("warm_step_seconds_bucket"), "{body}");
    let (status, body) = http(server.address, "PUT /log-level", "a=b=c").await;
    assert_eq!(status, 400);
    assert!(body.starts_with("`a=b=c` is not a log filter"), "{body}");
    assert_eq!(http(server.address, "PUT /log-level", "debug\n").await, (200, "debug\n".into()));
    assert_eq!(http(server.address, "GET /log-level", "").await, (200, "debug\n".into()));
}

#[tokio::test]
async fn an_address_that_is_taken_or_none_is_an_error_that_names_the_key() {
    let server = start().await;
    let again = Listening { address: server.address.to_string(), tasks: server.tasks.clone() };
    let error = again.serve().await;
    assert_eq!(
        error,
        format!(
            "admin.listen: cannot listen on {}: Address already in use (os error 98); choose a free port",
            server.address
        )
    );
    let error = Listening { address: "nowhere".into(), tasks: server.tasks.clone() }.serve().await;
    assert!(error.starts_with("admin.listen: `nowhere` is not an address with a port, such as 0.0.0.0:"), "{error}");
}

struct Listening {
    address: String,
    tasks: Tasks,
}

impl Listening {
    async fn serve(self) -> String {
        let (inbox, _facts) = driver::channel::<Never>(1);
        let (state, _inspector) = inspect::<Still, Never>(BTreeMap::new(), &inbox);
        let (_, ready) = watch::channel(Ok("ok".to_owned()));
        let live = inbox.liveness(&Clock::new());
        let log = telemetry::LogHandle::detached();
        let admin = Admin { live, ready, state, metrics: metrics::install(), log, shutdown: self.tasks.shutdown() };
        serve(&self.address, admin, &self.tasks).await.unwrap_err().to_string()
    }
}
