//! Blocking clients from the registry, of databases, mail and the web, with the shims under the name of std.

#[path = "../util/ported.rs"]
mod ported;
mod published;

use published::{Published, comes_out_the_same, says};

#[test]
fn clients_of_databases_mail_and_the_web_from_the_registry() {
    let published = |name, version, features| Published {
        name,
        version,
        features: Some(features),
    };
    let crates = [
        published("redis", "1.8.1", &[]),
        published("mysql", "28.0.4", &["minimal-rust"]),
        published("lettre", "0.11.23", &["smtp-transport", "builder"]),
        published("ureq", "2.12.1", &[]),
        published("tungstenite", "0.30.0", &["handshake"]),
    ];
    // The first three hand their sockets to socket2 and take them back.
    comes_out_the_same("clients", &crates, &["socket2"], 2 * 5 * 12);
}

#[test]
fn a_timeout_and_a_cancellation_interrupt_clients_from_the_registry() {
    let published = |name, version, features| Published {
        name,
        version,
        features,
    };
    let crates = [
        published("minreq", "2.14.1", None),
        published("tungstenite", "0.30.0", Some(&["handshake"])),
    ];
    says("interrupted", &crates, "in a timeout\ncancelled\ngoes on\n");
}
