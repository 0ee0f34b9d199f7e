//! Loopback addresses for pods and Services.
//!
//! Every cluster, in this process or another, owns a block of 4096 pod addresses in 127.64.0.0/12 and the block with
//! the same number in 127.96.0.0/12 for ClusterIPs. A block is claimed by listening on its first address for as long
//! as the cluster lives, which the operating system allows once.
//!
//! Where only 127.0.0.1 is a loopback address (macOS) everything has that address and ports tell things apart.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use crate::error::Error;

const BLOCKS: u32 = 256;
const BLOCK_SIZE: u32 = 4096;
const POD_BASE: u32 = u32::from_be_bytes([127, 64, 0, 0]);
const SERVICE_BASE: u32 = u32::from_be_bytes([127, 96, 0, 0]);
/// The port that is held open to claim a block.
const CLAIM_PORT: u16 = 47_801;
/// Where a Service port below 1024 is served when the process may not bind it.
const UNPRIVILEGED_OFFSET: u16 = 10_000;

/// How pods and Services are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// Own addresses where the machine has them, otherwise ports.
    #[default]
    Auto,
    /// 127.0.0.1 for everything, told apart by port, as on macOS.
    Ports,
}

#[derive(Debug)]
struct Services {
    next: u32,
    used: HashSet<Ipv4Addr>,
}

/// The addresses of one cluster.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// None: everything is 127.0.0.1.
    block: Option<u32>,
    _claim: Option<TcpListener>,
    next_pod: Mutex<u32>,
    services: Mutex<Services>,
}

impl Addresses {
    pub fn claim(addressing: Addressing) -> Result<Self, Error> {
        let make = |block, claim| Addresses {
            block,
            _claim: claim,
            next_pod: Mutex::new(2),
            services: Mutex::new(Services {
                next: 2,
                used: HashSet::new(),
            }),
        };
        if addressing == Addressing::Ports {
            return Ok(make(None, None));
        }
        let start: u32 = rand::random_range(0..BLOCKS);
        let mut taken = 0;
        for i in 0..BLOCKS {
            let block = (start + i) % BLOCKS;
            let address = Ipv4Addr::from(POD_BASE + block * BLOCK_SIZE + 1);
            match TcpListener::bind((address, CLAIM_PORT)) {
                Ok(listener) => return Ok(make(Some(block), Some(listener))),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => taken += 1,
                Err(e) => {
                    info!(%address, error = %e, "127.0.0.0/8 is not all loopback here: pods and Services share 127.0.0.1 and are told apart by port");
                    return Ok(make(None, None));
                }
            }
        }
        Err(Error::NoAddressBlock(taken))
    }

    /// Whether everything has the address 127.0.0.1 and a port of its own.
    pub fn by_port(&self) -> bool {
        self.block.is_none()
    }

    pub fn pod(&self) -> Ipv4Addr {
        let Some(block) = self.block else {
            return Ipv4Addr::LOCALHOST;
        };
        let mut next = self.next_pod.lock().unwrap_or_else(PoisonError::into_inner);
        let n = *next;
        // Round and round: an address is not used again soon, so late packets find nobody.
        *next = if n + 1 >= BLOCK_SIZE - 1 { 2 } else { n + 1 };
        Ipv4Addr::from(POD_BASE + block * BLOCK_SIZE + n)
    }

    pub fn allocate_service(&self) -> Option<String> {
        let Some(block) = self.block else {
            return Some(Ipv4Addr::LOCALHOST.to_string());
        };
        let mut s = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..BLOCK_SIZE {
            let n = s.next;
            s.next = if n + 1 >= BLOCK_SIZE - 1 { 2 } else { n + 1 };
            let ip = Ipv4Addr::from(SERVICE_BASE + block * BLOCK_SIZE + n);
            if s.used.insert(ip) {
                return Some(ip.to_string());
            }
        }
        None
    }

    /// Takes a ClusterIP that a client asked for by name.
    pub fn claim_service(&self, text: &str) -> bool {
        let Ok(ip) = text.parse::<Ipv4Addr>() else {
            return false;
        };
        let Some(block) = self.block else {
            return ip == Ipv4Addr::LOCALHOST;
        };
        let first = SERVICE_BASE + block * BLOCK_SIZE;
        let inside = (first + 2..first + BLOCK_SIZE - 1).contains(&u32::from(ip));
        inside
            && self
                .services
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .used
                .insert(ip)
    }

    pub fn release_service(&self, text: &str) {
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            self.services
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .used
                .remove(&ip);
        }
    }

    /// Where a Service port is to listen: the port itself, else (not allowed, or one address for all) another one.
    pub async fn listen_service(&self, ip: IpAddr, port: u16) -> io::Result<(tokio::net::TcpListener, u16)> {
        if self.by_port() {
            return listen(SocketAddr::new(ip, 0)).await;
        }
        match listen(SocketAddr::new(ip, port)).await {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let other = port.saturating_add(UNPRIVILEGED_OFFSET);
                warn!(%ip, port, other, "not allowed to listen below 1024: this Service port is served on another one");
                listen(SocketAddr::new(ip, other)).await
            }
            other => other,
        }
    }

    /// Where a pod's container port is to listen.
    pub async fn listen_pod(&self, ip: IpAddr, port: u16) -> io::Result<(tokio::net::TcpListener, u16)> {
        listen(SocketAddr::new(ip, if self.by_port() { 0 } else { port })).await
    }
}

async fn listen(address: SocketAddr) -> io::Result<(tokio::net::TcpListener, u16)> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_never_share_a_block() {
        let a = Addresses::claim(Addressing::Auto).unwrap();
        let b = Addresses::claim(Addressing::Auto).unwrap();
        if a.by_port() {
            return;
        }
        assert_ne!(a.block, b.block);
        assert_ne!(a.pod(), b.pod());
    }

    #[test]
    fn an_explicit_cluster_ip_is_taken_once() {
        let a = Addresses::claim(Addressing::Auto).unwrap();
        if a.by_port() {
            return;
        }
        let ip = a.allocate_service().unwrap();
        assert!(!a.claim_service(&ip));
        a.release_service(&ip);
        assert!(a.claim_service(&ip));
        assert!(!a.claim_service("10.0.0.1"));
    }
}
