//! Fuzz target `capture`: capture files of any bytes. What is checked stands in `clovisor_fuzz::capture`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| clovisor_fuzz::capture::run(input));
