//! Blocking crates from the registry, unmodified and on the real std, under the patch of the C library: on
//! coroutines of one worker.
//!
//! Each test runs in a process of its own, whose OS threads it counts.

greenroom::patch!(unsafe);

mod alone;
mod crowd;
mod curl;
mod ftp;
mod gate;
mod http;
mod interrupts;
mod mio;
mod peers;
mod server;
mod threads;
mod ticker;
mod tls;
mod tokio;
#[path = "../util.rs"]
mod util;
mod websocket;

use std::error::Error;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
