//! The server's configuration as data: accounts, users, permissions. Owns how it is written for `nats-server`; decides
//! no permission itself.

use serde_json::{Map, Value, json};

/// What a server is told beside where it listens and stores.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// Accounts; names are free, `SYS` is the harness's own.
    pub accounts: Vec<Account>,
    /// Further top-level settings of `nats-server`, for example `max_payload`.
    pub settings: Map<String, Value>,
}

/// An account: a world of subjects of its own.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Whether it has JetStream.
    pub jetstream: bool,
    /// Its users.
    pub users: Vec<User>,
    /// Entries of `exports`, as `nats-server` wants them.
    pub exports: Vec<Value>,
    /// Entries of `imports`, as `nats-server` wants them.
    pub imports: Vec<Value>,
}

/// A user with a password, or with a key.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// Its name, unique over all accounts.
    pub name: String,
    /// Its password.
    pub password: String,
    /// The public half of its key, in place of name and password.
    pub nkey: Option<String>,
    /// Subjects it may publish to.
    pub publish: Permission,
    /// Subjects it may subscribe to.
    pub subscribe: Permission,
    /// Replies it may send to requests that it got: how many, and for how long after the request (`"30s"`).
    pub allow_responses: Option<(u32, String)>,
}

/// Which subjects; an empty `allow` allows all but those in `deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// Allowed subjects.
    pub allow: Vec<String>,
    /// Denied subjects; they win.
    pub deny: Vec<String>,
}

impl Permission {
    /// Only these.
    pub fn only<S: Into<String>>(subjects: impl IntoIterator<Item = S>) -> Self {
        Self { allow: subjects.into_iter().map(Into::into).collect(), deny: Vec::new() }
    }

    /// All but these.
    pub fn all_but<S: Into<String>>(subjects: impl IntoIterator<Item = S>) -> Self {
        Self { allow: Vec::new(), deny: subjects.into_iter().map(Into::into).collect() }
    }

    /// Takes subjects away: the way to withhold deltas from an agent.
    pub fn deny(&mut self, subject: impl Into<String>) {
        self.deny.push(subject.into());
    }

    fn is_unlimited(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    fn render(&self) -> Value {
        let mut rule = Map::new();
        if !self.allow.is_empty() {
            rule.insert("allow".into(), json!(self.allow));
        }
        if !self.deny.is_empty() {
            rule.insert("deny".into(), json!(self.deny));
        }
        Value::Object(rule)
    }
}

impl User {
    /// A user who may do everything in its account.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into(), ..Self::default() }
    }

    /// A user who logs in by key and may do everything in its account.
    pub fn with_nkey(name: impl Into<String>, nkey: String) -> Self {
        Self { name: name.into(), nkey: Some(nkey), ..Self::default() }
    }

    fn render(&self) -> Value {
        let mut permissions = Map::new();
        if !self.publish.is_unlimited() {
            permissions.insert("publish".into(), self.publish.render());
        }
        if !self.subscribe.is_unlimited() {
            permissions.insert("subscribe".into(), self.subscribe.render());
        }
        if let Some((max, expires)) = &self.allow_responses {
            permissions.insert("allow_responses".into(), json!({ "max": max, "expires": expires }));
        }
        if let Some(nkey) = &self.nkey {
            return json!({ "nkey": nkey, "permissions": permissions });
        }
        json!({ "user": self.name, "password": self.password, "permissions": permissions })
    }
}

impl Account {
    /// An account with JetStream and the given users.
    pub fn with_jetstream(name: impl Into<String>, users: Vec<User>) -> Self {
        Self { name: name.into(), jetstream: true, users, ..Self::default() }
    }

    fn render(&self) -> Value {
        let mut account = Map::new();
        account.insert("users".into(), self.users.iter().map(User::render).collect());
        if self.jetstream {
            account.insert("jetstream".into(), json!("enabled"));
        }
        if !self.exports.is_empty() {
            account.insert("exports".into(), json!(self.exports));
        }
        if !self.imports.is_empty() {
            account.insert("imports".into(), json!(self.imports));
        }
        Value::Object(account)
    }
}

impl NatsConfig {
    /// One account `WARM` with these users.
    pub fn single_account(users: Vec<User>) -> Self {
        Self { accounts: vec![Account::with_jetstream("WARM", users)], settings: Map::new() }
    }

    /// One user `admin` with password `admin`, who may do everything.
    pub fn open() -> Self {
        Self::single_account(vec![User::new("admin", "admin")])
    }

    /// The user of that name in any account.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.accounts.iter().flat_map(|account| &account.users).find(|user| user.name == name)
    }

    /// The user of that name, to change its permissions before [`super::Nats::reload`].
    pub fn user_mut(&mut self, name: &str) -> Option<&mut User> {
        self.accounts.iter_mut().flat_map(|account| &mut account.users).find(|user| user.name == name)
    }

    /// The file's text. JSON is valid there, and quoted subjects like `$JS.API.>` are not taken for variables.
    pub(super) fn render(&self, port: u16, monitor_port: u16, store: &std::path::Path) -> Value {
        let mut accounts: Map<String, Value> =
            self.accounts.iter().map(|account| (account.name.clone(), account.render())).collect();
        // Without a system account of its own the server has one with a random name, and `nats server …` cannot log in.
        accounts.insert("SYS".into(), json!({ "users": [{ "user": "sys", "password": "sys" }] }));
        let mut config = self.settings.clone();
        config.insert("server_name".into(), json!("test"));
        config.insert("listen".into(), json!(format!("127.0.0.1:{port}")));
        config.insert("http".into(), json!(format!("127.0.0.1:{monitor_port}")));
        config.insert("jetstream".into(), json!({ "store_dir": store }));
        config.insert("accounts".into(), Value::Object(accounts));
        config.insert("system_account".into(), json!("SYS"));
        Value::Object(config)
    }
}
