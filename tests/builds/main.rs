//! Programs that these tests build: under `panic = "abort"`, under clippy's list, by the rename,
//! with the patch of the C library; and the examples.

mod abort;
mod clippy_list;
mod deadlocks;
mod examples;
mod exporter;
mod patch_macro;
mod patched;
#[path = "../util/ported.rs"]
mod ported;
mod porting_by_rename;
