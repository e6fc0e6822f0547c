use std::io;

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

fn logging(format: LogFormat, filter: &str) -> (impl tracing::Subscriber + Send + Sync + 'static, LogHandle, Lines) {
    let lines = Lines::default();
    let writer = lines.clone();
    let settings = LogSettings { format, filter: filter.to_owned() };
    let (subscriber, handle) = build(&settings, move || writer.clone(), false).unwrap();
    (subscriber, handle, lines)
}

#[test]
fn the_filter_can_be_changed_while_running() {
    let (subscriber, handle, lines) = logging(LogFormat::Text, "warn");
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("one");
        assert_eq!(lines.take(), "");
        handle.set_filter(" info\n").unwrap();
        tracing::info!("two");
        assert!(lines.take().contains("two"));
        let error = handle.set_filter("a=b=c").unwrap_err();
        assert!(error.starts_with("`a=b=c` is not a log filter ("), "{error}");
        tracing::info!("three");
        assert!(lines.take().contains("three"), "the old filter stays");
    });
    assert_eq!(handle.filter(), "info");
}

#[test]
fn json_is_an_object_a_line_and_text_has_no_escapes_off_a_terminal() {
    let (subscriber, _handle, lines) = logging(LogFormat::Json, "info");
    tracing::subscriber::with_default(subscriber, || tracing::info!(node = "a", "hello"));
    let line: serde_json::Value = serde_json::from_str(&lines.take()).unwrap();
    assert_eq!((line["message"].as_str(), line["node"].as_str()), (Some("hello"), Some("a")));
    let (subscriber, _handle, lines) = logging(LogFormat::Text, "info");
    tracing::subscriber::with_default(subscriber, || tracing::warn!("hello"));
    assert!(!lines.take().contains('\u{1b}'));
}

#[test]
fn a_bad_filter_is_named_at_the_start_and_in_the_check() {
    let settings = LogSettings { filter: "info,[".to_owned(), ..LogSettings::default() };
    let Err(error) = init(&settings) else { panic!("the filter is wrong") };
    assert!(error.to_string().starts_with("log.filter: `info,[` is not a log filter ("), "{error}");
    assert!(error.to_string().ends_with("give a level such as `info`, or `info,daemon::bus=debug`"), "{error}");
    let mut found = crate::config::Problems::default();
    found.section("log", &settings);
    assert_eq!(found.messages(), [error.to_string()]);
}

#[test]
fn the_default_filter_is_one() {
    parse(DEFAULT_FILTER).unwrap();
}
