#![no_main]

#[path = "../hostile/ring_file.rs"]
mod ring_file;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    ring_file::open(input);
});
