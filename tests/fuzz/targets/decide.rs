//! libFuzzer's door to `lb_fuzz::decide`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_fuzz::decide(bytes));
