#![no_main]

#[path = "../hostile_bytes/fresh_bytes.rs"]
mod fresh_bytes;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fresh_bytes::poll(input);
});
