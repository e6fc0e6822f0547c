//! The values for the official NATS chart that `docs/operate` keeps, as far as they can be shown without that chart.
//!
//! Shows: what the chart would make of them (a file with an include, words between `<<` and `>>` unquoted) is a configuration
//! that the real NATS server takes, with the accounts as `docs/operate/nats.md` says to make them; every variable that the
//! accounts name is one that the values put into the server's environment.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::process::Command;

use integration::chart::Chart;
use integration::monitoring::read;
use integration::parts::{Parts, Tool};
use regex::Regex;
use serde_json::Value;

const VALUES: &str = "docs/operate/nats-chart-values.yaml";

/// As the command in the docs: without the indentation of a block, from `accounts {` to its end.
fn accounts() -> String {
    let docs = read("docs/operate/nats.md").unwrap();
    let command = "-s templates/nats-config.yaml | sed -n 's/^    //; /^accounts {/,/^}/p' > accounts.conf";
    assert!(docs.contains(command), "the docs have another command");
    let args = ["--set", "nats.embedded.auth=password", "-s", "templates/nats-config.yaml"];
    let text = Chart::new().unwrap().template(&args).unwrap().unwrap();
    let lines = text.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
    let from = lines.skip_while(|line| *line != "accounts {");
    let mut block: Vec<&str> = Vec::new();
    for line in from {
        block.push(line);
        if line == "}" {
            break;
        }
    }
    block.join("\n")
}

/// What the chart makes of `config.merge`: JSON, where `<< word >>` is bare and a key ending in `$include` is an include.
fn rendered(merge: &Value) -> String {
    let mut merge = merge.as_object().unwrap().clone();
    let includes: Vec<String> = merge.keys().filter(|key| key.ends_with("$include")).cloned().collect();
    let mut text: Vec<String> =
        includes.iter().map(|key| format!("include {};", merge.remove(key).unwrap().as_str().unwrap())).collect();
    let bare = Regex::new(r#""<<\s*(.*?)\s*>>""#).unwrap();
    for (key, value) in &merge {
        let value = value.to_string();
        text.push(format!("{key}: {}", bare.replace_all(&value, "$1")));
    }
    text.join("\n")
}

#[test]
fn the_nats_server_takes_what_the_official_chart_would_make_of_the_values() {
    let values: Value = serde_saphyr::from_str(&read(VALUES).unwrap()).unwrap();
    let accounts = accounts();
    let variables = Regex::new(r"password: \$([A-Z_]+)").unwrap();
    let named: BTreeSet<&str> =
        variables.captures_iter(&accounts).map(|found| found.get(1).unwrap().as_str()).collect();
    let given: BTreeSet<&str> = values["container"]["env"].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(!named.is_empty());
    assert_eq!(named, given, "variables of the accounts and of the environment");

    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("warm-images/accounts.conf", accounts.clone()),
        (
            "nats-config/nats.conf",
            // What the chart adds of its own.
            format!("port: 4222\nserver_name: nats-0\n{}", rendered(&values["config"]["merge"])),
        ),
    ] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let server = Parts::ensure(&[Tool::NatsServer]).unwrap().path(Tool::NatsServer).unwrap();
    let check = |without: &str| {
        let env = given.iter().filter(|name| **name != without).map(|name| (*name, "w0"));
        let config = folder.path().join("nats-config/nats.conf");
        Command::new(&server).arg("-t").arg("--config").arg(config).env_clear().envs(env).output().unwrap()
    };
    let output = check("");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in &given {
        assert!(!check(name).status.success(), "{name} is not read");
    }
}

#[test]
fn the_values_have_room_for_the_buckets() {
    let values: Value = serde_saphyr::from_str(&read(VALUES).unwrap()).unwrap();
    let bytes = controller::config::BucketSettings::default().max_bytes * 3;
    assert_eq!(values["config"]["merge"]["jetstream"]["max_file_store"], "<< 2GB >>");
    assert!(2_000_000_000 >= bytes, "{bytes}");
}
