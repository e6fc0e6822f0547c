use super::*;

const GRACE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_long_lived_task_that_returns_stops_the_process_with_its_name() {
    let (tasks, shutdown) = Tasks::new();
    let stopped = tasks.shutdown();
    tasks.spawn("watch-nodes", async {});
    tasks.spawn("other", async move { shutdown.cancelled().await });
    let because = tasks.run_until_signal(GRACE).await.unwrap_err();
    assert_eq!(because, StoppedBecause::Returned { task: "watch-nodes" });
    assert!(because.to_string().starts_with("task `watch-nodes` ended, and nothing had asked it to"), "{because}");
    assert!(stopped.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_effect_stops_the_process_with_its_name() {
    let (tasks, _) = Tasks::new();
    tasks.spawn_effect("pull", async {});
    tasks.spawn_effect("put-intent", async { panic!("index {}", 7) });
    let because = tasks.run_until_signal(GRACE).await.unwrap_err();
    assert_eq!(because, StoppedBecause::Panicked { task: "put-intent", message: "index 7".into() });
}

#[tokio::test(start_paused = true)]
async fn a_task_can_say_that_going_on_makes_no_sense() {
    let (tasks, _) = Tasks::new();
    tasks.fail("lease", "the lease is held by another cluster");
    let because = tasks.run_until_signal(GRACE).await.unwrap_err();
    assert_eq!(because.to_string(), "task `lease`: the lease is held by another cluster");
}

#[tokio::test(start_paused = true)]
async fn at_the_shutdown_tasks_have_the_grace_period_and_no_longer() {
    let (tasks, shutdown) = Tasks::new();
    let (done, mut finished) = mpsc::unbounded_channel();
    let (slow, stuck) = (done.clone(), done);
    tasks.spawn_effect("slow", async move {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE / 2).await;
        slow.send("slow").unwrap();
    });
    tasks.spawn_effect("stuck", async move {
        tokio::time::sleep(GRACE * 100).await;
        stuck.send("stuck").unwrap();
    });
    tasks.stop();
    let start = tokio::time::Instant::now();
    tasks.run_until_signal(GRACE).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), GRACE.as_secs());
    assert_eq!(finished.recv().await, Some("slow"));
    assert_eq!(finished.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn tasks_that_end_at_the_shutdown_end_the_wait() {
    let (tasks, shutdown) = Tasks::new();
    tasks.spawn("loop", async move { shutdown.cancelled().await });
    tasks.stop();
    let start = tokio::time::Instant::now();
    tasks.run_until_signal(GRACE).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
}
