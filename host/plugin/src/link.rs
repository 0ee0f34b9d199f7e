//! Which host functions a component gets, and what to say when it wants others.

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker, ResourceType};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};

use crate::bindings::dormouse::plugin;
use crate::state::CallState;
use crate::{Grants, PluginError, WIT_VERSION};

/// A guest called a function that is not there.
#[derive(Debug, thiserror::Error)]
#[error("it called `{0}`, which this host does not offer")]
pub(crate) struct NotThere(String);

/// A resource of an interface that is not there: nobody can ever have one.
enum Nothing {}

const PACKAGE: &str = "dormouse:plugin";

/// What WASI 0.2 has and is linked. Files and sockets answer that there are none.
const WASI: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// Which of the interfaces that need a grant are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permissions {
    pub kubernetes: bool,
    pub lifecycle: bool,
}

impl Permissions {
    pub(crate) const ALL: [Permissions; 4] = [
        Permissions {
            kubernetes: false,
            lifecycle: false,
        },
        Permissions {
            kubernetes: false,
            lifecycle: true,
        },
        Permissions {
            kubernetes: true,
            lifecycle: false,
        },
        Permissions {
            kubernetes: true,
            lifecycle: true,
        },
    ];

    pub(crate) fn of(grants: &Grants) -> Permissions {
        Permissions {
            kubernetes: grants.links_kubernetes(),
            lifecycle: grants.links_lifecycle(),
        }
    }

    /// Its place in [`Permissions::ALL`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.kubernetes) * 2 + usize::from(self.lifecycle)
    }
}

/// A linker with WASI 0.2 and what `permissions` say.
pub(crate) fn linker(engine: &Engine, permissions: Permissions) -> wasmtime::Result<Linker<CallState>> {
    type Own = HasSelf<CallState>;
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    plugin::types::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    plugin::logging::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    plugin::config::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    plugin::time::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    plugin::call_context::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    plugin::readings::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    if permissions.kubernetes {
        plugin::kubernetes::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    }
    if permissions.lifecycle {
        plugin::lifecycle::add_to_linker::<_, Own>(&mut linker, |state| state)?;
    }
    Ok(linker)
}

/// Stands in for what a component imports and this host does not have, so that it loads, and only a call fails: JavaScript and
/// Python import every function of an interface whether they use it or not. Newer functions of our own interfaces, newer
/// interfaces of our package, and what WASI has beside the packages in [`WASI`]. The answer names the functions.
pub(crate) fn stub(
    engine: &Engine,
    component: &Component,
    linker: &mut Linker<CallState>,
) -> wasmtime::Result<Vec<String>> {
    let mut stubs = Vec::new();
    for (import, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            continue;
        };
        let own = own_interface(import);
        let known: &[&str] = match &own {
            Some(own) => functions(own.interface),
            None if !import.starts_with("wasi:") || is_linked(import) => continue,
            None => &[],
        };
        // The linker finds a newer version of an interface under the version that it knows.
        let name = match &own {
            Some(own) if OWN.contains(&own.interface) => format!("{PACKAGE}/{}@{WIT_VERSION}", own.interface),
            _ => import.to_owned(),
        };
        for (export, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) if !known.contains(&export) => {
                    let called = format!("{import}#{export}");
                    stubs.push(called.clone());
                    linker
                        .instance(&name)?
                        .func_new(export, move |_, _, _, _| Err(NotThere(called.clone()).into()))?;
                }
                ComponentItem::Resource(_) => {
                    // Those that it takes over from WASI's streams have to be the same here.
                    let kind = match export {
                        "input-stream" => ResourceType::host::<DynInputStream>(),
                        "output-stream" => ResourceType::host::<DynOutputStream>(),
                        "pollable" => ResourceType::host::<DynPollable>(),
                        "error" | "io-error" => {
                            ResourceType::host::<wasmtime_wasi::p2::bindings::io::error::Error>()
                        }
                        _ => ResourceType::host::<Nothing>(),
                    };
                    linker.instance(&name)?.resource(export, kind, |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(stubs)
}

/// The interfaces of our package that plugins import.
const OWN: [&str; 8] = [
    "types",
    "readings",
    "logging",
    "config",
    "time",
    "call-context",
    "kubernetes",
    "lifecycle",
];

/// What makes a component a plugin: at least one of these.
const KINDS: [&str; 3] = ["scaler", "evaluator", "trigger"];

/// The functions that this host has of an interface of our package.
fn functions(interface: &str) -> &'static [&'static str] {
    match interface {
        "logging" => &["log"],
        "config" => &["get", "all"],
        "time" => &["now", "zone", "to-civil", "from-civil"],
        "call-context" => &["caller", "time-left"],
        "kubernetes" => &["get", "list", "create", "patch", "apply", "delete", "event"],
        "lifecycle" => &["sleep", "wake", "state"],
        _ => &[],
    }
}

/// Whether WASI's own implementation is behind an import.
fn is_linked(import: &str) -> bool {
    WASI.iter().any(|package| import.starts_with(package))
}

/// An interface of our package, as components name it.
pub(crate) struct OwnInterface<'a> {
    pub interface: &'a str,
    pub version: &'a str,
}

