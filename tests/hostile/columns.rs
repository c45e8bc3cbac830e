//! What a producer that means harm may say of its columns, and put into them: kinds, segments, embeddings, codes, ids, targets.

use super::attacks::{Attack, IDLE, Round, fleet, slow_rounds_of};
use super::forge::{CATEGORICAL, Dice, EMBEDDING, F32, F64, Forged, NUMERICAL, REGRESSION, Shape, joined, now_ns};
use mlwatch::ring::wire::{SEGMENT_BY_ROW, section};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

pub const ALL: &[Attack] = &[
    Attack {
        name: "kinds nobody knows, segments by what is no category",
        prepare: impossible_columns,
        counted: &["/refused/schema"],
        said: &["which is not a categorical one"],
        ..IDLE
    },
    Attack {
        name: "segments in records that may have none, or of another length",
        prepare: misplaced_segments,
        counted: &["/resyncs/sections"],
        said: &["which its schema does not allow"],
        ..IDLE
    },
    Attack {
        name: "segments: all 65,536 of them, racing, and none",
        prepare: many_segments,
        reported: &["/segments/33/rows"],
        ..IDLE
    },
    Attack {
        name: "a new code in every row: segments, 64 categorical columns",
        prepare: new_codes,
        reported: &["/segments/33/rows"],
        ..IDLE
    },
    Attack {
        name: "2,000 embeddings of a column each, none with a value",
        prepare: lonely_embeddings,
        opening: 2_000 * 10,
        reported: &["/embeddings/1999/incomplete_rows"],
        ..IDLE
    },
    Attack {
        name: "embeddings racing: NaN, ±∞, 1e308",
        prepare: wild_embeddings,
        reported: &["/embeddings/0/incomplete_rows"],
        ..IDLE
    },
    Attack {
        name: "a regression's outputs and targets racing: NaN, ±∞, 1e308",
        prepare: wild_targets,
        reported: &["/errors/0/n"],
        ..IDLE
    },
    Attack {
        name: "ids racing: of no row, the same, ever smaller hashes",
        prepare: ids,
        reported: &["/labels/unjoined_rows"],
        ..IDLE
    },
];

pub const ROWS: u32 = 32;

/// Where sums, squares and differences overflow, or vanish.
pub const WILD: [f64; 12] =
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 1e308, -1e308, 1e-308, 5e-324, -0.0, 0.5, 1.0];

pub fn many(n: u32, dice: &mut Dice, mut value: impl FnMut(&mut Dice) -> f64) -> Vec<u8> {
    (0..n).flat_map(|_| value(dice).to_le_bytes()).collect()
}

/// Probabilities of three classes, f32, all of them sound.
pub fn sound_probabilities(rows: u32) -> (u16, Vec<u8>) {
    let row = [0.5f32, 0.3, 0.2];
    (section::PROBABILITIES, (0..rows).flat_map(|_| row).flat_map(f32::to_le_bytes).collect())
}

/// Writes a record of these sections, and then other values over its own while it is read.
pub fn write_and_race(
    ring: &mut Forged,
    dice: &mut Dice,
    parts: &[(u16, Vec<u8>)],
    value: impl Fn(&mut Dice) -> Vec<u8>,
) {
    let (sections, payload) = joined(parts);
    if ring.write(sections, ROWS, now_ns(), &payload, |_| {}) {
        let written = ring.data(ring.pos - payload.len() as u64);
        for _ in 0..8 {
            let value = value(dice);
            let at = dice.below((payload.len() / value.len()) as u64) * value.len() as u64;
            ring.put(written + at, &value);
        }
    }
}

/// Without optimisation, what full rings hold takes seconds to read at the end.
fn paced(mut round: Round) -> Round {
    Box::new(move || {
        round();
        if cfg!(debug_assertions) {
            sleep(Duration::from_millis(4));
        }
    })
}

/// Segments by a number, by an embedding, by what is not there; kinds that are none.
fn impossible_columns(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let mut strike = move |i: u64| {
        let kinds = vec![NUMERICAL, EMBEDDING, CATEGORICAL];
        let any = dice.next() as u32 | 8;
        let segment_by = dice.pick(&[1, 2, 4, 1 << 20, u32::MAX - 1, any]);
        let shape = match i % 2 {
            0 => Shape { features: 3, kinds, segment_by, ..Shape::default() },
            _ => Shape { kinds: vec![3 + dice.below(253) as u8], segment_by: 1, ..Shape::default() },
        };
        Forged::new(&dir, &format!("hostile.{i}.ring"), &shape).write_sound(1);
    };
    (0..8).for_each(&mut strike);
    slow_rounds_of(8, strike)
}

/// Of two models: only one has segments.
fn misplaced_segments(dir: &Path, dice: Dice) -> Round {
    let with = Shape { segment_by: SEGMENT_BY_ROW, ..Shape::default() };
    let without = Shape { model: "plain".into(), ..Shape::default() };
    let mut fleets = [with, without].map(|shape| fleet(dir, shape, 4, Dice(dice.0), misplace));
    Box::new(move || fleets.iter_mut().for_each(|round| round()))
}

