//! A blocking HTTP client and a blocking HTTP server from the registry, with the shims under the name of
//! std.

#[path = "../util/ported.rs"]
mod ported;
mod published;

use published::{Published, comes_out_the_same};

#[test]
fn an_http_client_and_an_http_server_from_the_registry() {
    let crates = [("minreq", "2.14.1"), ("tiny_http", "0.12.0")];
    let crates = crates.map(|(name, version)| Published {
        name,
        version,
        features: None,
    });
    comes_out_the_same("registry", &crates, &[], 50);
}
