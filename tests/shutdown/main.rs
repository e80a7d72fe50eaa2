//! The ends of runtimes and threads: what unwinds, what is left behind, what destructors may do.

#[path = "../util/mod.rs"]
mod util;

mod ends;
mod grace;
mod random;
mod stop;
mod thread_end;
