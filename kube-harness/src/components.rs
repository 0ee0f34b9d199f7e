//! The command line of every component and how to ask whether it works.

use super::layout::{INSIDE_BIN, INSIDE_STATE, NODE_ADDRESS, NODE_NAME};

/// One program of a cluster.
pub struct Component {
    pub name: &'static str,
    pub program: Program,
    pub args: Vec<String>,
    pub probe: Probe,
}

/// Where a program comes from.
#[derive(Clone, Copy)]
pub enum Program {
    /// Built by us.
    Built,
    /// A Debian package's, found by its name.
    Installed,
}

/// How to ask whether it works.
#[derive(Clone, Copy)]
pub enum Probe {
    /// An address answers 200 for a path.
    Http(&'static str, &'static str),
    /// The same with TLS, asked as the administrator: server and path.
    Https(&'static str, &'static str),
    /// containerd answers on its socket.
    Containerd,
}

/// In the order in which they start.
pub const NAMES: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "containerd",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "coredns",
    "kube-proxy",
];

/// The component of this name.
pub fn component(name: &str) -> Option<Component> {
    let pki = |file: &str| format!("{INSIDE_STATE}/pki/{file}");
    let kubeconfig = |flag: &str, name: &str| format!("--{flag}={INSIDE_STATE}/kubeconfigs/{name}");
    let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let built = |name, args, probe| {
        Some(Component {
            name,
            program: Program::Built,
            args,
            probe,
        })
    };
    match name {
        "etcd" => {
            let mut args = own(&[
                // What is lost when the machine loses power is a test cluster.
                "--unsafe-no-fsync",
                "--log-level=warn",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--initial-advertise-peer-urls=http://127.0.0.1:2380",
                "--initial-cluster=default=http://127.0.0.1:2380",
            ]);
            args.push(format!("--data-dir={INSIDE_STATE}/etcd"));
            built("etcd", args, Probe::Http("127.0.0.1:2379", "/health"))
        }
        "kube-apiserver" => {
            let mut args = own(&[
                "--secure-port=6443",
                "--etcd-servers=http://127.0.0.1:2379",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction,PodSecurity",
                "--allow-privileged=true",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                // For `kubectl exec` and `kubectl logs`: nothing resolves the node's name.
                "--kubelet-preferred-address-types=InternalIP",
                // Aggregated APIs; nobody but a pod can reach a Service's address from outside of kube-proxy.
                "--requestheader-allowed-names=front-proxy-client",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                "--enable-aggregator-routing=true",
                // When it is ended, watches end at once; else it sits on them for a minute without answering anybody.
                "--shutdown-watch-termination-grace-period=2s",
                "--audit-log-maxsize=64",
                "--audit-log-maxbackup=20",
                "--profiling=false",
            ]);
            args.extend([
                format!("--advertise-address={NODE_ADDRESS}"),
                format!("--bind-address={NODE_ADDRESS}"),
                format!("--client-ca-file={}", pki("ca.crt")),
                format!("--tls-cert-file={}", pki("kube-apiserver.crt")),
                format!("--tls-private-key-file={}", pki("kube-apiserver.key")),
                format!("--service-account-key-file={}", pki("service-accounts.pub")),
                format!(
                    "--service-account-signing-key-file={}",
                    pki("service-accounts.key")
                ),
                format!("--kubelet-certificate-authority={}", pki("ca.crt")),
                format!(
                    "--kubelet-client-certificate={}",
                    pki("apiserver-kubelet-client.crt")
                ),
                format!("--kubelet-client-key={}", pki("apiserver-kubelet-client.key")),
                format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
                format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
                format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
                format!("--audit-policy-file={INSIDE_STATE}/audit-policy.yaml"),
                format!("--audit-log-path={INSIDE_STATE}/logs/audit.log"),
            ]);
            built(
                "kube-apiserver",
                args,
                Probe::Https("https://10.99.0.1:6443", "/readyz"),
            )
        }
        "kube-controller-manager" => {
            let mut args = own(&[
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                "--use-service-account-credentials=true",
                "--profiling=false",
                // Its default of 20 requests a second is 5 s of every start.
                "--kube-api-qps=200",
                "--kube-api-burst=300",
                // How soon a new node loses its taint.
                "--node-monitor-period=1s",
            ]);
            args.extend([
                kubeconfig("kubeconfig", "kube-controller-manager"),
                kubeconfig("authentication-kubeconfig", "kube-controller-manager"),
                kubeconfig("authorization-kubeconfig", "kube-controller-manager"),
                format!("--client-ca-file={}", pki("ca.crt")),
                format!("--root-ca-file={}", pki("ca.crt")),
                format!("--cluster-signing-cert-file={}", pki("ca.crt")),
                format!("--cluster-signing-key-file={}", pki("ca.key")),
                format!(
                    "--service-account-private-key-file={}",
                    pki("service-accounts.key")
                ),
            ]);
            built(
                "kube-controller-manager",
                args,
                Probe::Https("https://127.0.0.1:10257", "/healthz"),
            )
        }
        "kube-scheduler" => {
            let mut args = own(&[
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                "--profiling=false",
                "--kube-api-qps=200",
                "--kube-api-burst=300",
            ]);
            args.extend([
                kubeconfig("kubeconfig", "kube-scheduler"),
                kubeconfig("authentication-kubeconfig", "kube-scheduler"),
                kubeconfig("authorization-kubeconfig", "kube-scheduler"),
                format!("--client-ca-file={}", pki("ca.crt")),
            ]);
            built(
                "kube-scheduler",
                args,
                Probe::Https("https://127.0.0.1:10259", "/healthz"),
            )
        }
        "containerd" => Some(Component {
            name: "containerd",
            program: Program::Installed,
            args: vec![format!("--config={INSIDE_STATE}/containerd.toml")],
            probe: Probe::Containerd,
        }),
        "kubelet" => built(
            "kubelet",
            vec![
                format!("--config={INSIDE_STATE}/kubelet.yaml"),
                kubeconfig("kubeconfig", "kubelet"),
                format!("--root-dir={INSIDE_STATE}/kubelet"),
                format!("--hostname-override={NODE_NAME}"),
                format!("--node-ip={NODE_ADDRESS}"),
            ],
            Probe::Http("127.0.0.1:10248", "/healthz"),
        ),
        "kube-proxy" => built(
            "kube-proxy",
            vec![format!("--config={INSIDE_STATE}/kube-proxy.yaml")],
            Probe::Http("127.0.0.1:10256", "/healthz"),
        ),
        "coredns" => built(
            "coredns",
            vec!["-conf".to_owned(), format!("{INSIDE_STATE}/Corefile")],
            Probe::Http("127.0.0.1:8181", "/ready"),
        ),
        _ => None,
    }
}

/// A built program, inside of the mount namespace.
pub fn inside(relative: &std::path::Path) -> std::path::PathBuf {
    std::path::Path::new(INSIDE_BIN).join(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_command_line() {
        for name in NAMES {
            assert_eq!(component(name).unwrap().name, *name);
        }
        assert!(component("cloud-controller-manager").is_none());
    }

    #[test]
    fn addresses_agree() {
        for name in NAMES {
            if let Probe::Https(server, _) = component(name).unwrap().probe {
                assert!(
                    server.contains("127.0.0.1") || server.contains(NODE_ADDRESS),
                    "{server}"
                );
            }
        }
    }
}
