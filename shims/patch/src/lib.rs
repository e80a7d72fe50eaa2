//! The patch of the C library, [`greenroom::patch!`], for a program that forbids `unsafe` code.
//!
//! The program names this crate, and so gets the functions that park:
//!
//! ```
//! #![forbid(unsafe_code)]
//!
//! use greenroom_patch as _;
//!
//! fn main() {
//!     assert!(greenroom::patch::status().is_in_force());
//! }
//! ```
//!
//! A dependency in `Cargo.toml` alone has no effect. The crate must be named in the program, or in a library that
//! the program uses. A library should leave that to programs: [the safety of the patch](mod@greenroom::patch#safety)
//! depends on all code of the process.
//!
//! A program that names this crate must not have the macro as well. Both define the same functions, so the
//! program does not link: the linker reports duplicate symbols.

greenroom::patch!(unsafe);
