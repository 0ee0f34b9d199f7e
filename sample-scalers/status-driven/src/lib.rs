//! status-driven
