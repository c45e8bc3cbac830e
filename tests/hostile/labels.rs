//! What a producer that means harm may say of labels that come later: of rows that never were, twice, of no class, without end.

use super::attacks::{Attack, IDLE, Round, fleet};
use super::columns::{ROWS, WILD, many, sound_probabilities, write_and_race};
use super::forge::{Dice, F64, Forged, REGRESSION, Shape, joined, now_ns};
use mlwatch::ring::wire::section;
use std::path::Path;

pub const ALL: &[Attack] = &[
    Attack {
        name: "labels for rows that never were, of no class, without ids",
        prepare: of_no_rows,
        reported: &["/labels/unjoined_rows"],
        ..IDLE
    },
    Attack {
        name: "labels racing: twice, for the same ids, of periods long closed",
        prepare: twice,
        reported: &["/labels/delay/n"],
        ..IDLE
    },
    Attack {
        name: "labels that are no class, for rows that wait on",
        prepare: of_no_class,
        reported: &["/labels/invalid"],
        ..IDLE
    },
    Attack {
        name: "targets that come later, racing: NaN, ±∞, 1e308",
        prepare: targets,
        reported: &["/labels/delay/n"],
        ..IDLE
    },
    Attack {
        name: "ids without end, for which no label comes",
        prepare: ids_without_end,
        limits: "max_waiting_bytes = 2000000",
        reported: &["/labels/forgotten_rows"],
        ..IDLE
    },
];

const NO_CLASS: [i32; 6] = [-2, 3, 7, 1 << 16, i32::MIN, i32::MAX];

fn ids(mut id: impl FnMut() -> u64) -> (u16, Vec<u8>) {
    (section::IDS, (0..ROWS).flat_map(|_| id().to_le_bytes()).collect())
}

fn labels(mut label: impl FnMut() -> i32) -> (u16, Vec<u8>) {
    (section::LABELS, (0..ROWS).flat_map(|_| label().to_le_bytes()).collect())
}

fn write(ring: &mut Forged, ts_ns: u64, parts: &[(u16, Vec<u8>)]) {
    let (sections, payload) = joined(parts);
    ring.write(sections, ROWS, ts_ns, &payload, |_| {});
}

fn of_no_rows(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 2, dice, |ring, dice| {
        let kind = dice.below(4);
        let label = labels(|| if dice.below(4) == 0 { dice.pick(&NO_CLASS) } else { dice.below(3) as i32 });
        let unknown = ids(|| dice.edge(0));
        match kind {
            0 => write(ring, now_ns(), &[label]),
            1 => write(ring, now_ns(), &[unknown]),
            2 => write(ring, now_ns(), &[labels(|| -1), unknown]),
            _ => write_and_race(ring, dice, &[label, unknown], |dice| dice.edge(0).to_le_bytes().to_vec()),
        }
    })
}

/// Rows of any of some hundred ids, and labels for any of them, by either of two rings; of the last ten seconds.
fn twice(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 2, dice, |ring, dice| {
        let ts_ns = now_ns() - dice.below(20) * 500_000_000;
        let these = ids(|| dice.below(200));
        let label = labels(|| dice.below(3) as i32);
        if dice.below(2) == 0 {
            return write(ring, ts_ns, &[sound_probabilities(ROWS), these]);
        }
        write(ring, ts_ns, &[label.clone(), these.clone()]);
        write_and_race(ring, dice, &[label, these], |dice| dice.below(200).to_le_bytes().to_vec());
    })
}

fn of_no_class(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 2, dice, |ring, dice| {
        write(ring, now_ns(), &[sound_probabilities(ROWS), ids(|| dice.below(200))]);
        let these = ids(|| dice.below(200));
        write(ring, now_ns(), &[labels(|| dice.pick(&NO_CLASS)), these]);
    })
}

fn targets(dir: &Path, dice: Dice) -> Round {
    let shape = Shape { task: REGRESSION, proba_dtype: F64, ..Shape::default() };
    fleet(dir, shape, 2, dice, |ring, dice| {
        let mut values = || many(ROWS * 3, dice, |dice| dice.pick(&WILD));
        let (outputs, targets) = ((section::PROBABILITIES, values()), (section::TARGETS, values()));
        let these = ids(|| dice.below(200));
        write(ring, now_ns(), &[outputs, these.clone()]);
        write_and_race(ring, dice, &[targets, these], |dice| dice.pick(&WILD).to_le_bytes().to_vec());
    })
}

/// Some of them are labelled when they have long been forgotten.
fn ids_without_end(dir: &Path, dice: Dice) -> Round {
    let mut next = 0u64;
    fleet(dir, Shape { capacity: 1 << 18, ..Shape::default() }, 2, dice, move |ring, dice| {
        let new = ids(|| {
            next += 1;
            next
        });
        write(ring, now_ns(), &[sound_probabilities(ROWS), new]);
        if dice.below(16) == 0 {
            write(ring, now_ns(), &[labels(|| 1), ids(|| dice.below(next))]);
        }
    })
}
