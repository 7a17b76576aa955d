#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postiz::fuzzing::forwarded_for(bytes));
