//! Logging and configuration: what every plugin may use.

use tracing::Level;

use super::{Import, clip, one_line};
use crate::bindings::dormouse::plugin::{config, logging, types};
use crate::state::CallState;

/// Bytes of one message.
const MESSAGE: usize = 8 << 10;
/// Bytes of all fields of one line together.
const FIELDS: usize = 4 << 10;

impl types::Host for CallState {}

impl logging::Host for CallState {
    fn log(
        &mut self,
        level: logging::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        // Not one of the host calls that are limited: too many lines are dropped, and end nothing.
        self.shared.metrics.host_call(Import::Log);
        self.log_lines = self.log_lines.saturating_add(1);
        if self.log_lines > self.shared.limits.log_lines {
            return Ok(());
        }
        write(&self.shared.name, level, message, &fields);
        Ok(())
    }
}

/// One line of a guest, inside the span of its call.
fn write(plugin: &str, level: logging::Level, message: String, fields: &[(String, String)]) {
    let level = match level {
        logging::Level::Trace => Level::TRACE,
        logging::Level::Debug => Level::DEBUG,
        logging::Level::Info => Level::INFO,
        logging::Level::Warn => Level::WARN,
        logging::Level::Error => Level::ERROR,
    };
    macro_rules! line {
        ($($level:ident),*) => {
            match level {
                $(Level::$level => {
                    if tracing::enabled!(target: "dormouse::guest", Level::$level) {
                        tracing::event!(
                            target: "dormouse::guest",
                            Level::$level,
                            plugin,
                            fields = %joined(fields),
                            "{}", one_line(&clip(message, MESSAGE))
                        );
                    }
                })*
            }
        };
    }
    line!(TRACE, DEBUG, INFO, WARN, ERROR);
}

/// `a=1 b="two words"`. Guests choose names and number of fields, so they cannot be fields of the event itself.
fn joined(fields: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if text.len() > FIELDS {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&clip(name.clone(), 128));
        text.push('=');
        if value.contains([' ', '"', '\n']) {
            text.push_str(&format!("{:?}", clip(value.clone(), FIELDS)));
        } else {
            text.push_str(&clip(value.clone(), FIELDS));
        }
    }
    one_line(&clip(text, FIELDS))
}

impl config::Host for CallState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.count(Import::ConfigGet)?;
        Ok(self.shared.config.get(&key).cloned())
    }

    fn all(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        self.count(Import::ConfigAll)?;
        Ok(self
            .shared
            .config
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let fields = [
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "two words".to_owned()),
        ];
        assert_eq!(joined(&fields), r#"a=1 b="two words""#);
        let many = vec![("k".to_owned(), "v".repeat(1000)); 1000];
        assert!(joined(&many).len() < 2 * FIELDS);
    }
}
