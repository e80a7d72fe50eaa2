//! Several coroutines together: joins and waits, groups, pools of resources.

#[path = "../util/mod.rs"]
mod util;

mod joins;
