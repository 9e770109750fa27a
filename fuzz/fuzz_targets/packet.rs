//! Fuzz target `packet`: one packet of any bytes. What is checked stands in `clovisor_fuzz::packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| clovisor_fuzz::packet::run(input));
