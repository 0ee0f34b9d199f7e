//! All of the configuration as a process uses it: read, merged, and checked as a whole, with everything that is wrong told at once.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dormouse_model::is_dns_label;
use serde_json::Value;

use super::ranges::{self, Range};
use super::{AutoscalerOptions, Common, DlxOptions, File, Listen, overlay};

/// Largest configuration file. A ConfigMap holds a mebibyte at most.
const LARGEST: u64 = 1 << 20;
/// How long the file may take to be read: it may be a pipe that nobody writes, or on a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wrong keys that are told at once.
const MOST_PROBLEMS: usize = 50;

/// The configuration of a process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub file: File,
    /// The shared options, merged.
    pub common: Common,
    /// Those of the autoscaler, merged.
    pub autoscaler: AutoscalerOptions,
    /// Those of the DLX, merged.
    pub dlx: DlxOptions,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// One more, with the key that it is about.
    pub fn add(&mut self, key: &str, problem: impl fmt::Display) {
        self.0.push(format!("{key}: {problem}"));
    }

    fn or<T>(self, fine: T, about: impl FnOnce() -> String) -> Result<T> {
        match self.0.as_slice() {
            [] => Ok(fine),
            [one] => bail!("{}: {one}", about()),
            more => bail!("{}:\n  {}", about(), more.join("\n  ")),
        }
    }
}

impl Settings {
    /// Reads the file, puts flags and environment over it, and checks the whole.
    ///
    /// # Errors
    /// Everything that is wrong, each with its key.
    pub fn read(
        path: Option<&Path>,
        common: &Common,
        autoscaler: &AutoscalerOptions,
        dlx: &DlxOptions,
    ) -> Result<Self> {
        let (file, mut problems) = match path {
            Some(path) => parse(&read(path)?),
            None => (File::default(), Problems::default()),
        };
        let settings = Self {
            common: overlay(&file.common, common)?,
            autoscaler: overlay(&file.autoscaler, autoscaler)?,
            dlx: overlay(&file.dlx, dlx)?,
            file,
        };
        settings.check(&mut problems)?;
        problems.or(settings, || match path {
            Some(path) => format!("the configuration ({}) is not valid", path.display()),
            None => "the configuration is not valid".to_owned(),
        })
    }

    fn check(&self, problems: &mut Problems) -> Result<()> {
        let sections = [
            ("common", serde_json::to_value(&self.common)?),
            ("autoscaler", serde_json::to_value(&self.autoscaler)?),
            ("dlx", serde_json::to_value(&self.dlx)?),
        ];
        for (section, values) in &sections {
            for Range { key, allowed } in ranges::of(section) {
                let value = values.get(key).unwrap_or(&Value::Null);
                if let Err(problem) = allowed.check(value) {
                    problems.add(&format!("{section}.{key}"), problem);
                }
            }
        }
        if let Err(error) = crate::telemetry::log_filter(self.common.log.as_deref()) {
            problems.add("common.log", format_args!("{error:#}"));
        }
        self.check_together(problems);
        self.file.metrics.check_all(|error| {
            problems.add(&format!("metrics.{}", error.key), &error.problem);
        });
        Ok(())
    }

