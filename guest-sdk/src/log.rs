//! Structured log lines. The host adds plugin, call and resource.
//!
//! ```
//! # let _host = dormouse_sdk::testing::Host::new();
//! let name = "web";
//! dormouse_sdk::info!("leaving {name} awake", namespace = "shop", replicas = 3);
//! ```

use crate::host;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For the author of the plugin.
    Debug,
    /// For the operator.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something failed.
    Error,
}

/// Writes one line. Lines beyond the rate limit of a call are dropped and counted.
pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
    host::log(level, message, fields);
}

/// Logs the text of a panic before the instance ends. Registered plugins have it already.
pub fn install_panic_hook() {
    use std::sync::Once;
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // "panicked at src/lib.rs:7:9:\nmessage" on one line.
            write(Level::Error, &panic.to_string().replacen(":\n", ": ", 1), &[]);
            before(panic);
        }));
    });
}

/// Writes one line at a level: `log!(level, "text {inline}", key = value, …)`.
#[macro_export]
macro_rules! log {
    ($level:expr, $message:literal $(, $key:ident = $value:expr)* $(,)?) => {
        $crate::log::write(
            $level,
            &::std::format_args!($message).to_string(),
            &[$((
                ::std::string::String::from(::std::stringify!($key)),
                ::std::string::ToString::to_string(&$value),
            )),*],
        )
    };
}

/// Logs for the author of the plugin: `debug!("text {inline}", key = value, …)`.
#[macro_export]
macro_rules! debug {
    ($($arguments:tt)+) => { $crate::log!($crate::log::Level::Debug, $($arguments)+) };
}

/// Logs for the operator: `info!("text {inline}", key = value, …)`.
#[macro_export]
macro_rules! info {
    ($($arguments:tt)+) => { $crate::log!($crate::log::Level::Info, $($arguments)+) };
}

/// Logs that something is not as it should be: `warn!("text {inline}", key = value, …)`.
#[macro_export]
macro_rules! warn {
    ($($arguments:tt)+) => { $crate::log!($crate::log::Level::Warn, $($arguments)+) };
}

/// Logs that something failed: `error!("text {inline}", key = value, …)`.
#[macro_export]
macro_rules! error {
    ($($arguments:tt)+) => { $crate::log!($crate::log::Level::Error, $($arguments)+) };
}
