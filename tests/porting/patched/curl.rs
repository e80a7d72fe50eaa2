//! libcurl, a C library.

use std::collections::BTreeMap;

use curl::easy::Easy;

use crate::Outcome;
use crate::alone::alone;
use crate::crowd::ask_at_once;
use crate::{http, tls};

/// Asks for a page, and does not check the server's certificate if there is one.
fn ask(url: &str) -> Outcome<String> {
    let mut page = Vec::new();
    let mut request = Easy::new();
    request.url(url)?;
    request.ssl_verify_peer(false)?;
    request.ssl_verify_host(false)?;
    // Each client would read the certificates of the whole system.
    request.cainfo("/dev/null")?;
    request.signal(false)?;
    let mut transfer = request.transfer();
    transfer.write_function(|part| {
        page.extend_from_slice(part);
        Ok(part.len())
    })?;
    transfer.perform()?;
    drop(transfer);
    Ok(String::from_utf8(page)?)
}

#[test]
fn clients_of_libcurl_wait_at_once() {
    alone(|| {
        let ask = |address, number| ask(&format!("http://{address}/{number}"));
        let threads = ask_at_once("libcurl", http::serve, ask, http::page);
        assert_eq!(threads, BTreeMap::new());
    });
}

#[test]
fn clients_of_libcurl_and_openssl_wait_at_once() {
    alone(|| {
        let ask = |address, number| ask(&format!("https://{address}/{number}"));
        let threads = ask_at_once("libcurl over OpenSSL", tls::serve, ask, http::page);
        assert_eq!(threads, BTreeMap::new());
    });
}
