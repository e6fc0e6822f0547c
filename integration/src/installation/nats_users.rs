//! The NATS users of an installation with the permissions of `protocol.md` section 6: owns which subjects each may use.

use serde_json::{Value, json};

use crate::nats::{Account, NatsConfig, Permission, User};

/// The user of a node's agent; its password is the same word.
pub fn agent_user(node: &str) -> String {
    format!("agent-{}", node.replace('.', "_"))
}

/// The user of people.
pub fn reader() -> &'static str {
    "reader"
}

/// One account with the controller, an agent a node, and a reader.
pub fn users(cluster: &str, nodes: &[&str]) -> NatsConfig {
    let mut users = vec![controller(cluster), people(cluster), User::new("admin", "admin")];
    users.extend(nodes.iter().map(|node| agent(cluster, node)));
    NatsConfig::single_account(users)
}

/// Two accounts: `WARM` with JetStream, the controller and people, and `AGENTS` with an agent a node, which reaches of the
/// other what it must and no more. JetStream answers to whatever reply a client names, so permissions alone are not enough.
pub fn accounts(cluster: &str, nodes: &[&str]) -> NatsConfig {
    let c = cluster;
    let kv = |bucket: &str, key: &str| format!("$KV.warm-{c}-{bucket}.{key}");
    let served = [
        format!("$JS.API.DIRECT.GET.KV_warm-{c}-assign.{}", kv("assign", "*")),
        kv("nodes", "*.inv"),
        format!("warm.v1.{c}.permit.*"),
        format!("warm.v1.{c}.cred.*"),
    ];
    let intents = format!("$JS.API.DIRECT.GET.KV_warm-{c}-intents");
    let told = ["delta.*", "beat.*", "assign.*"].map(|word| format!("warm.v1.{c}.{word}"));
    let said = ["node.*.hb", "node.*.ev.*"].map(|word| format!("warm.v1.{c}.{word}"));
    let asked = format!("warm.v1.{c}.node.*.req.*");
    let export = |kind: &str, subject: &String| json!({ kind: subject });
    let import = |kind: &str, from: &str, subject: &String| json!({ kind: { "account": from, "subject": subject } });
    let all = |kind: &str, subjects: &[String]| subjects.iter().map(|s| export(kind, s)).collect::<Vec<Value>>();
    let from = |kind: &str, account: &str, subjects: &[String]| {
        subjects.iter().map(|s| import(kind, account, s)).collect::<Vec<Value>>()
    };
    let warm = Account {
        exports: [
            vec![json!({ "service": intents, "response": "stream" })],
            all("service", &served),
            all("stream", &told),
        ]
        .concat(),
        imports: [from("stream", "AGENTS", &said), from("service", "AGENTS", std::slice::from_ref(&asked))].concat(),
        ..Account::with_jetstream("WARM", vec![controller(c), people(c), User::new("admin", "admin")])
    };
    let agents = Account {
        name: "AGENTS".to_owned(),
        users: nodes.iter().map(|node| agent(c, node)).collect(),
        exports: [all("stream", &said), all("service", &[asked])].concat(),
        imports: [from("service", "WARM", &[intents]), from("service", "WARM", &served), from("stream", "WARM", &told)]
            .concat(),
        ..Account::default()
    };
    NatsConfig { accounts: vec![warm, agents], ..NatsConfig::open() }
}

fn controller(c: &str) -> User {
    User {
        publish: Permission::all_but([format!("$KV.warm-{c}-nodes.>")]),
        subscribe: Permission::only([
            format!("warm.v1.{c}.>"),
            format!("$KV.warm-{c}-intents.>"),
            format!("$KV.warm-{c}-assign.>"),
            format!("$KV.warm-{c}-nodes.>"),
            "$SRV.>".to_owned(),
            format!("_WI.{c}.ctl.>"),
        ]),
        ..User::new("controller", "controller")
    }
}

fn agent(c: &str, node: &str) -> User {
    let n = node.replace('.', "_");
    User {
        publish: Permission::only([
            format!("warm.v1.{c}.node.{n}.hb"),
            format!("warm.v1.{c}.node.{n}.ev.*"),
            format!("warm.v1.{c}.permit.{n}"),
            format!("warm.v1.{c}.cred.{n}"),
            format!("$KV.warm-{c}-nodes.{n}.inv"),
            format!("$JS.API.DIRECT.GET.KV_warm-{c}-intents"),
            format!("$JS.API.DIRECT.GET.KV_warm-{c}-assign.$KV.warm-{c}-assign.{n}"),
        ]),
        subscribe: Permission::only([
            format!("warm.v1.{c}.delta.*"),
            format!("warm.v1.{c}.beat.*"),
            format!("warm.v1.{c}.assign.{n}"),
            format!("warm.v1.{c}.node.{n}.req.*"),
            format!("_WI.{c}.agent.{n}.>"),
        ]),
        allow_responses: Some((1, "30s".to_owned())),
        ..User::new(agent_user(node), agent_user(node))
    }
}

fn people(c: &str) -> User {
    let mut publish: Vec<String> = ["intents", "assign", "nodes"]
        .iter()
        .flat_map(|bucket| {
            let stream = format!("KV_warm-{c}-{bucket}");
            [
                format!("$JS.API.STREAM.INFO.{stream}"),
                format!("$JS.API.DIRECT.GET.{stream}"),
                format!("$JS.API.DIRECT.GET.{stream}.>"),
                format!("$JS.API.STREAM.MSG.GET.{stream}"),
                format!("$JS.API.CONSUMER.*.{stream}"),
                format!("$JS.API.CONSUMER.*.{stream}.>"),
            ]
        })
        .collect();
    publish.extend([
        "$JS.API.INFO".to_owned(),
        "$JS.API.STREAM.NAMES".to_owned(),
        "$JS.API.STREAM.LIST".to_owned(),
        "$JS.ACK.>".to_owned(),
        "$JS.FC.>".to_owned(),
        // `nats micro ls`, `info` and `stats` ask whoever offers a service.
        "$SRV.PING".to_owned(),
        "$SRV.PING.>".to_owned(),
        "$SRV.INFO".to_owned(),
        "$SRV.INFO.>".to_owned(),
        "$SRV.STATS".to_owned(),
        "$SRV.STATS.>".to_owned(),
        format!("warm.v1.{c}.ctl.status"),
        format!("warm.v1.{c}.ctl.explain"),
        format!("warm.v1.{c}.node.*.req.inventory"),
        format!("warm.v1.{c}.node.*.req.explain"),
    ]);
    User {
        publish: Permission::only(publish),
        subscribe: Permission::only([
            format!("warm.v1.{c}.>"),
            format!("$KV.warm-{c}-intents.>"),
            format!("$KV.warm-{c}-assign.>"),
            format!("$KV.warm-{c}-nodes.>"),
            "_INBOX.>".to_owned(),
        ]),
        ..User::new(reader(), "reader")
    }
}