fn misplace(ring: &mut Forged, dice: &mut Dice) {
    let (sections, rows) = (section::FEATURES | section::SEGMENTS, 1 + dice.below(64) as u32);
    let (wrong_rows, wrong_sections) = (dice.edge(rows.into()) as u32, section::SEGMENTS << dice.below(9));
    let payload = vec![0xFF; 2 * rows as usize]; // the shortest of them has as much
    match dice.below(8) {
        0 => ring.write(sections, rows, now_ns(), &payload, |record| record.rows = wrong_rows),
        1 => ring.write(sections, rows, now_ns(), &payload, |record| record.sections = section::FEATURES),
        2 => ring.write(section::FEATURES, rows, now_ns(), &payload, |record| record.sections = sections),
        3 => ring.write(section::FEATURES, rows, now_ns(), &payload, |record| record.sections |= wrong_sections),
        4 => ring.write(section::SEGMENTS, rows, now_ns(), &payload, |_| {}),
        _ => ring.write_sound(rows),
    };
}

fn many_segments(dir: &Path, dice: Dice) -> Round {
    let shape = Shape { segment_by: SEGMENT_BY_ROW, ..Shape::default() };
    let mut next = 0u16;
    fleet(dir, shape, 2, dice, move |ring, dice| {
        let segments = (0..ROWS).flat_map(|_| {
            next = next.wrapping_add(1);
            next.to_le_bytes()
        });
        let labels = (0..ROWS).flat_map(|i| (i as i32 % 5 - 1).to_le_bytes()).collect();
        let mut parts = vec![sound_probabilities(ROWS), (section::LABELS, labels)];
        if dice.below(8) > 0 {
            parts.push((section::SEGMENTS, segments.collect()));
        }
        write_and_race(ring, dice, &parts, |dice| dice.next().to_le_bytes()[..2].to_vec());
    })
}

/// Codes are compared as numbers: what is none is no code, and two zeros are one.
fn new_codes(dir: &Path, dice: Dice) -> Round {
    let features = 64;
    let shape = Shape {
        features,
        kinds: vec![CATEGORICAL],
        feature_dtype: F64,
        segment_by: 1,
        capacity: 1 << 20,
        ..Shape::default()
    };
    let mut next = 0f64;
    paced(fleet(dir, shape, 2, dice, move |ring, dice| {
        let codes = many(ROWS * features, dice, |dice| {
            next += 1.0;
            if dice.below(64) == 0 { dice.pick(&WILD) } else { next }
        });
        let parts = [sound_probabilities(ROWS), (section::FEATURES, codes)];
        write_and_race(ring, dice, &parts, |dice| f64::from_bits(dice.next()).to_le_bytes().to_vec());
    }))
}

/// Names that are numbers have no stem in common.
fn lonely_embeddings(dir: &Path, dice: Dice) -> Round {
    let (features, kinds) = (2_000, vec![EMBEDDING]);
    let shape = Shape { features, kinds, name_bytes: 8, capacity: 1 << 20, reservoir_rows: 100, ..Shape::default() };
    let nothing: Vec<u8> = (0..features).flat_map(|_| f32::NAN.to_le_bytes()).collect();
    paced(fleet(dir, shape, 2, dice, move |ring, _| {
        ring.write(section::FEATURES, 1, now_ns(), &nothing, |_| {});
    }))
}

fn wild_embeddings(dir: &Path, dice: Dice) -> Round {
    let kinds = vec![EMBEDDING, EMBEDDING, EMBEDDING, CATEGORICAL, NUMERICAL, EMBEDDING];
    let shape = Shape { features: 6, kinds, feature_dtype: F64, ..Shape::default() };
    fleet(dir, shape, 2, dice, move |ring, dice| {
        // One of them alone for the whole record, at times.
        let (one, all) = (dice.pick(&WILD), dice.below(2) == 0);
        let values = many(ROWS * 6, dice, |dice| if all { dice.pick(&WILD) } else { one });
        write_and_race(ring, dice, &[(section::FEATURES, values)], |dice| dice.pick(&WILD).to_le_bytes().to_vec());
    })
}

fn wild_targets(dir: &Path, dice: Dice) -> Round {
    let shape = Shape { task: REGRESSION, proba_dtype: F64, feature_dtype: F32, ..Shape::default() };
    fleet(dir, shape, 2, dice, move |ring, dice| {
        let mut values = || many(ROWS * 3, dice, |dice| dice.pick(&WILD));
        let parts = [(section::PROBABILITIES, values()), (section::TARGETS, values())];
        write_and_race(ring, dice, &parts, |dice| dice.pick(&WILD).to_le_bytes().to_vec());
    })
}

/// Of the ids those with the smallest hashes are kept: whoever can turn the hash round makes every row the next to be kept.
fn ids(dir: &Path, dice: Dice) -> Round {
    let mut next = u64::MAX;
    fleet(dir, Shape::default(), 2, dice, move |ring, dice| {
        let kind = dice.below(4);
        let ids = (0..ROWS).flat_map(|_| {
            next = next.wrapping_sub(1 << 32);
            if kind == 0 { 7u64 } else { id_with_hash(next) }.to_le_bytes()
        });
        let ids = (section::IDS, ids.collect());
        let parts = if kind == 1 { vec![ids] } else { vec![sound_probabilities(ROWS), ids] };
        write_and_race(ring, dice, &parts, |dice| dice.edge(0).to_le_bytes().to_vec());
    })
}

/// The inverse of SplitMix64's finalizer.
fn id_with_hash(hash: u64) -> u64 {
    let unshifted = |x: u64, by: u32| x ^ (x >> by) ^ (x >> (2 * by));
    let x = unshifted(hash, 31).wrapping_mul(0x3196_42b2_d24d_8ec3);
    let x = unshifted(x, 27).wrapping_mul(0x96de_1b17_3f11_9089);
    unshifted(x, 30)
}