    /// What is fine alone and not together.
    fn check_together(&self, problems: &mut Problems) {
        let bind = self
            .common
            .bind_address
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let admin = self.common.admin_address.unwrap_or(Listen::port(9090)).on(bind);
        let listen = self.dlx.listen_address.unwrap_or(Listen::port(8080)).on(bind);
        let ports = self.common.dlx_ports.map(|ports| ports.0).unwrap_or_default();
        let same = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() || b.is_unspecified();
        if admin.port() == listen.port() && same(admin.ip(), listen.ip()) {
            problems.add(
                "common.adminAddress",
                format_args!("{admin} is also dlx.listenAddress; each needs a port of its own"),
            );
        }
        for (key, address) in [("common.adminAddress", admin), ("dlx.listenAddress", listen)] {
            if address.port() == 0 {
                problems.add(key, "port 0 is no port that others can know; 1 to 65535");
            } else if (ports.first..=ports.last).contains(&address.port()) && same(address.ip(), bind) {
                problems.add(
                    key,
                    format_args!(
                        "port {} is one of common.dlxPorts {}-{}, which stand in for Services",
                        address.port(),
                        ports.first,
                        ports.last
                    ),
                );
            }
        }
        let server = self.autoscaler.memhpa_prometheus.as_deref();
        if let Some(server) = server.filter(|server| !self.file.metrics.prometheus.contains_key(*server)) {
            problems.add(
                "autoscaler.memhpaPrometheus",
                format_args!("there is no server {server:?} in metrics.prometheus"),
            );
        }
        let query = self.autoscaler.memhpa_query.as_deref();
        if query.is_some_and(|query| !query.contains("{namespace}")) {
            problems.add(
                "autoscaler.memhpaQuery",
                "it has no {namespace}, so pods of one name in several namespaces would be added up",
            );
        }
        let names = [
            ("autoscaler.promNamespace", &self.autoscaler.prom_namespace),
            ("autoscaler.promName", &self.autoscaler.prom_name),
        ];
        for (key, name) in names {
            if let Some(name) = name.as_ref().filter(|name| !is_dns_label(name)) {
                problems.add(key, format_args!("{name:?} is no name of a Kubernetes object"));
            }
        }
        let scheme = self.autoscaler.prom_scheme.as_deref();
        if let Some(scheme) = scheme.filter(|scheme| !["http", "https"].contains(scheme)) {
            problems.add(
                "autoscaler.promScheme",
                format_args!("{scheme:?} is neither http nor https"),
            );
        }
        if let (Some(settle), Some(longest)) = (self.common.look_settle, self.common.look_longest)
            && settle.0 > longest.0
        {
            problems.add(
                "common.lookLongest",
                format_args!("{longest} is shorter than common.lookSettle {settle}"),
            );
        }
        if let (Some(one), Some(all)) = (self.dlx.max_held_per_resource, self.dlx.max_held)
            && one > all
        {
            problems.add(
                "dlx.maxHeldPerResource",
                format_args!("{one} is more than dlx.maxHeld {all}"),
            );
        }
    }

    /// Whether every file that the configuration names is there. Only the autoscaler reads them.
    ///
    /// # Errors
    /// Each one that is missing, with its key.
    pub fn check_files(&self) -> Result<()> {
        let mut problems = Problems::default();
        let mut named: Vec<(String, PathBuf)> = self.file.metrics.files();
        if let Some(path) = &self.common.kubeconfig_path {
            named.push(("common.kubeconfigPath".to_owned(), path.clone()));
        }
        for (key, path) in named {
            match std::fs::metadata(&path) {
                Ok(found) if found.is_dir() => {
                    problems.add(&key, format_args!("{} is a directory", path.display()))
                }
                Ok(_) => {}
                Err(error) => problems.add(&key, format_args!("{} cannot be read: {error}", path.display())),
            }
        }
        problems.or((), || "files that the configuration names".to_owned())
    }
}

/// All of a file, within a time. What hangs is left behind in its thread.
fn read(path: &Path) -> Result<String> {
    let about = || format!("the configuration file {} cannot be read", path.display());
    let (done, waiting) = std::sync::mpsc::sync_channel(1);
    let file = path.to_owned();
    std::thread::Builder::new()
        .name("configuration".to_owned())
        .spawn(move || {
            let read = || {
                let mut text = String::new();
                std::fs::File::open(&file)?
                    .take(LARGEST + 1)
                    .read_to_string(&mut text)?;
                Ok::<_, std::io::Error>(text)
            };
            let _ = done.send(read());
        })
        .with_context(about)?;
    let text = waiting
        .recv_timeout(PATIENCE)
        .with_context(|| format!("no end of file within {PATIENCE:?}"))
        .with_context(about)?
        .with_context(about)?;
    if text.len() as u64 > LARGEST {
        bail!("{}: it is larger than {LARGEST} bytes", about());
    }
    Ok(text)
}

/// The file, and all that is wrong with it. What is wrong is left out and the rest is read on, so that the next one is found too.
pub(super) fn parse(text: &str) -> (File, Problems) {
    let mut problems = Problems::default();
    let mut document: serde_yaml::Value = match serde_yaml::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            problems.0.push(error.to_string());
            return (File::default(), problems);
        }
    };
    // A file, or a section, in which everything is commented out.
    without_nulls(&mut document);
    if document.is_null() {
        return (File::default(), problems);
    }
    let mut seen = BTreeSet::new();
    loop {
        match serde_path_to_error::deserialize::<_, File>(document.clone()) {
            Ok(file) => return (file, problems),
            Err(error) => {
                let path: Vec<String> = error.path().iter().filter_map(step).collect();
                let problem = in_words(error.inner().to_string());
                let unknown = unknown_key(&problem);
                let mut place = path.clone();
                if let Some(key) = &unknown
                    && place.last() != Some(key)
                {
                    place.push(key.clone());
                }
                let key = if place.is_empty() {
                    "the file".to_owned()
                } else {
                    place.join(".")
                };
                problems.add(&key, problem);
                let again = !seen.insert(place.clone()) || problems.0.len() >= MOST_PROBLEMS;
                if again || !remove(&mut document, &place) {
                    return (File::default(), problems);
                }
            }
        }
    }
}

