//! The table of images and nodes on the terminal: owns its look and when everything has settled. Who is asked is the
//! caller's.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::installation::Row;

/// Between two looks at the controller's table.
const REFRESH: Duration = Duration::from_millis(200);
/// `--once` gives up after this long.
const LIMIT: Duration = Duration::from_mins(2);

/// Where what is shown comes from.
pub(super) trait Source {
    /// The controller's table.
    async fn rows(&self) -> Result<Vec<Row>>;

    /// Whether each warm pair of these stands on its Node.
    async fn are_labelled(&self, rows: &[Row]) -> Result<bool>;
}

/// The table on the terminal.
pub(super) struct Table {
    start: Instant,
    /// Seconds after the start at which a pair was first seen warm.
    warm: BTreeMap<(String, String), f64>,
    shown: String,
    lines: usize,
    redraws: bool,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            warm: BTreeMap::new(),
            shown: String::new(),
            lines: 0,
            redraws: std::io::stdout().is_terminal(),
        }
    }

    /// Until every pair is warm and labelled. Without `once` an image that failed ends the wait too: it stays visible.
    pub(super) async fn until_settled(&mut self, source: &impl Source, once: bool) -> Result<()> {
        loop {
            let rows = source.rows().await?;
            self.show(&rows)?;
            let has_settled = rows.iter().all(|r| !once && r.why.is_some() || r.state.as_deref() == Some("warm"));
            if !rows.is_empty() && has_settled && source.are_labelled(&rows).await? {
                return Ok(());
            }
            if self.start.elapsed() > LIMIT {
                if once {
                    bail!("not everything is warm after {LIMIT:?}; the table above says what is missing");
                }
                return Ok(());
            }
            tokio::time::sleep(REFRESH).await;
        }
    }

    /// Shows every change, for ever.
    pub(super) async fn follow(&mut self, source: &impl Source) -> Result<()> {
        // The commands stay on the screen: from here on a changed table is printed below them.
        self.redraws = false;
        loop {
            self.show(&source.rows().await?)?;
            tokio::time::sleep(REFRESH).await;
        }
    }

    fn show(&mut self, rows: &[Row]) -> Result<()> {
        let elapsed = self.start.elapsed().as_secs_f64();
        let width = rows.iter().map(|r| r.image.len()).max().unwrap_or(5).max(5);
        let mut text = format!("{:<width$}  {:<8}  {:<9}  {:>9}  {:>7}\n", "IMAGE", "NODE", "STATE", "BYTES", "TIME");
        for row in rows {
            let pair = (row.image.clone(), row.node.clone());
            let is_warm = row.state.as_deref() == Some("warm");
            let time = if is_warm {
                format!("{:.1} s", self.warm.entry(pair).or_insert(elapsed))
            } else {
                row.why.clone().unwrap_or_default()
            };
            let state = row.state.as_deref().unwrap_or("unknown");
            let bytes = row.bytes.map(size).unwrap_or_default();
            text.extend([format!("{:<width$}  {:<8}  {state:<9}  {bytes:>9}  {time:>7}\n", row.image, row.node)]);
        }
        if text == self.shown {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        if self.redraws && self.lines > 0 {
            // Up to the first line of the table and clear to the end of the screen.
            write!(out, "\x1b[{}A\x1b[J", self.lines)?;
        } else {
            writeln!(out)?;
        }
        self.lines = text.lines().count();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        self.shown = text;
        Ok(())
    }

    /// How many are warm.
    pub(super) fn print_end(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{} pairs of image and node warm; counted from `kubectl apply`.", self.warm.len())?;
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {name}") }
}
