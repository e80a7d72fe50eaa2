//! What coroutines and OS threads wait for each other with.

mod lot;

pub mod futex;

use crate::park::list;
