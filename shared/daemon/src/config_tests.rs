use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::*;
use crate::bus::NatsConfig;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Example {
    nats: NatsConfig,
    timing: Timing,
    rules: Vec<Rule>,
    labels: BTreeMap<String, String>,
    node: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Timing {
    #[serde(with = "shared::duration")]
    heartbeat: Duration,
    #[serde(with = "shared::duration")]
    spread_reads: Duration,
    tries: u16,
    jitter: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    namespace: String,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    All,
    None,
}

impl Default for Timing {
    fn default() -> Self {
        let (heartbeat, spread_reads) = (Duration::from_secs(30), Duration::from_secs(1));
        Self { heartbeat, spread_reads, tries: 5, jitter: true }
    }
}

impl Validate for Example {
    fn problems(&self, found: &mut Problems) {
        found.section("nats", &self.nats);
        if self.timing.tries == 0 {
            found.add("timing.tries", "must be 1 or more");
        }
        if self.node.is_none() {
            found.add("node", "is not set; set it, or the variable NODE_NAME");
        }
    }
}

const ENV: &[EnvKey] = &[("NODE_NAME", "node"), ("HEARTBEAT", "timing.heartbeat")];

fn read(text: &str, env: &[(&str, &str)]) -> Result<Example, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    let value = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let prefix = format!("{}/", dir.path().display());
    load_with(&path, ENV, value, Secrets::Later).map_err(|error| error.to_string().replace(&prefix, ""))
}

#[track_caller]
fn problems(text: &str) -> Vec<String> {
    read(text, &[("NODE_NAME", "n1")]).unwrap_err().lines().map(str::to_owned).collect()
}

#[test]
fn the_file_lies_over_the_defaults_and_the_environment_over_both() {
    let text = "nats:\n  urls: [nats://a:4222]\n  tls:\ntiming:\n  heartbeat: 5s\nnode: from-file\nlabels: {team: x}\n";
    let config = read(text, &[("NODE_NAME", "007")]).unwrap();
    assert_eq!(config.nats.urls, ["nats://a:4222"]);
    assert_eq!(config.timing.heartbeat, Duration::from_secs(5));
    assert_eq!(config.timing.tries, 5);
    assert_eq!(config.node.as_deref(), Some("007"), "a variable is text, whatever it looks like");
    assert_eq!(config.labels["team"], "x");
    assert_eq!(read("{}\n", &[("NODE_NAME", "n1")]).unwrap().node.as_deref(), Some("n1"));
}

#[test]
fn every_problem_is_listed_at_once_with_its_line_and_what_to_do() {
    let text = "\
nats:
  urls:
    - nats://a:4222
    - http://b
    - nats://me:secret@c
  usr: warm
  requestTimeout: 5
timing:
  heartbeat: abc
  tries: many
  jitter: maybe
rules:
  - namespace: a
    mode: some
  - mode: all
  - namespace: b
    nmespace: c
  - 7
colour: red
";
    assert_eq!(
        problems(text),
        [
            "config.yaml:4: nats.urls[1]: `http://b` is not a server (invalid scheme for NATS server URL: http); write \
             nats://host:port, or tls://host:port where TLS is a must",
            "config.yaml:5: nats.urls[2]: has credentials in it; give `user` and `passwordFile`, or `credsFile`, instead",
            "config.yaml:6: nats.usr: there is no such key; did you mean `user`?",
            "config.yaml:7: nats.requestTimeout: `5` stands there, text is expected; put it in quotes",
            "config.yaml:9: timing.heartbeat: `abc` is not a duration such as 500ms, 30s, 5m or 1h: expected number at 0",
            "config.yaml:10: timing.tries: \"many\" stands there, a whole number from 0 to 65535 is expected",
            "config.yaml:11: timing.jitter: \"maybe\" stands there, `true` or `false` is expected",
            "config.yaml:14: rules[0].mode: `some` is none of `all`, `none`",
            "config.yaml:15: rules[1]: the key `namespace` is missing; add it",
            "config.yaml:17: rules[2].nmespace: there is no such key; did you mean `namespace`?",
            "config.yaml:18: rules[3]: `7` stands there, a section of keys is expected",
            "config.yaml:19: colour: there is no such key; there are `nats`, `timing`, `rules`, `labels`, `node`",
        ]
    );
}

#[test]
fn what_does_not_stand_in_the_file_is_said_without_a_line() {
    let found = read("nats:\n  user: warm\ntiming: {tries: 0}\n", &[]).unwrap_err();
    assert_eq!(
        found,
        "config.yaml: node: is not set; set it, or the variable NODE_NAME\n\
         config.yaml:2: nats.user: stands there without `passwordFile`; give both or neither\n\
         config.yaml:3: timing.tries: must be 1 or more"
    );
}

