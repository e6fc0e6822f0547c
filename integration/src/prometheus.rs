//! A real Prometheus that scrapes processes of a test: owns its configuration and asking it. Judges no answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::http::Http;
use crate::port::Port;
use crate::process::{Invocation, Process};
use crate::run::RunDir;
use crate::system_program;

const READY: Duration = Duration::from_secs(30);

/// A running Prometheus.
pub struct Prometheus {
    process: Process,
    port: Port,
    http: Http,
}

/// One series of an answer: its labels, and its value now.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The labels.
    pub labels: Value,
    /// The value; not a number where there is nothing to divide.
    pub value: f64,
}

impl Prometheus {
    /// Starts one that scrapes `targets` (`host:port`, at `/metrics`) twice a second, as the jobs they are given with, and
    /// evaluates the rules of the file `rules`, named from the top of the repository. Each has been scraped when this returns.
    pub async fn start(run: &Arc<RunDir>, targets: &[(&str, String)], rules: &str) -> Result<Self> {
        let rules = std::fs::canonicalize(crate::monitoring::root().join(rules)).context(rules.to_owned())?;
        let scrape =
            |(job, target): &(&str, String)| json!({ "job_name": job, "static_configs": [{ "targets": [target] }] });
        let mut jobs: Vec<Value> = Vec::new();
        for target in targets {
            let job = scrape(target);
            match jobs.iter_mut().find(|there| there.get("job_name") == job.get("job_name")) {
                Some(there) => append(there, &job),
                None => jobs.push(job),
            }
        }
        let config = json!({
            "global": { "scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": jobs,
        });
        // Every JSON is YAML.
        let config = run.write("prometheus.yaml", config.to_string())?;
        let port = Port::free()?;
        let invocation = Invocation::new("prometheus", program("prometheus")?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", run.folder("prometheus")?.display()))
            .arg(format!("--web.listen-address={}", port.address()));
        let mut prometheus = Self { process: Process::start(run, invocation)?, port, http: Http::new() };
        let ready = prometheus.url("/-/ready");
        prometheus.process.until_answers(&ready, READY).await?;
        // It looks for its targets some seconds after it is ready.
        eventually("every target was scraped", READY, async || {
            let up = prometheus.query("up").await?;
            let scraped = up.iter().filter(|sample| sample.value > 0.0).count();
            ensure!(scraped == targets.len(), "{up:?}");
            Ok(())
        })
        .await?;
        Ok(prometheus)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }

    /// What an expression gives now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let answer =
            self.api(&format!("query?query={}", encoded(expression))).await.with_context(|| expression.to_owned())?;
        let result = answer.pointer("/data/result").and_then(Value::as_array).cloned().unwrap_or_default();
        result.iter().map(sample).collect()
    }

    /// Every rule: its name, and what is wrong with its last evaluation; nothing is wrong before the first.
    pub async fn rules(&self) -> Result<Vec<(String, String)>> {
        let answer = self.api("rules").await?;
        let groups = answer.pointer("/data/groups").and_then(Value::as_array).cloned().unwrap_or_default();
        let rules = groups.iter().filter_map(|group| group.get("rules")?.as_array()).flatten();
        let text = |rule: &Value, field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(rules.map(|rule| (text(rule, "name"), text(rule, "lastError"))).collect())
    }

    async fn api(&self, request: &str) -> Result<Value> {
        let answer = self.http.get(&self.url(&format!("/api/v1/{request}"))).await?;
        let body: Value = serde_json::from_slice(&answer.body).context("an answer of Prometheus")?;
        ensure!(body.get("status").and_then(Value::as_str) == Some("success"), "{body}");
        Ok(body)
    }
}

/// `prometheus` or `promtool`, of the system.
pub fn program(name: &str) -> Result<PathBuf> {
    system_program::find(name)
}

fn append(job: &mut Value, other: &Value) {
    let more = other.pointer("/static_configs/0/targets/0").cloned();
    let targets = job.pointer_mut("/static_configs/0/targets").and_then(Value::as_array_mut);
    if let (Some(targets), Some(more)) = (targets, more) {
        targets.push(more);
    }
}

fn sample(series: &Value) -> Result<Sample> {
    let text = series.pointer("/value/1").and_then(Value::as_str).context("a series without a value")?;
    Ok(Sample { labels: series.get("metric").cloned().unwrap_or_default(), value: text.parse()? })
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
