//! A small Kubernetes in process, on loopback.
//!
//! [`EmbeddedCluster::start`] gives an API server that speaks real HTTP, so that unchanged clients talk to it, the
//! controllers behind the common workloads, pods that really answer, and Services that really forward. It exists for
//! the demo, for plugin authors and for fast tests; what it does is meant to be what a real cluster does.
//!
//! # Where it differs from a real cluster
//!
//! - No authentication, no authorisation, no TLS. It refuses to listen on anything but loopback.
//! - EndpointSlices accept loopback addresses, because every address here is one.
//! - When the endpoint that was picked for a connection refuses it, the client is reset after having been connected, not
//!   refused; the forwarder is a process, not a rule in the kernel.
//! - Containers have no images: one without a `command` is a small HTTP server ([`pods`](crate#pods)), one with a
//!   `command` is a process on this machine. Init containers, volumes, liveness probes, `exec` and `grpc` probes,
//!   `envFrom` and variables from ConfigMaps and Secrets are stored and ignored. A container with a command, ports and no
//!   probe is ready when its ports accept (a real one is ready when it has started).
//! - Definitions (CRDs) serve at once; schemas are checked for types, required fields, enums and bounds, unknown fields
//!   are pruned and defaults are set, but `pattern`, `format` and CEL rules are not evaluated.
//! - Not there: admission webhooks, aggregated API servers other than `custom.metrics.k8s.io`, RBAC objects, NodePorts,
//!   LoadBalancers, UDP, DNS, the autoscaler behind HorizontalPodAutoscalers, `exec`, `attach`, `port-forward`.
//! - Of the built-in kinds, Services, EndpointSlices, Pods, workloads, Events and definitions are validated.
//!   `fieldValidation` and `resourceVersionMatch` are ignored.
//! - Server-side apply never conflicts: it overrules, as with `force`. Of the writers only those that apply are in
//!   `managedFields`.
//! - The API server answers JSON only.
//!
//! # Addresses
//!
//! Each cluster owns 4096 addresses in 127.64.0.0/12 for pods and as many in 127.96.0.0/12 for ClusterIPs, so that many
//! clusters run side by side, in one process or several. Where only 127.0.0.1 is loopback (macOS) everything has that
//! address: pods get free ports, which their `containerPort` then shows, Services listen on free ports, which the
//! annotation `embedded.dormouse.dev/port-<port>` shows, and [`EmbeddedCluster::service_address`] answers with the right
//! one everywhere. The same annotation shows where a Service port below 1024 is served without the privilege to bind
//! it. Container ports below 1024 need that privilege.
//!
//! # Pods
//!
//! In-process pods answer `/healthz`, `/echo`, `/slow?ms=`, `/status/<code>`, `/headers`, `/trailers`,
//! upgrades (echoed), and everything else with a line of JSON that names the pod. [`annotations`] make them slow, broken
//! or stubborn.

mod addresses;
pub mod annotations;
mod cluster;
mod controllers;
mod core;
mod defaults;
mod error;
mod faults;
mod forward;
mod http;
mod metrics;
mod options;
mod output;
mod patch;
mod pods;
mod resource;
mod schema;
mod selector;
mod store;
mod validate;
mod value;

pub use crate::addresses::Addressing;
pub use crate::cluster::EmbeddedCluster;
pub use crate::core::PodRequest;
pub use crate::error::Error;
pub use crate::faults::{ApiRequest, Fault};
pub use crate::metrics::CustomMetric;
pub use crate::options::{Options, OutputLine, OutputSink};
