//! Files over streams agree with a model, whatever comes.

#![no_main]

mod model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|choices: &[u8]| {
    // Two bytes a choice, so that the fuzzer can replace one without moving the others.
    let mut choices = choices.chunks(2);
    model::compare(|below| {
        let choice = choices.next()?;
        let number = choice
            .iter()
            .fold(0, |number, &byte| number << 8 | usize::from(byte));
        Some(number % below)
    });
});
