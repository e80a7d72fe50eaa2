//! The facade for an executable, and the patch of the C library.

use greenroom_patch as _;

pub use greenroom_std::*;
