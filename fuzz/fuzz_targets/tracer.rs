//! Fuzz target `tracer`: packets of some connections in any order. What is checked stands in `clovisor_fuzz::tracer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| clovisor_fuzz::tracer::run(input));
