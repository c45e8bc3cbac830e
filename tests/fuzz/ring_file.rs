#![no_main]

#[path = "../hostile_bytes/ring_file.rs"]
mod ring_file;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    ring_file::open(input);
});
