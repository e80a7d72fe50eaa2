//! TLS for the client: whom it trusts, and the handshake.

use std::io;
use std::sync::Arc;

use greenroom::shims::fs;
use greenroom::shims::net::TcpStream;
use greenroom::shims::sync::OnceLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Where Debian's package `ca-certificates` has the roots of the system.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A connection after the handshake.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// The trusted roots.
#[derive(Default)]
pub(crate) struct Trust {
    /// Those of the system are read when the first page needs them. `Err` tells why there are none.
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Trust {
    /// Trusts the certificates in a PEM file, and no others. The default is to trust those of the system.
    ///
    /// # Errors
    ///
    /// That of the file, or `InvalidData` if it has no certificates.
    pub(crate) fn in_file(path: &str) -> io::Result<Trust> {
        let config = OnceLock::from(Ok(read(path)?));
        Ok(Trust { config })
    }

    /// Shakes hands with the server of this name or address, which must have a certificate for it.
    pub(crate) fn connect(&self, host: &str, mut tcp: TcpStream) -> io::Result<TlsStream> {
        let of_system = || {
            read(SYSTEM).map_err(|error| {
                format!("{error} (Debian's package ca-certificates has it; or see --ca)")
            })
        };
        let config = self.config.get_or_init(of_system).clone();
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(config.map_err(io::Error::other)?, name);
        let mut connection = connection.map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        Ok(StreamOwned::new(connection, tcp))
    }
}

/// A configuration that trusts the certificates in a PEM file.
fn read(path: &str) -> io::Result<Arc<ClientConfig>> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("trusted roots: {path}: {error}"));
    let invalid = |why: String| failed(io::Error::new(io::ErrorKind::InvalidData, why));
    let pem = fs::read(path).map_err(failed)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| invalid(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    // A bundle may have some of a kind that is unknown here.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(invalid("there is no certificate".into()));
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(Arc::new(config.with_no_client_auth()))
}
