//! Bodies in chunks, whatever comes, in any pieces.

#![no_main]

mod chunked_model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| chunked_model::check(data));
