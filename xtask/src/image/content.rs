//! What is in the image beside the program.

use std::collections::BTreeMap;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use xtask_oci::Layer;

/// The program, where containers of it start.
pub const PROGRAM: &str = "/usr/local/bin/dormouse";
/// The bundled plugins. The default of the Helm chart.
pub const PLUGINS: &str = "/plugins";
/// The bill of materials.
pub const SBOM: &str = "/usr/share/sbom/dormouse.spdx.json";
/// `nonroot`, as in the images that many others start from. Numeric, so that `runAsNonRoot` can be verified.
pub const USER: &str = "65532:65532";
/// Where TLS libraries of Debian and its descendants look.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";

/// Users, certificates and a place for temporary files.
pub fn base() -> Result<Layer> {
    Layer::new("users, CA certificates, /tmp")
        .file("/etc/passwd", 0o644, PASSWD)?
        .file("/etc/group", 0o644, GROUP)?
        .file(CERTIFICATES, 0o644, certificates())?
        .folder("/tmp", 0o1777)
}

/// Variables that the program finds set: none, every default fits the image.
pub fn env() -> BTreeMap<String, String> {
    BTreeMap::new()
}

/// Mozilla's roots for TLS servers, from a crate that Cargo.lock pins with its checksum: the bundle of the machine that
/// builds would make the image depend on that machine. The API server is not verified by these but by the cluster's
/// own CA; they are for what an operator lets plugins and readings talk to.
fn certificates() -> String {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
            pem.extend(line.iter().map(|byte| char::from(*byte)));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_pem() {
        let pem = certificates();
        let count = pem.matches("-----BEGIN CERTIFICATE-----\n").count();
        assert!(count > 100, "{count}");
        assert_eq!(pem.matches("-----END CERTIFICATE-----\n").count(), count);
        assert!(pem.lines().all(|line| line.len() <= 64), "a line is too long");
        let first: String = pem
            .lines()
            .skip(1)
            .take_while(|line| !line.starts_with('-'))
            .collect();
        assert_eq!(
            STANDARD.decode(first).unwrap(),
            webpki_root_certs::TLS_SERVER_ROOT_CERTS[0].as_ref()
        );
    }
}
