//! A whole fleet logs in at once.
//!
//! Shows: five thousand agents that come at the same instant, each by the token of its Pod, are all let in, by two
//! controllers together, and none is refused; what is tried again is no second storm.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::installation::{Installation, InstallationSpec, login_storm};
use integration::run::{measured, scenario};

const LIMIT: Duration = Duration::from_mins(8);
const AGENTS: usize = 5_000;
const LOGINS: &str = "warm_logins_total";

#[test]
fn five_thousand_agents_that_come_at_once_are_all_let_in() -> Result<()> {
    scenario("login_storm", LIMIT, async |run| {
        let spec = InstallationSpec::new(Vec::new()).controllers(2).with_callout().with_default_timings();
        let installation = Installation::start(&run, spec).await?;
        let fleet = login_storm::fleet(&installation, AGENTS).await?;
        let storm = login_storm::storm(&installation, fleet).await?;
        measured("5,000 logins at once", storm.took);
        ensure!(storm.each.len() == AGENTS, "{} were let in", storm.each.len());
        let refused = installation.over_controllers(LOGINS, "outcome=\"refused\"").await;
        ensure!(refused < 1.0, "{refused} were refused");
        // Beside a retry of whom the kernel's queue had no room for.
        ensure!(storm.attempts < AGENTS as u64 * 2, "{} attempts for {AGENTS} agents", storm.attempts);
        Ok(())
    })
}
