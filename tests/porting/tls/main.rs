//! TLS libraries, unchanged, over coroutines' sockets: rustls, and with the feature `native-tls` the one of the
//! system, which is OpenSSL here.

#[path = "../util.rs"]
mod util;

mod files;
#[allow(unreachable_pub, reason = "the text is that of the guide")]
#[path = "../../../src/guide/tls/server.rs"]
mod guide;
mod library;
mod streams;
