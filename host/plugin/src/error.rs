//! Everything that can go wrong with a plugin, as one closed set.

use std::time::Duration;

use crate::types::ResourceId;

/// An error that a guest returned on purpose. It says nothing against the plugin's health.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The configuration of the plugin is wrong.
    #[error("invalid configuration: {0}")]
    InvalidConfiguration(String),
    /// No such resource, or not one of this plugin's.
    #[error("unknown resource {0}")]
    UnknownResource(ResourceId),
    /// May work next time.
    #[error("{0}")]
    Transient(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Why a plugin could not be loaded or called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The plugins directory or a file in it cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The directory or file.
        path: String,
        /// What the operating system says.
        reason: String,
    },
    /// What is called like a plugin is no file.
    #[error("{path} is {what} and no file; put the component itself there")]
    NotAFile {
        /// Where it is.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A plugin is configured, but there is no file of that name.
    #[error("there is no {file} in the plugins directory, but plugins.{plugin} is configured")]
    NoFile {
        /// The plugin's name.
        plugin: String,
        /// The file that was expected.
        file: String,
    },
    /// Another file of that name was found before.
    #[error("there are two files for plugin {plugin}; {first} is used, and this one is not")]
    NameTaken {
        /// The plugin's name.
        plugin: String,
        /// The file that is used.
        first: String,
    },
    /// The file name is no plugin name.
    #[error("`{name}` is no plugin name: {reason}")]
    InvalidName {
        /// The file stem.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is larger than any plugin should be.
    #[error("the file has more than {limit} bytes, the most that a plugin may have")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is something else than a component.
    #[error("not a WebAssembly component: {reason}")]
    NotAComponent {
        /// What it is.
        reason: String,
    },
    /// A component that cannot be compiled: truncated, invalid, or using a WebAssembly feature that is off.
    #[error("cannot compile: {reason}")]
    Malformed {
        /// What the compiler says.
        reason: String,
    },
    /// Built for another version of the contract, or with other types.
    #[error("the plugin needs {wanted}, this host offers dormouse:plugin@{have}")]
    Incompatible {
        /// What the component wants.
        wanted: String,
        /// The version that this host offers.
        have: &'static str,
    },
    /// The component does not export what makes it a plugin.
    #[error(
        "the component exports none of `{package}/scaler@{version}`, `{package}/evaluator@{version}` and \
         `{package}/trigger@{version}`, so it is no plugin"
    )]
    MissingExport {
        /// The package of the contract.
        package: &'static str,
        /// The version that this host offers.
        version: &'static str,
    },
    /// A function was called of an interface that the component does not export.
    #[error("the plugin does not export `{export}`")]
    NotExported {
        /// The interface.
        export: &'static str,
    },
    /// The component imports something that no host function stands behind.
    #[error("the plugin imports `{import}`, which this host does not offer")]
    UnknownImport {
        /// The import.
        import: String,
    },
    /// The component imports an interface that the operator did not grant.
    #[error("the plugin imports `{import}`, which is not granted: {how}")]
    NotGranted {
        /// The import.
        import: String,
        /// The configuration that would grant it.
        how: String,
    },
    /// The configuration of the plugin, on the host's side, cannot work.
    #[error("invalid configuration: {reason}")]
    InvalidConfiguration {
        /// What is wrong.
        reason: String,
    },
    /// The guest computed for longer than its CPU budget.
    #[error("the call used up its CPU budget of {budget:?} (limits.cpu)")]
    CpuBudget {
        /// The budget.
        budget: Duration,
    },
    /// The call did not end in time, waiting included.
    #[error("the call did not end within {limit:?} (limits.wall)")]
    WallTimeout {
        /// The limit.
        limit: Duration,
    },
    /// The guest asked for more memory than it may have and could not go on without.
    #[error("the call needed more than {limit} bytes of memory (limits.memoryBytes)")]
    Memory {
        /// The limit in bytes.
        limit: usize,
    },
    /// The calls of all plugins together needed more memory than the container has for them.
    #[error(
        "the calls of all plugins together needed more than the {limit} bytes of memory that the container has for them; raise its \
         memory limit (resources.limits.memory of the autoscaler or the DLX), or lower limits.memoryBytes of the plugins"
    )]
    HostMemory {
        /// The limit in bytes.
        limit: usize,
    },
    /// Compiling it needs more memory than there is for it.
    #[error(
        "compiling it needs more than the {limit} bytes of memory that the container has for it; raise its memory limit \
         (resources.limits.memory of the autoscaler and the DLX)"
    )]
    CompilerMemory {
        /// The limit in bytes.
        limit: u64,
    },
    /// The guest panicked, aborted or exited.
    #[error("the plugin panicked: {message}")]
    Panicked {
        /// The end of what it wrote to stderr.
        message: String,
    },
    /// The guest trapped in another way, such as a stack overflow or a division by zero.
    #[error("the plugin trapped: {reason}")]
    Trapped {
        /// The trap.
        reason: String,
    },
    /// The guest handed over something that the contract does not allow.
    #[error("the plugin answered garbage: {what}")]
    Garbage {
        /// What was wrong with it.
        what: String,
    },
    /// The guest handed over more at once than it may.
    #[error("the call handed over more than {limit} bytes at once (limits.returnedBytes)")]
    Returned {
        /// The limit in bytes.
        limit: usize,
    },
    /// The guest called host functions without end.
    #[error("the call made more than {limit} host calls (limits.hostCalls)")]
    HostCalls {
        /// The limit.
        limit: u32,
    },
    /// Too many calls are running; this one waited and gave up.
    #[error("no place for the call within {waited:?}")]
    Overloaded {
        /// How long it waited.
        waited: Duration,
    },
    /// The function failed too often in a row and is not called for a while.
    #[error("not called after repeated failures, again in {retry_after:?}")]
    CircuitOpen {
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// A fault on the host's side.
    #[error("{reason}")]
    Internal {
        /// What happened.
        reason: String,
    },
    /// The guest answered with one of its own errors.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl PluginError {
    /// A stable short name: metric label, condition reason, log field.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            PluginError::Unreadable { .. } => "unreadable",
            PluginError::NotAFile { .. } => "not_a_file",
            PluginError::NoFile { .. } => "no_file",
            PluginError::NameTaken { .. } => "name_taken",
            PluginError::InvalidName { .. } => "invalid_name",
            PluginError::TooLarge { .. } => "too_large",
            PluginError::NotAComponent { .. } => "not_a_component",
            PluginError::Malformed { .. } => "malformed",
            PluginError::Incompatible { .. } => "incompatible",
            PluginError::MissingExport { .. } => "missing_export",
            PluginError::NotExported { .. } => "not_exported",
            PluginError::UnknownImport { .. } => "unknown_import",
            PluginError::NotGranted { .. } => "not_granted",
            PluginError::InvalidConfiguration { .. } => "invalid_configuration",
            PluginError::CpuBudget { .. } => "cpu_budget",
            PluginError::WallTimeout { .. } => "wall_timeout",
            PluginError::Memory { .. } => "memory",
            PluginError::HostMemory { .. } => "host_memory",
            PluginError::CompilerMemory { .. } => "compiler_memory",
            PluginError::Panicked { .. } => "panicked",
            PluginError::Trapped { .. } => "trapped",
            PluginError::Garbage { .. } => "garbage",
            PluginError::HostCalls { .. } => "host_calls",
            PluginError::Returned { .. } => "returned_bytes",
            PluginError::Overloaded { .. } => "overloaded",
            PluginError::CircuitOpen { .. } => "circuit_open",
            PluginError::Internal { .. } => "internal",
            PluginError::Guest(GuestError::InvalidConfiguration(_)) => "guest_invalid_configuration",
            PluginError::Guest(GuestError::UnknownResource(_)) => "guest_unknown_resource",
            PluginError::Guest(GuestError::Transient(_)) => "guest_transient",
            PluginError::Guest(GuestError::Other(_)) => "guest_other",
        }
    }

    /// True when the plugin misbehaved, so that calling it again at once is a waste. Only these open its breaker.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        matches!(
            self,
            PluginError::CpuBudget { .. }
                | PluginError::WallTimeout { .. }
                | PluginError::Memory { .. }
                | PluginError::Panicked { .. }
                | PluginError::Trapped { .. }
                | PluginError::Garbage { .. }
                | PluginError::HostCalls { .. }
                | PluginError::Returned { .. }
        )
    }
}
