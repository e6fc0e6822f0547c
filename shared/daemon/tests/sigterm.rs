//! A process that gets SIGTERM.
//!
//! Alone in its process: the signal reaches every supervision there is, and would cut the grace period of other tests.

use std::time::Duration;

use daemon::supervise::Tasks;

#[tokio::test]
async fn sigterm_begins_the_shutdown() {
    let (tasks, shutdown) = Tasks::new();
    let seen = shutdown.clone();
    tasks.spawn("loop", async move { shutdown.cancelled().await });
    let id = std::process::id().to_string();
    let kill = async {
        // The handlers are installed when the supervision is first polled.
        tokio::task::yield_now().await;
        std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap()
    };
    let (ended, killed) = tokio::join!(tasks.run_until_signal(Duration::from_secs(30)), kill);
    assert!(killed.success());
    ended.unwrap();
    assert!(seen.is_cancelled());
}
