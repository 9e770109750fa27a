//! Fuzz target `http`: HTTP/1 at any cut. What is checked stands in `clovisor_fuzz::http`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| clovisor_fuzz::http::run(input));
