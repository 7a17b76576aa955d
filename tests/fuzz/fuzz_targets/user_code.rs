#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postiz::fuzzing::user_code(bytes));
