//! libFuzzer's door to `lb_fuzz::embedded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_fuzz::embedded(bytes));
