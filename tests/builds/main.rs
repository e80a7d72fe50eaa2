//! Programs that these tests build: under `panic = "abort"`, under clippy's list, by the rename.

mod abort;
mod clippy_list;
mod porting_by_rename;