/// Takes `dormouse:plugin/lifecycle@0.1.0` apart; none for names of other packages.
pub(crate) fn own_interface(name: &str) -> Option<OwnInterface<'_>> {
    let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    Some(OwnInterface { interface, version })
}

/// True when versions are on one track: `0.1.x` of any x, and later `1.x.y`.
pub(crate) fn same_track(wanted: &str) -> bool {
    fn track(version: &str) -> (&str, &str) {
        let mut parts = version.split('.');
        let major = parts.next().unwrap_or_default();
        (
            major,
            if major == "0" {
                parts.next().unwrap_or_default()
            } else {
                ""
            },
        )
    }
    track(wanted) == track(WIT_VERSION)
}

/// What would grant `interface`, if it is one that needs a grant.
pub(crate) fn how_to_grant(plugin: &str, interface: &str) -> Option<String> {
    match interface {
        "kubernetes" => Some(format!(
            "add to plugins.{plugin}.grants: kubernetes: [{{apiVersion: apps/v1, kind: Deployment, verbs: [get, list]}}] \
             with the kinds and verbs that it needs, or events: true"
        )),
        "lifecycle" => Some(format!(
            "add to plugins.{plugin}.grants: lifecycle: [{{apiVersion: apps/v1, kind: Deployment, namespaces: [default]}}] \
             with the kinds and namespaces that it may put to sleep"
        )),
        _ => None,
    }
}

/// Checks the imports by name, so that what is missing is said in the operator's words. The linker checks types.
pub(crate) fn check_imports(
    engine: &Engine,
    component: &Component,
    permissions: Permissions,
    plugin: &str,
) -> Result<(), PluginError> {
    for (import, _) in component.component_type().imports(engine) {
        let Some(OwnInterface { interface, version }) = own_interface(import) else {
            // Versions and types of WASI are for the linker to check.
            if !import.starts_with("wasi:") {
                return Err(PluginError::UnknownImport {
                    import: import.to_owned(),
                });
            }
            continue;
        };
        if !same_track(version) {
            return Err(PluginError::Incompatible {
                wanted: import.to_owned(),
                have: WIT_VERSION,
            });
        }
        let granted = match interface {
            "kubernetes" => permissions.kubernetes,
            "lifecycle" => permissions.lifecycle,
            // What a later version added needs no grant: it is not there, see `stub`.
            _ => true,
        };
        if !granted {
            let how = how_to_grant(plugin, interface).unwrap_or_default();
            return Err(PluginError::NotGranted {
                import: import.to_owned(),
                how,
            });
        }
    }
    Ok(())
}

/// The name under which the component exports our `interface`, if it does.
pub(crate) fn exported(engine: &Engine, component: &Component, interface: &str) -> Option<String> {
    component.component_type().exports(engine).find_map(|(name, _)| {
        own_interface(name)
            .filter(|own| own.interface == interface)
            .map(|_| name.to_owned())
    })
}

/// Checks that the component exports something that makes it a plugin, of a version that this host can call.
pub(crate) fn check_exports(engine: &Engine, component: &Component) -> Result<(), PluginError> {
    let mut kinds = KINDS
        .into_iter()
        .filter_map(|kind| exported(engine, component, kind))
        .peekable();
    if kinds.peek().is_none() {
        return Err(PluginError::MissingExport {
            package: PACKAGE,
            version: WIT_VERSION,
        });
    }
    let is_other = |name: &String| !own_interface(name).is_some_and(|own| same_track(own.version));
    match kinds.find(is_other) {
        Some(name) => Err(PluginError::Incompatible {
            wanted: format!("to export {name}"),
            have: WIT_VERSION,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_permissions_finds_its_linker() {
        for (index, permissions) in Permissions::ALL.into_iter().enumerate() {
            assert_eq!(permissions.index(), index);
        }
    }

    #[test]
    fn patch_versions_are_one_track_and_minor_versions_below_one_are_not() {
        for (version, same) in [
            ("0.1.0", true),
            ("0.1.7", true),
            ("0.2.0", false),
            ("1.1.0", false),
            ("", false),
        ] {
            assert_eq!(same_track(version), same, "{version}");
        }
    }
}
