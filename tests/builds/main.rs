//! Programs that these tests build: under `panic = "abort"`, under clippy's list, by the rename;
//! and the examples.

mod abort;
mod clippy_list;
mod examples;
mod porting_by_rename;
