//! What the tests need of a TLS library.

use std::io::{self, Read, Write};
use std::sync::Arc;

use greenroom::shims::net::TcpStream;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig,
    ServerConnection, SideData, StreamOwned, SupportedProtocolVersion,
};

/// One side of a connection, after the handshake.
pub(crate) trait Stream: Read + Write + Send {
    /// Sends a close_notify: this side has no more to send.
    fn close(&mut self) -> io::Result<()>;

    fn tcp(&self) -> &TcpStream;
}

/// Shakes hands over a connection.
type Shake = Box<dyn Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync>;

/// A server and its clients, which trust it.
pub(crate) struct Library {
    pub(crate) name: String,
    pub(crate) accept: Shake,
    pub(crate) connect: Shake,
}

impl Library {
    /// rustls with each version of TLS, and OpenSSL.
    pub(crate) fn all() -> Vec<Library> {
        let mut all = vec![
            Library::rustls(&rustls::version::TLS12),
            Library::rustls(&rustls::version::TLS13),
        ];
        #[cfg(feature = "native-tls")]
        all.push(native());
        all
    }

    fn rustls(version: &'static SupportedProtocolVersion) -> Library {
        let (server, client) = configs(version);
        Library {
            name: format!("rustls, {:?}", version.version),
            accept: Box::new(move |tcp| {
                let connection = ServerConnection::new(Arc::clone(&server));
                shake(connection.map_err(io::Error::other)?, tcp)
            }),
            connect: Box::new(move |tcp| {
                let name = ServerName::try_from("localhost").unwrap();
                let connection = ClientConnection::new(Arc::clone(&client), name);
                shake(connection.map_err(io::Error::other)?, tcp)
            }),
        }
    }
}

/// Both sides of a connection that trust each other.
pub(crate) fn configs(
    version: &'static SupportedProtocolVersion,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server = ServerConfig::builder_with_protocol_versions(&[version])
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))
        .unwrap();
    let client = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn shake<C, D>(mut connection: C, mut tcp: TcpStream) -> io::Result<Box<dyn Stream>>
where
    C: std::ops::DerefMut<Target = ConnectionCommon<D>> + Send + 'static,
    D: SideData + 'static,
{
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    Ok(Box::new(StreamOwned::new(connection, tcp)))
}

impl<C, D> Stream for StreamOwned<C, TcpStream>
where
    C: std::ops::DerefMut<Target = ConnectionCommon<D>> + Send,
    D: SideData,
{
    fn close(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()
    }

    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

#[cfg(feature = "native-tls")]
fn native() -> Library {
    use native_tls::{Certificate, Identity, TlsAcceptor, TlsConnector};

    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = issued.cert.pem();
    let key = issued.signing_key.serialize_pem();
    let identity = Identity::from_pkcs8(certificate.as_bytes(), key.as_bytes()).unwrap();
    let acceptor = TlsAcceptor::new(identity).unwrap();
    let connector = TlsConnector::builder()
        .add_root_certificate(Certificate::from_pem(certificate.as_bytes()).unwrap())
        .build()
        .unwrap();
    Library {
        name: "native-tls".into(),
        accept: Box::new(move |tcp| shaken(acceptor.accept(tcp))),
        connect: Box::new(move |tcp| shaken(connector.connect("localhost", tcp))),
    }
}

#[cfg(feature = "native-tls")]
type Native = native_tls::TlsStream<TcpStream>;

#[cfg(feature = "native-tls")]
fn shaken(
    result: Result<Native, native_tls::HandshakeError<TcpStream>>,
) -> io::Result<Box<dyn Stream>> {
    use native_tls::HandshakeError;

    match result {
        Ok(stream) => Ok(Box::new(stream)),
        // The timeout of the socket has passed.
        Err(HandshakeError::WouldBlock(_)) => Err(io::ErrorKind::WouldBlock.into()),
        Err(HandshakeError::Failure(error)) => Err(io::Error::other(error)),
    }
}

#[cfg(feature = "native-tls")]
impl Stream for Native {
    fn close(&mut self) -> io::Result<()> {
        self.shutdown()
    }

    fn tcp(&self) -> &TcpStream {
        self.get_ref()
    }
}
