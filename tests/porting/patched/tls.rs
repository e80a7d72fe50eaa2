//! ureq over rustls.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::Outcome;
use crate::alone::alone;
use crate::crowd::ask_at_once;
use crate::gate::Gate;
use crate::http;

/// The server's certificate, and what else it needs.
fn identity() -> &'static (CertificateDer<'static>, Arc<ServerConfig>) {
    static IDENTITY: OnceLock<(CertificateDer<'static>, Arc<ServerConfig>)> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let certificate = issued.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key));
        (certificate, Arc::new(config.unwrap()))
    })
}

pub(crate) fn serve(stream: TcpStream, gate: &Gate) -> Outcome<()> {
    let connection = ServerConnection::new(Arc::clone(&identity().1))?;
    let mut stream = StreamOwned::new(connection, stream);
    http::serve_on(&mut stream, gate)?;
    stream.conn.send_close_notify();
    Ok(std::io::Write::flush(&mut stream)?)
}

#[test]
fn clients_of_ureq_and_rustls_wait_at_once() {
    alone(|| {
        let certificate = Certificate::from_der(&identity().0);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[certificate]))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = ureq::Agent::config_builder().tls_config(tls).build();
        let agent = agent.new_agent();
        let ask = |address, number| {
            let mut response = agent.get(format!("https://{address}/{number}")).call()?;
            Ok(response.body_mut().read_to_string()?)
        };
        let threads = ask_at_once("ureq 3 over rustls", serve, ask, http::page);
        assert_eq!(threads, BTreeMap::new());
    });
}
