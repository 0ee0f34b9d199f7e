//! A server that does what a test says, with and without TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::authority::Identity;

/// What it does with a request.
#[derive(Clone)]
pub enum Reply {
    /// Status with reason, headers, body.
    Whole(&'static str, &'static str, String),
    /// Nothing, ever.
    Silence,
    /// A body that never ends.
    Endless,
    /// The connection breaks off in the middle of the body.
    Broken,
}

pub struct Server {
    pub address: SocketAddr,
    /// Heads of the requests that it got.
    pub requests: Arc<Mutex<Vec<String>>>,
    reply: Arc<Mutex<Reply>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(reply: Reply) -> Self {
        Self::run(reply, None).await
    }

    /// With TLS; `client_authority` (PEM) signs the clients that it serves.
    pub async fn with_tls(reply: Reply, identity: &Identity, client_authority: Option<&str>) -> Self {
        Self::run(reply, Some(acceptor(identity, client_authority))).await
    }

    async fn run(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let reply = Arc::new(Mutex::new(reply));
        let (log, says) = (Arc::clone(&requests), Arc::clone(&reply));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, says, tls) = (Arc::clone(&log), Arc::clone(&says), tls.clone());
                tokio::spawn(async move {
                    // What clients do to it is not its business.
                    let _ = match tls {
                        None => serve(stream, &log, &says).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &log, &says).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        Self {
            address,
            requests,
            reply,
            task,
        }
    }

    pub fn says(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    pub fn last_request(&self) -> String {
        self.requests.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    log: &Mutex<Vec<String>>,
    says: &Mutex<Reply>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    log.lock()
        .unwrap()
        .push(String::from_utf8_lossy(&head).into_owned());
    let reply = says.lock().unwrap().clone();
    match reply {
        Reply::Whole(status, headers, body) => {
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
            );
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        }
        Reply::Silence => std::future::pending().await,
        Reply::Endless => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
                .await?;
            loop {
                stream.write_all(&[b'#'; 4096]).await?;
            }
        }
        Reply::Broken => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\na 1\n")
                .await
        }
    }
}

fn acceptor(identity: &Identity, client_authority: Option<&str>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match client_authority {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}