#[test]
fn a_wrong_variable_is_named() {
    let found = read("{}", &[("NODE_NAME", "n1"), ("HEARTBEAT", "soon")]).unwrap_err();
    assert_eq!(
        found,
        "environment variable HEARTBEAT: timing.heartbeat: `soon` is not a duration such as 500ms, 30s, 5m or 1h: \
         expected number at 0"
    );
}

#[test]
fn a_file_that_is_not_yaml_or_no_map_is_said_with_its_line() {
    let found = problems("nats:\n  urls: [a\nnode: b\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("config.yaml:") && found[0].contains("this is not YAML: "), "{found:?}");
    assert_eq!(problems("- a\n"), ["config.yaml:1: a map of keys is expected, such as `nats:`"]);
    let found = problems("node: a\nnode: b\n");
    assert!(found[0].starts_with("config.yaml:2: this is not YAML: duplicate"), "{found:?}");
}

#[test]
fn an_empty_or_missing_file_is_named() {
    for text in ["", "# nothing\n", "---\n"] {
        let found = read(text, &[]).unwrap_err();
        assert_eq!(found, "config.yaml: the configuration is empty; write `{}` to take every default", "{text:?}");
    }
    let error = load::<Example>(Path::new("/no/config.yaml"), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/no/config.yaml: the configuration cannot be read: No such file or directory (os error 2); give its path with \
         --config"
    );
}

#[test]
fn a_secret_is_read_when_used_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    let file = SecretFile::new(&path);
    let error = file.read("nats.passwordFile").unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "nats.passwordFile: the secret file {} cannot be read: No such file or directory (os error 2)",
            path.display()
        )
    );
    std::fs::write(&path, "s3cr3t\n").unwrap();
    let secret = file.read("nats.passwordFile").unwrap();
    assert_eq!(secret.expose(), "s3cr3t");
    assert_eq!(format!("{secret:?}"), "Secret(redacted)");
}

#[test]
fn keys_are_printed_as_they_are_parsed() {
    for text in ["nats.urls[1]", "a", "a[0][1].b", ""] {
        assert_eq!(Key::parse(text).to_string(), text);
    }
}

#[test]
fn a_secret_that_cannot_be_read_is_said_when_asked_and_waited_for_when_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, "user: someone\npasswordFile: /does/not/exist\n").unwrap();
    let asked = check::<crate::bus::NatsConfig>(&path, &[]).unwrap_err().to_string();
    assert!(asked.contains(":2: passwordFile: /does/not/exist: the secret cannot be read"), "{asked}");
    assert!(load::<crate::bus::NatsConfig>(&path, &[]).is_ok());
}

#[test]
fn a_password_in_the_wrong_place_is_not_repeated() {
    let found = problems(
        "
nats: nats://warm:S3CR3T@nats:4222
labels: [nats://S3CR3T@nats]
rules: tls://warm:S3 CR3T@nats
node: x
nats://warm:S3CR3T@nats: 1
",
    );
    assert_eq!(
        found,
        [
            "config.yaml:2: nats: \"nats://…@nats:4222\" stands there, a section of keys is expected",
            "config.yaml:3: labels: a list stands there, a section of keys is expected",
            "config.yaml:4: rules: \"tls://…@nats\" stands there, a list is expected",
            "config.yaml:6: nats://…@nats: there is no such key; there are `nats`, `timing`, `rules`, `labels`, `node`",
        ]
    );
}

#[test]
fn a_secret_in_place_of_its_path_is_not_repeated() {
    for secret in ["83724619", "hunter2", "[hunter2]", "true"] {
        let found = problems(&format!("node: a\nnats:\n  user: warm\n  passwordFile: {secret}\n"));
        let said = found.iter().find(|said| said.starts_with("config.yaml:4: nats.passwordFile: is not ")).unwrap();
        assert!(said.contains("put the secret into a file and its path here"), "{said}");
        assert!(!found.concat().contains(secret.trim_matches(['[', ']'])), "{found:?}");
    }
}

#[test]
fn a_value_of_many_lines_is_one_problem_on_one_line() {
    let found =
        problems(&format!("node: a\ntiming: {{heartbeat: \"x\\nconfig.yaml:1: all is well{}\"}}\n", "y".repeat(900)));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("`x\\nconfig.yaml:1: all is well") && found[0].chars().count() < 500, "{found:?}");
}
