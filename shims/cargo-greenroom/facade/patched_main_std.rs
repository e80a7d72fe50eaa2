//! The facade for an executable whose main function runs as a coroutine, and the patch of the C library.

use greenroom_patch as _;

pub use greenroom_main_std::*;
