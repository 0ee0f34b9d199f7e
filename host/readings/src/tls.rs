//! TLS settings from PEM files.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// TLS settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsError {
    /// The file of the authorities holds no certificate, or something else.
    #[error("tls.caFile holds no usable certificate: {0}")]
    Authorities(String),
    /// The system knows no authorities.
    #[error("the system has no certificates of authorities to trust ({0}); give tls.caFile")]
    NoSystemAuthorities(String),
    /// The certificate or key of the client.
    #[error("tls.certFile and tls.keyFile cannot be used: {0}")]
    Identity(String),
    /// The name that the certificate must have.
    #[error("tls.serverName {0:?} is no host name")]
    ServerName(String),
}

/// PEM of certificate chain and private key.
pub(crate) type Identity<'a> = (&'a [u8], &'a [u8]);

/// Trusts `authorities` (PEM), else those of the system.
pub(crate) fn client_config(
    authorities: Option<&[u8]>,
    identity: Option<Identity<'_>>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Identity(error.to_string()))?;
    let builder = match authorities {
        Some(pem) => builder.with_root_certificates(roots(pem)?),
        None => hyper_rustls::ConfigBuilderExt::with_native_roots(builder)
            .map_err(|error| TlsError::NoSystemAuthorities(error.to_string()))?,
    };
    let Some((chain, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let wrong = |error: &dyn std::fmt::Display| TlsError::Identity(error.to_string());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&error))?;
    if chain.is_empty() {
        return Err(wrong(&"there is no certificate"));
    }
    // The text of such an error names the kind of fault, not what the key says.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| wrong(&"there is no private key"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| wrong(&error))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(TlsError::Authorities)?;
    }
    if roots.is_empty() {
        return Err(TlsError::Authorities("there is none".to_owned()));
    }
    Ok(roots)
}

pub(crate) fn server_name(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_owned()).map_err(|_| TlsError::ServerName(text.to_owned()))
}
