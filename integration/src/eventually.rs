//! Waiting for observed state: owns the polling and the message of a wait that ran out. It never judges what is waited for.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What one look at the world shows: what was waited for, or words for the state that was seen instead.
pub trait Observation {
    /// What is handed out once it is there.
    type Value;

    /// The value, or what was seen instead of it.
    fn judge(self) -> Result<Self::Value, String>;
}

impl Observation for () {
    type Value = ();
    fn judge(self) -> Result<(), String> {
        Ok(())
    }
}

impl Observation for bool {
    type Value = ();
    fn judge(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("no".into()) }
    }
}

impl<T> Observation for Option<T> {
    type Value = T;
    fn judge(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".into())
    }
}

/// An error is a state like any other: "not yet, and this is what I see". `Err(anyhow!("3 of 5 warm"))` is the way to
/// have a state shown when time runs out.
impl<O: Observation, E: Display> Observation for Result<O, E> {
    type Value = O::Value;
    fn judge(self) -> Result<O::Value, String> {
        self.map_err(|error| format!("{error:#}")).and_then(Observation::judge)
    }
}

/// Looks every 20 ms until `look` shows what is waited for; after `limit` an error that names `what` and the last state.
pub async fn eventually<O: Observation>(
    what: impl Display,
    limit: Duration,
    mut look: impl AsyncFnMut() -> O,
) -> Result<O::Value> {
    let start = Instant::now();
    let mut seen = String::from("nothing: the first look did not return");
    let mut looks = 0_u32;
    while let Some(left) = limit.checked_sub(start.elapsed()) {
        // A look that hangs must not outlast the limit.
        let Ok(observed) = tokio::time::timeout(left, look()).await else {
            break;
        };
        looks += 1;
        match observed.judge() {
            Ok(value) => return Ok(value),
            Err(state) => seen = state,
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("not within {limit:?}: {what}; last seen after {looks} looks: {seen}")
}