/// Rust's names of numbers are not the operator's.
fn in_words(problem: String) -> String {
    match problem.rsplit_once("expected ") {
        Some((before, "usize" | "u64" | "u32" | "u16" | "u8")) => {
            format!("{before}expected a whole number, without a unit")
        }
        _ => problem,
    }
}

fn step(segment: &serde_path_to_error::Segment) -> Option<String> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// The key of "unknown field `x`, expected …". The words are serde's own, and a test holds them.
fn unknown_key(problem: &str) -> Option<String> {
    let (key, _) = problem.split_once("unknown field `")?.1.split_once('`')?;
    Some(key.to_owned())
}

fn without_nulls(value: &mut serde_yaml::Value) {
    if let serde_yaml::Value::Mapping(map) = value {
        map.retain(|_, value| {
            without_nulls(value);
            !value.is_null()
        });
    }
}

/// Takes out what a path leads to; whether there was such a thing.
fn remove(value: &mut serde_yaml::Value, path: &[String]) -> bool {
    let Some((last, above)) = path.split_last() else {
        return false;
    };
    let mut at = value;
    for part in above {
        let next = match at {
            serde_yaml::Value::Sequence(list) => {
                part.parse().ok().and_then(|index: usize| list.get_mut(index))
            }
            serde_yaml::Value::Mapping(map) => map.get_mut(part.as_str()),
            _ => None,
        };
        match next {
            Some(found) => at = found,
            None => return false,
        }
    }
    match at {
        serde_yaml::Value::Sequence(list) => match last.parse::<usize>() {
            Ok(index) if index < list.len() => {
                list.remove(index);
                true
            }
            _ => false,
        },
        serde_yaml::Value::Mapping(map) => map.remove(last.as_str()).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents whose blocks of YAML are parts of the configuration file where they begin with one of its sections.
    const DOCUMENTS: [&str; 4] = ["concepts", "cold-starts", "operations", "readings"];
    const SECTIONS: [&str; 5] = ["common:", "autoscaler:", "dlx:", "plugins:", "metrics:"];

    #[test]
    fn f06_every_configuration_in_the_docs_is_valid() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let mut seen = 0;
        for document in DOCUMENTS {
            let text = std::fs::read_to_string(docs.join(format!("{document}.md"))).unwrap();
            for block in text.split("```yaml\n").skip(1) {
                let block = block.split("```").next().unwrap();
                if !SECTIONS.iter().any(|section| block.starts_with(section)) {
                    continue;
                }
                seen += 1;
                let (_, problems) = parse(block);
                assert_eq!(problems, Problems::default(), "{document}.md:\n{block}");
            }
        }
        assert!(seen >= 3, "{seen}");
    }

    #[test]
    fn operator_08_what_is_wrong_is_left_out_and_the_rest_is_read() {
        let (file, problems) = parse(
            "common: {logg: info, drainGrace: soon, namespace: shop}\nplugins: {a: {grants: {kubernetes: [{kind: Pod, verb: [get]}]}}}\n",
        );
        let said = problems.0.join("\n");
        // serde's own words, from which the unknown key is read.
        for part in [
            "common.logg: unknown field `logg`",
            "common.drainGrace: ",
            "plugins.a.grants.kubernetes",
        ] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        assert_eq!(
            file.common.namespace.as_deref(),
            Some("shop"),
            "so that it can be checked as well"
        );
    }

    #[test]
    fn what_a_path_leads_to_is_taken_out() {
        let mut value: serde_yaml::Value = serde_yaml::from_str("a: [{b: 1, c: 2}, 3]").unwrap();
        let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert!(remove(&mut value, &path(&["a", "0", "b"])));
        assert!(remove(&mut value, &path(&["a", "1"])));
        assert!(!remove(&mut value, &path(&["a", "1"])));
        assert!(!remove(&mut value, &[]));
        assert_eq!(
            value,
            serde_yaml::from_str::<serde_yaml::Value>("a: [{c: 2}]").unwrap()
        );
    }
}
