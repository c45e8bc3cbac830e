//! Whatever bytes a ring holds, and however they change under the reader: polls end, stay in bounds, and advance or say why.

mod fresh_bytes;
mod mutated_ring;
mod naive;
mod ring_file;
#[path = "../support/mod.rs"]
mod support;

use proptest::prelude::*;
use std::fs;
use std::path::Path;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn however_the_bytes_change_a_poll_ends_in_bounds_and_advances_or_says_why(
        script in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        fresh_bytes::poll(&script);
    }

    #[test]
    fn whatever_stands_where_the_identity_should_opening_gives_a_clear_answer(
        input in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        ring_file::open(&input);
    }
}

/// What `make fuzz` has found worth keeping for a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz").join(target);
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn the_inputs_that_a_fuzzer_kept_get_past_every_check_and_break_none() {
    let (mut records, mut corruptions, inputs) = (0, 0, corpus("fresh_bytes"));
    for input in &inputs {
        let outcome = fresh_bytes::poll(input);
        (records, corruptions) = (records + outcome.records, corruptions + outcome.corruptions);
    }
    let files = corpus("ring_file");
    let opened = files.iter().filter(|input| ring_file::open(input)).count();
    println!("{} scripts: {records} records, {corruptions} corruptions", inputs.len());
    println!("{} files: {opened} opened", files.len());
    assert!(records > 50 && corruptions > 50 && opened > 5, "{records} {corruptions} {opened}");
}
