//! The NATS users and accounts of an installation: owns who is in which account with which password or key, and what the
//! accounts share. What each user may do is `shared::permission`'s.

use serde_json::{Value, json};
use shared::name::{ClusterId, NodeName};
use shared::permission::{self, Agents, Permissions, Rule};

use super::identity::CalloutKeys;
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
    let cluster = id(cluster);
    let mut users = in_warm(&cluster, None);
    users.extend(nodes.iter().map(|node| agent(&cluster, node)));
    NatsConfig::single_account(users)
}

/// Two accounts: `WARM` with JetStream, the controller and people, and `AGENTS` with an agent a node, which reaches of the
/// other what it must and no more. JetStream answers to whatever reply a client names, so permissions alone are not enough.
pub fn accounts(cluster: &str, nodes: &[&str]) -> NatsConfig {
    let cluster = id(cluster);
    let agents = nodes.iter().map(|node| agent(&cluster, node)).collect();
    NatsConfig { accounts: two(&cluster, in_warm(&cluster, None), agents), ..NatsConfig::open() }
}

/// The same without any user for agents: the server asks the controllers who they are.
pub fn callout(cluster: &str, keys: &CalloutKeys) -> NatsConfig {
    let cluster = id(cluster);
    let answers = granted(User::with_nkey("callout", keys.callout.public_key()), permission::callout(&cluster));
    let mut config =
        NatsConfig { accounts: two(&cluster, in_warm(&cluster, Some(keys)), Vec::new()), ..NatsConfig::open() };
    config.accounts.push(Account { name: "AUTH".to_owned(), users: vec![answers], ..Account::default() });
    let authorization = json!({ "timeout": 30, "auth_callout": {
        "issuer": keys.issuer.public_key(),
        "xkey": keys.xkey.public_key(),
        "account": "AUTH",
        "auth_users": [keys.callout.public_key()],
        "allowed_accounts": ["AGENTS"],
    } });
    config.settings.insert("authorization".to_owned(), authorization);
    config
}

fn id(cluster: &str) -> ClusterId {
    // A test that names no cluster id is as wrong as one that names none that exists.
    ClusterId::parse(cluster).unwrap_or_default()
}

fn two(cluster: &ClusterId, warm: Vec<User>, agents: Vec<User>) -> Vec<Account> {
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
        ..Account::with_jetstream("WARM", warm)
    };
    let agents = Account {
        name: "AGENTS".to_owned(),
        users: agents,
        exports: [all("stream", &said), all("service", &[asked])].concat(),
        imports: [from("service", "WARM", &[intents]), from("service", "WARM", &served), from("stream", "WARM", &told)]
            .concat(),
        ..Account::default()
    };
    vec![warm, agents]
}

/// Controllers and people.
fn in_warm(cluster: &ClusterId, keys: Option<&CalloutKeys>) -> Vec<User> {
    let controller = match keys {
        Some(keys) => User::with_nkey("controller", keys.controller.public_key()),
        None => User::new("controller", "controller"),
    };
    vec![
        granted(controller, permission::controller(cluster)),
        granted(User::new(reader(), "reader"), permission::reader(cluster)),
        User::new("admin", "admin"),
    ]
}

fn agent(cluster: &ClusterId, node: &str) -> User {
    let node = NodeName::parse(node).ok();
    let name = agent_user(node.as_ref().map_or("*", NodeName::as_str));
    let agents = node.as_ref().map_or(Agents::All, Agents::Of);
    granted(User::new(name.clone(), name), permission::agent(cluster, agents))
}

fn granted(user: User, permissions: Permissions) -> User {
    let rule = |rule: Rule| Permission { allow: rule.allow, deny: rule.deny };
    let responses = permissions.responses.map(|of| (of.max, format!("{}s", of.ttl.as_secs())));
    User {
        publish: rule(permissions.publish),
        subscribe: rule(permissions.subscribe),
        allow_responses: responses,
        ..user
    }
}
