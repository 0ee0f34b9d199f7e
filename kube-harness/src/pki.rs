//! Certificates and kubeconfigs: each component has its own identity, as in a cluster that kubeadm makes.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use super::layout::{API_SERVICE_ADDRESS, INSIDE_STATE, Layout, NODE_ADDRESS, NODE_NAME};

/// Who a client certificate speaks for: file name, user, group.
const CLIENTS: &[(&str, &str, &str)] = &[
    ("admin", "dormouse-admin", "system:masters"),
    ("kube-controller-manager", "system:kube-controller-manager", ""),
    ("kube-scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
    ("coredns", "system:coredns", ""),
    ("kubelet", NODE_USER, "system:nodes"),
];
const NODE_USER: &str = "system:node:node-1";

/// Writes `pki/*` and `kubeconfigs/*`, and the kubeconfig for people.
pub fn write(layout: &Layout) -> Result<()> {
    let folder = layout.state().join("pki");
    private_folder(&folder)?;
    let ca = Authority::new("dormouse-test-cluster", &folder, "ca")?;
    // Aggregated API servers believe the user names that come with this one, so it is an authority of its own.
    let front_proxy = Authority::new("dormouse-test-front-proxy", &folder, "front-proxy-ca")?;

    ca.issue(
        &folder,
        "kube-apiserver",
        Subject {
            name: "kube-apiserver",
            group: "",
            names: &[
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                "localhost",
                NODE_ADDRESS,
                API_SERVICE_ADDRESS,
                "127.0.0.1",
            ],
        },
    )?;
    ca.issue(
        &folder,
        "kubelet-serving",
        Subject {
            name: NODE_USER,
            group: "system:nodes",
            names: &[NODE_NAME, NODE_ADDRESS],
        },
    )?;
    ca.issue(
        &folder,
        "apiserver-kubelet-client",
        Subject::client("system:kube-apiserver-kubelet-client", ""),
    )?;
    front_proxy.issue(
        &folder,
        "front-proxy-client",
        Subject::client("front-proxy-client", ""),
    )?;
    let key = KeyPair::generate()?;
    private_file(&folder.join("service-accounts.key"), &key.serialize_pem())?;
    fs::write(folder.join("service-accounts.pub"), key.public_key_pem())?;

    let kubeconfigs = layout.state().join("kubeconfigs");
    private_folder(&kubeconfigs)?;
    for (file, user, group) in CLIENTS {
        ca.issue(&folder, file, Subject::client(user, group))?;
        private_file(&kubeconfigs.join(file), &kubeconfig(file))?;
    }
    // Inside of the mount namespace the files have other paths than outside: people and tests get one that holds
    // everything and can be copied.
    private_file(
        &layout.kubeconfig(),
        &portable_kubeconfig(&folder, layout.name())?,
    )
}

#[derive(Clone, Copy)]
struct Subject<'a> {
    name: &'a str,
    group: &'a str,
    /// DNS names and addresses of a server; none: a client.
    names: &'a [&'a str],
}

impl<'a> Subject<'a> {
    fn client(name: &'a str, group: &'a str) -> Self {
        Self {
            name,
            group,
            names: &[],
        }
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str, folder: &Path, file: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name = distinguished_name(name, "");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        fs::write(folder.join(format!("{file}.crt")), certificate.pem())?;
        private_file(&folder.join(format!("{file}.key")), &key.serialize_pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
        })
    }

    fn issue(&self, folder: &Path, file: &str, subject: Subject<'_>) -> Result<()> {
        let names = subject.names.iter().map(|name| (*name).to_owned());
        let mut params = CertificateParams::new(names.collect::<Vec<_>>())?;
        params.distinguished_name = distinguished_name(subject.name, subject.group);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![if subject.names.is_empty() {
            ExtendedKeyUsagePurpose::ClientAuth
        } else {
            ExtendedKeyUsagePurpose::ServerAuth
        }];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(folder.join(format!("{file}.crt")), certificate.pem())?;
        private_file(&folder.join(format!("{file}.key")), &key.serialize_pem())
    }
}

fn distinguished_name(name: &str, group: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    if !group.is_empty() {
        distinguished.push(DnType::OrganizationName, group);
    }
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// For a component: names files inside of the mount namespace.
fn kubeconfig(client: &str) -> String {
    text(
        "cluster",
        &format!("certificate-authority: {INSIDE_STATE}/pki/ca.crt"),
        client,
        &format!(
            "client-certificate: {INSIDE_STATE}/pki/{client}.crt\n    client-key: {INSIDE_STATE}/pki/{client}.key"
        ),
    )
}

fn portable_kubeconfig(folder: &Path, name: &str) -> Result<String> {
    let encoded = |file: &str| -> Result<String> {
        let path = folder.join(file);
        Ok(STANDARD.encode(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    Ok(text(
        &format!("dormouse-{name}"),
        &format!("certificate-authority-data: {}", encoded("ca.crt")?),
        "admin",
        &format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            encoded("admin.crt")?,
            encoded("admin.key")?
        ),
    ))
}

fn text(cluster: &str, authority: &str, user: &str, credentials: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {cluster}\n  cluster:\n    server: https://{NODE_ADDRESS}:6443\n    {authority}\n\
         users:\n\
         - name: {user}\n  user:\n    {credentials}\n\
         contexts:\n\
         - name: {cluster}\n  context:\n    cluster: {cluster}\n    user: {user}\n\
         current-context: {cluster}\n"
    )
}

fn private_folder(folder: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot create {}", folder.display()))
}

fn private_file(file: &Path, content: &str) -> Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut opened| opened.write_all(content.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_s_user_carries_its_name() {
        assert_eq!(NODE_USER, format!("system:node:{NODE_NAME}"));
    }
}
