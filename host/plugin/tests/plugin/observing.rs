//! What operators see of a guest's own words.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::Both;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

impl Lines {
    fn guests(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["target"] == "dormouse::guest")
            .collect()
    }
}

#[tokio::test]
async fn log_lines_of_a_guest_carry_the_plugin_and_the_call() {
    let both = Both::new().await;
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(lines.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    both.evil.set_scale(&[], 0, "log-once").await.unwrap();
    drop(guard);

    let lines = lines.guests();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["fields"]["message"], "an annotation is wrong\\nforged line");
    assert_eq!(line["fields"]["plugin"], "evil");
    assert_eq!(line["fields"]["fields"], "resource=shop/web");
    assert_eq!(line["span"]["name"], "plugin");
    assert_eq!(line["span"]["plugin"], "evil");
    assert_eq!(line["span"]["call"], "set-scale");
    assert_eq!(line["span"]["digest"], both.evil.short_digest());
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_counted() {
    let both = Both::new().await;
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(lines.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    both.evil.set_scale(&[], 0, "log").await.unwrap();
    drop(guard);
    assert_eq!(lines.guests().len(), 200);
    assert_eq!(
        both.house
            .metric(r#"dormouse_plugin_log_lines_dropped_total{plugin="evil"}"#),
        4_800.0
    );
}
