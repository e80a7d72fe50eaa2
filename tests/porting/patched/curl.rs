//! libcurl, a C library.

use std::collections::BTreeMap;

use curl::easy::Easy;

use crate::alone::alone;
use crate::crowd::ask_at_once;
use crate::http;

#[test]
fn clients_of_libcurl_wait_at_once() {
    alone(|| {
        let ask = |address, number| {
            let mut page = Vec::new();
            let mut request = Easy::new();
            request.url(&format!("http://{address}/{number}"))?;
            request.signal(false)?;
            let mut transfer = request.transfer();
            transfer.write_function(|part| {
                page.extend_from_slice(part);
                Ok(part.len())
            })?;
            transfer.perform()?;
            drop(transfer);
            Ok(String::from_utf8(page)?)
        };
        let threads = ask_at_once("libcurl", http::serve, ask, http::page);
        assert_eq!(threads, BTreeMap::new());
    });
}
