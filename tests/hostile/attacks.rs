//! What a producer that means harm may do. Every attack runs in a process of its own until it is killed.

use super::forge::{CATEGORICAL, Dice, F16, Forged, Shape, identity, now_ns};
use mlwatch::ring::Snapshot;
use mlwatch::ring::wire::{self, ConsumerPage, Identity, ProducerPage, section};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::{self, File};
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One round of an attack.
pub type Round = Box<dyn FnMut()>;

/// What must come of an attack besides that nobody is disturbed.
pub struct Attack {
    pub name: &'static str,
    /// Makes what is to be there when the sidecar starts; the rounds follow.
    pub prepare: fn(&Path, Dice) -> Round,
    /// `[limits]` of the sidecar's configuration.
    pub limits: &'static str,
    /// Bytes of the longest schema.
    pub opening: u64,
    /// Producers' wishes count.
    pub wishes: bool,
    /// Where `health.json` must have counted something: any of these.
    pub counted: &'static [&'static str],
    /// Where the attacker's reports must have counted something: any of these.
    pub reported: &'static [&'static str],
    /// What the log must say: any of these.
    pub said: &'static [&'static str],
}

/// Of which nothing is expected.
pub const IDLE: Attack = Attack {
    name: "",
    prepare: |_, _| Box::new(|| {}),
    limits: "",
    opening: 0,
    wishes: false,
    counted: &[],
    reported: &[],
    said: &[],
};

pub const ALL: &[Attack] = &[
    Attack {
        name: "record headers: any byte, checksum wrong or right",
        prepare: headers,
        counted: &["/quarantined"],
        said: &["quarantined: corrupt 5 times"],
        ..IDLE
    },
    Attack {
        name: "positions: back, ahead, unaligned, beyond a lap, racing",
        prepare: positions,
        counted: &["/resyncs/tail"],
        said: &["is not within one lap of head"],
        ..IDLE
    },
    Attack { name: "identity and schema rewritten after attaching", prepare: identities, reported: &["/rows"], ..IDLE },
    Attack {
        name: "lengths and rows at the edges",
        prepare: lengths,
        counted: &["/resyncs/length", "/resyncs/payload", "/resyncs/sections"],
        said: &["has length", "its sections take"],
        ..IDLE
    },
    Attack {
        name: "padding without end",
        prepare: padding,
        counted: &["/resyncs/padding", "/resyncs/length"],
        said: &["the padding at", "has length"],
        ..IDLE
    },
    Attack {
        name: "file cut and grown while it is read",
        prepare: sizes,
        counted: &["/quarantined/resized"],
        said: &["somebody changed its file's size"],
        ..IDLE
    },
    Attack {
        name: "holes punched while it is read",
        prepare: holes,
        counted: &["/resyncs"],
        said: &["corrupt"],
        ..IDLE
    },
    Attack {
        name: "name leads to a symlink: file, /dev/zero, nowhere, itself",
        prepare: symlinks,
        counted: &["/refused/not_a_file"],
        said: &["it is not a regular file"],
        ..IDLE
    },
    Attack {
        name: "name leads to a FIFO, a directory, a socket",
        prepare: special_files,
        counted: &["/refused/not_a_file"],
        said: &["it is not a regular file"],
        ..IDLE
    },
    Attack {
        name: "hard links: to itself, another ring, no ring",
        prepare: hard_links,
        counted: &["/refused/not_a_ring"],
        said: &["not a ring file"],
        ..IDLE
    },
    Attack {
        name: "1 TiB of nothing, with and without a header",
        prepare: sparse_files,
        counted: &["/refused/max_ring_bytes"],
        said: &["raise limits.max_ring_bytes"],
        ..IDLE
    },
    Attack {
        name: "names replaced while they are looked at",
        prepare: swaps,
        counted: &["/refused/not_a_file", "/refused/moved", "/refused/io"],
        said: &["not read"],
        ..IDLE
    },
    Attack { name: "unlinked and made anew without pause", prepare: recreation, ..IDLE },
    Attack {
        name: "time stamps: far past, far future, jumping",
        prepare: time_stamps,
        reported: &["/losses/late_rows", "/losses/early_rows"],
        ..IDLE
    },
    Attack {
        name: "a period for every record of a wide model",
        prepare: many_periods,
        wishes: true,
        reported: &["/rows"],
        ..IDLE
    },
    Attack {
        name: "sequence numbers: back, ahead, at the end",
        prepare: sequences,
        counted: &["/resyncs/sequence"],
        said: &["has sequence number"],
        ..IDLE
    },
    Attack { name: "consumer's page forged while it is read", prepare: consumer_pages, reported: &["/rows"], ..IDLE },
    Attack {
        name: "consumer's page forged before it is read",
        prepare: inherited_pages,
        counted: &["/quarantined/earlier"],
        said: &["an earlier sidecar quarantined it"],
        ..IDLE
    },
    Attack {
        name: "counters: at the end, backwards",
        prepare: counters,
        counted: &["/dropped_rows/full"],
        reported: &["/losses/dropped_rows"],
        ..IDLE
    },
    Attack {
        name: "values racing: NaN, ±∞, labels that are no class",
        prepare: values,
        reported: &["/predictions/invalid_rows", "/labels/invalid"],
        ..IDLE
    },
    Attack { name: "dearest rows at full speed", prepare: dear_rows, reported: &["/rows"], ..IDLE },
    Attack {
        name: "lock bytes held",
        prepare: locks,
        counted: &["/refused/in_use"],
        said: &["another sidecar reads it"],
        ..IDLE
    },
    Attack {
        name: "5,000 names that are no rings, new ones all the time",
        prepare: many_names,
        counted: &["/refused/not_a_ring"],
        said: &["not a ring file", "more such lines"],
        ..IDLE
    },
    Attack {
        name: "more rings and models than allowed, new ones all the time",
        prepare: many_rings,
        limits: "max_rings = 40\nmax_models = 30",
        counted: &["/refused/max_models"],
        said: &["raise limits.max_models"],
        ..IDLE
    },
    Attack {
        name: "a new instance for every ring",
        prepare: instances,
        limits: "max_rings = 40",
        counted: &["/refused/max_rings"],
        said: &["raise limits.max_rings"],
        ..IDLE
    },
    Attack {
        name: "schemas of 8,000 names in 60 rings of one model",
        prepare: wide_schemas,
        opening: 8_000 * 257,
        ..IDLE
    },
    Attack {
        name: "schemas longer than allowed",
        prepare: long_schemas,
        limits: "max_classes = 1000\nmax_features = 1000",
        counted: &["/refused/max_features"],
        said: &["raise limits.max_features"],
        ..IDLE
    },
    Attack {
        name: "wide models that wish for periods of 1 ns",
        prepare: wishes,
        wishes: true,
        reported: &["/rows"],
        ..IDLE
    },
];

/// Rings of one shape, named after its model. One that is no longer read is replaced by a new one.
pub fn fleet(
    dir: &Path,
    shape: Shape,
    rings: usize,
    mut dice: Dice,
    mut strike: impl FnMut(&mut Forged, &mut Dice) + 'static,
) -> Round {
    let dir = dir.to_owned();
    let make = move |i: usize| Forged::new(&dir, &format!("{}.{i}.ring", shape.model), &shape);
    let mut fleet: Vec<Forged> = (0..rings).map(&make).collect();
    Box::new(move || {
        let i = dice.below(fleet.len() as u64) as usize;
        if fleet[i].quarantined() {
            fleet[i] = make(i);
        }
        strike(&mut fleet[i], &mut dice);
    })
}

fn headers(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 8, dice, |ring, dice| {
        let (at, value, pos) = (dice.below(60), dice.next() as u8, ring.pos);
        if dice.below(4) > 0 {
            ring.write_sound(1 + dice.below(20) as u32);
        } else if dice.below(2) == 0 {
            ring.put(ring.data(pos), &[value]);
            ring.write_sound(3);
            ring.put(ring.data(pos) + at, &[value]);
        } else {
            ring.write(section::FEATURES, 3, now_ns(), &[0; 24], |record| {
                bytemuck::bytes_of_mut(record)[at as usize] = value;
            });
        }
    })
}

fn positions(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 8, dice, |ring, dice| {
        if dice.below(3) > 0 {
            ring.write_sound(1 + dice.below(20) as u32);
        } else {
            ring.set_tail(dice.edge(ring.pos));
            if dice.below(2) == 0 {
                ring.set_tail(ring.pos);
            }
        }
    })
}

fn identities(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 4, dice, |ring, dice| {
        ring.write_sound(2);
        if ring.attached() {
            let at = dice.below(ring.id.producer_off);
            ring.put(at, &dice.next().to_le_bytes()[..dice.below(8).min(ring.id.producer_off - at) as usize]);
        }
    })
}

fn lengths(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 8, dice, |ring, dice| {
        let around = ring.id.capacity >> dice.below(4);
        let (len, payload, rows) = (dice.edge(around) as u32, dice.edge(around) as u32, dice.edge(around) as u32);
        let sections = dice.pick(&[section::FEATURES, section::ALL, 0, u16::MAX, section::TARGETS, section::LABELS]);
        let which = dice.below(6);
        ring.write(section::FEATURES, 3, now_ns(), &[0; 24], |record| match which {
            0 => record.rec_len = len,
            1 => (record.rec_len, record.payload_len) = (len, len.wrapping_sub(64)),
            2 => record.payload_len = payload,
            3 => record.rows = rows,
            4 => record.sections = sections,
            _ => {}
        });
    })
}

fn padding(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 8, dice, |ring, dice| {
        let rest = ring.id.capacity - ring.pos % ring.id.capacity;
        let len = dice.pick(&[64, 128, rest, ring.id.capacity / 4, 0]).min(rest);
        let mut record = ring.shape.record(0, 0, ring.pos, ring.seq, 0);
        (record.kind, record.rec_len, record.payload_len) = (wire::KIND_PADDING, len as u32, 0);
        ring.publish_raw(record, ring.pos + len);
        ring.pos += len;
    })
}

/// A ring that is cut loses its flags as well: it is replaced after a while, quarantined or not.
fn sizes(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let make = move |i: u64| (Forged::new(&dir, &format!("hostile.{i}.ring"), &Shape::default()), None::<Instant>);
    let mut rings: Vec<_> = (0..8).map(&make).collect();
    Box::new(move || {
        let i = dice.below(8);
        let (ring, cut) = &mut rings[i as usize];
        if cut.is_some_and(|cut| cut.elapsed() > Duration::from_millis(1500)) {
            rings[i as usize] = make(i);
        } else if (cut.is_some() || ring.attached()) && dice.below(3) == 0 {
            cut.get_or_insert_with(Instant::now);
            resize(ring, &mut dice);
        } else {
            ring.write_sound(1 + dice.below(20) as u32);
        }
    })
}

fn resize(ring: &Forged, dice: &mut Dice) {
    let whole = ring.id.file_len;
    let (page, anywhere) = (dice.below(whole / 4096 + 2) * 4096, dice.below(whole));
    ring.file.set_len(dice.pick(&[0, page, anywhere, whole + (1 << 20), whole - 1])).expect("it is our file");
    if dice.below(2) == 0 {
        ring.file.set_len(whole).expect("it is our file");
    }
}

fn holes(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 8, dice, |ring, dice| {
        ring.write_sound(1 + dice.below(200) as u32);
        if ring.attached() && dice.below(4) == 0 {
            let at = dice.below(ring.id.file_len / 4096) * 4096;
            let mode =
                nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
            nix::fcntl::fallocate(&ring.file, mode, at as i64, 4096).expect("tmpfs punches holes");
        }
    })
}

/// Puts something in the place of a name, whatever has it.
fn put_in_place(dir: &Path, name: &str, make: impl FnOnce(&Path)) {
    let (path, hidden) = (dir.join(name), dir.join(format!(".{name}.tmp")));
    remove(&hidden);
    make(&hidden);
    if fs::rename(&hidden, &path).is_err() {
        remove(&path); // a directory gives way to directories only
        fs::rename(&hidden, &path).expect("the place is free");
    }
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

fn make_link(dice: &mut Dice, dir: &Path, at: &Path) {
    fs::write(dir.join("target"), [0xA5; 10_000]).expect("memory is left");
    let own_name = at.file_name().expect("it has one").to_str().expect("ours").replace(".tmp", "");
    let own_name = dir.join(own_name.trim_start_matches('.'));
    let target = dir.join("target");
    let targets = [target.as_path(), Path::new("/dev/zero"), Path::new("/nowhere"), &own_name];
    symlink(targets[dice.below(4) as usize], at).expect("links are allowed");
}

fn symlinks(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let mut strike = move |i: u64| put_in_place(&dir, &format!("link.{i}.ring"), |at| make_link(&mut dice, &dir, at));
    (0..8).for_each(&mut strike);
    rounds_of(8, strike)
}

/// Leaves each name's file long enough to be opened.
pub fn slow_rounds_of(names: u64, strike: impl FnMut(u64) + 'static) -> Round {
    let mut round = rounds_of(names, strike);
    Box::new(move || {
        sleep(Duration::from_millis(5));
        round();
    })
}

/// Goes round the names.
fn rounds_of(names: u64, mut strike: impl FnMut(u64) + 'static) -> Round {
    let mut i = 0;
    Box::new(move || {
        strike(i % names);
        i += 1;
    })
}

fn make_special(dice: &mut Dice, at: &Path) {
    match dice.below(3) {
        0 => nix::unistd::mkfifo(at, nix::sys::stat::Mode::S_IRWXU).expect("FIFOs are allowed"),
        1 => fs::create_dir(at).expect("directories are allowed"),
        _ => drop(UnixListener::bind(at).expect("sockets are allowed")),
    }
}

fn special_files(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let mut strike = move |i: u64| put_in_place(&dir, &format!("s.{i}.ring"), |at| make_special(&mut dice, at));
    (0..8).for_each(&mut strike);
    rounds_of(8, strike)
}

fn hard_links(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let mut ring = Forged::new(&dir, "own.0.ring", &Shape::default());
    fs::write(dir.join("target"), [0xA5; 10_000]).expect("memory is left");
    let own = ring.path.clone();
    let mut strike = move |i: u64| {
        let honest = dir.join("honest.0.ring");
        let target = dice.pick(&[&own, &honest, &dir.join("target")]).clone();
        put_in_place(&dir, &format!("a{i}.0.ring"), |at| fs::hard_link(&target, at).expect("links are allowed"));
        ring.write_sound(1);
    };
    (0..8).for_each(&mut strike);
    slow_rounds_of(8, strike)
}

fn make_sparse(dice: &mut Dice, at: &Path) {
    const TIB: u64 = 1 << 40;
    let file = File::create(at).expect("memory is left");
    if dice.below(4) > 0 {
        let huge = Shape { capacity: dice.pick(&[1 << 30, 1 << 33, 1 << 39]), ..Shape::default() };
        let claim = dice.below(2) == 0;
        let (id, schema) = identity(&huge, |id| id.file_len = if claim { TIB } else { id.file_len });
        file.write_all_at(bytemuck::bytes_of(&id), 0).expect("memory is left");
        file.write_all_at(&schema, size_of::<Identity>() as u64).expect("memory is left");
    }
    file.set_len(TIB).expect("tmpfs is sparse");
}

fn sparse_files(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let mut strike = move |i: u64| put_in_place(&dir, &format!("vast.{i}.ring"), |at| make_sparse(&mut dice, at));
    (0..8).for_each(&mut strike);
    slow_rounds_of(8, strike)
}

fn swaps(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let mut strike = move |i: u64| {
        let name = format!("swap.{i}.ring");
        match dice.below(4) {
            0 => put_in_place(&dir, &name, |at| make_link(&mut dice, &dir, at)),
            1 => put_in_place(&dir, &name, |at| make_special(&mut dice, at)),
            2 => remove(&dir.join(&name)),
            _ => {
                remove(&dir.join(&name));
                Forged::new(&dir, &name, &Shape::default());
            }
        }
    };
    (0..400).for_each(&mut strike);
    rounds_of(400, strike)
}

fn recreation(dir: &Path, _: Dice) -> Round {
    let dir = dir.to_owned();
    let mut strike = move |i: u64| {
        let mut ring = Forged::new(&dir, &format!("again.{i}.ring"), &Shape::default());
        ring.write_sound(5);
        if i.is_multiple_of(2) {
            fs::remove_file(&ring.path).expect("it is ours");
        }
    };
    (0..16).for_each(&mut strike);
    rounds_of(16, strike)
}

fn time_stamps(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 4, dice, |ring, dice| {
        let ts_ns = dice.edge(now_ns());
        ring.write(section::FEATURES, 2, ts_ns, &[0; 16], |_| {});
    })
}

/// An hour of 100 ms periods, as a backlog might hold them.
fn many_periods(dir: &Path, dice: Dice) -> Round {
    // Forty bytes of profile for each of a record: the wider, the worse. Reading the reports takes its time without optimisation.
    let (features, capacity) = if cfg!(debug_assertions) { (500, 1 << 20) } else { (5000, 1 << 22) };
    let shape = Shape { features, capacity, period_ns: 1, reservoir_rows: 1, ..Shape::default() };
    let row = vec![0; 4 * features as usize];
    let mut ts_ns = now_ns() - 3_600_000_000_000;
    fleet(dir, shape, 1, dice, move |ring, _| {
        if ring.write(section::FEATURES, 1, ts_ns, &row, |_| {}) {
            ts_ns += 100_000_000;
        }
    })
}

fn sequences(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 8, dice, |ring, dice| {
        let seq = if dice.below(8) == 0 { dice.edge(ring.seq) } else { ring.seq };
        ring.write(section::FEATURES, 2, now_ns(), &[0; 16], |record| record.seq = seq);
    })
}

fn spoil_consumer_page(ring: &Forged, dice: &mut Dice) {
    let word = dice.below(size_of::<ConsumerPage>() as u64 / 8) * 8;
    ring.put_word(ring.id.consumer_off + word, dice.edge(ring.pos));
}

fn consumer_pages(dir: &Path, mut dice: Dice) -> Round {
    let make = |i| (Forged::new(dir, &format!("hostile.{i}.ring"), &Shape::default()), false);
    let mut rings: Vec<(Forged, bool)> = (0..4).map(make).collect();
    Box::new(move || {
        let (ring, begun) = &mut rings[dice.below(4) as usize];
        ring.write_sound(1);
        // Once is enough: from then on what stands in the page is our own forgery.
        *begun |= ring.attached();
        if *begun {
            spoil_consumer_page(ring, &mut dice);
        }
    })
}

/// Positions, what was consumed and accounted for, all as an earlier sidecar might have left them, and none of it true.
fn lie_about_the_past(ring: &Forged, dice: &mut Dice, quarantined: bool) {
    let (head, tail) = (dice.pick(&[0, 0, 64, u64::MAX - 127]), dice.pick(&[0, 64, 128, u64::MAX - 63]));
    ring.set_tail(tail);
    for word in (0..size_of::<ConsumerPage>() as u64).step_by(8) {
        ring.put_word(ring.id.consumer_off + word, dice.pick(&[0, 1, head, u64::MAX, u64::MAX - 1]));
    }
    ring.put_word(ring.id.consumer_off, head);
    let consumed = ring.id.consumer_off + offset_of!(ConsumerPage, consumed) as u64;
    ring.put_word(consumed, head);
    let at = ring.id.consumer_off + offset_of!(ConsumerPage, quarantined) as u64;
    ring.put_word(at, u64::from(quarantined));
}

fn inherited_pages(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let mut strike = move |i: u64| {
        let name = format!("hostile.{i}.ring");
        let mut ring = Forged::prepared(&dir, &name, &Shape::default(), |ring| {
            lie_about_the_past(ring, &mut dice, i.is_multiple_of(4));
        });
        for seq in [0, u64::MAX - 2, u64::MAX - 1] {
            ring.write(section::FEATURES, 1, now_ns(), &[0; 8], |record| record.seq = seq);
        }
    };
    (0..16).for_each(&mut strike);
    slow_rounds_of(16, strike)
}

fn counters(dir: &Path, dice: Dice) -> Round {
    fleet(dir, Shape::default(), 4, dice, |ring, dice| {
        ring.write_sound(1);
        let first = offset_of!(ProducerPage, records) as u64;
        let word = first + dice.below((size_of::<ProducerPage>() as u64 - first) / 8) * 8;
        ring.put_word(ring.id.producer_off + word, dice.edge(ring.seq));
    })
}

fn values(dir: &Path, dice: Dice) -> Round {
    let sections = section::PROBABILITIES | section::FEATURES | section::LABELS;
    fleet(dir, Shape::default(), 2, dice, move |ring, dice| {
        let wild = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.0, 0.0, 0.5, 1.0, f32::MIN_POSITIVE];
        let values: Vec<u8> = (0..12).flat_map(|_| dice.pick(&wild).to_le_bytes()).collect();
        let labels: Vec<u8> =
            (0..4).flat_map(|_| dice.pick(&[0, 1, -1, 3, i32::MAX, i32::MIN]).to_le_bytes()).collect();
        let pos = ring.pos;
        let mut payload = values.clone();
        payload.resize(64, 0);
        payload.extend(&values[..32]);
        payload.resize(128, 0);
        payload.extend(labels);
        ring.write(sections, 4, now_ns(), &payload, |_| {});
        for _ in 0..8 {
            let at = pos + wire::RECORD_HEADER + dice.below(36) * 4;
            ring.put(ring.data(at), &dice.pick(&wild).to_le_bytes());
        }
    })
}

fn dear_rows(dir: &Path, dice: Dice) -> Round {
    let shape = Shape {
        features: 64,
        kinds: vec![CATEGORICAL],
        feature_dtype: F16,
        reservoir_rows: 1000,
        capacity: 4 << 20,
        ..Shape::default()
    };
    // As dear to a build without optimizations as ten times as many to one with.
    let rows = if cfg!(debug_assertions) { 500 } else { 5000 };
    let codes: Vec<u8> = (0..rows * 64u32).flat_map(|i| (0x3C00 + (i * 7 % 9000) as u16).to_le_bytes()).collect();
    fleet(dir, shape, 4, dice, move |ring, _| {
        ring.write(section::FEATURES, rows, now_ns(), &codes, |_| {});
    })
}

fn locks(dir: &Path, _: Dice) -> Round {
    let rings: Vec<Forged> = (0..4).map(|i| Forged::new(dir, &format!("held.{i}.ring"), &Shape::default())).collect();
    for byte in [wire::LOCK_PRODUCER, wire::LOCK_CONSUMER] {
        let whence = libc::SEEK_SET as i16;
        let lock = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: whence, l_start: byte, l_len: 1, l_pid: 0 };
        rings.iter().for_each(|ring| {
            fcntl(&ring.file, FcntlArg::F_OFD_SETLK(&lock)).expect("nobody holds it");
        });
    }
    Box::new(move || rings.iter().for_each(|ring| ring.set_tail(ring.word(ring.id.producer_off) + 64)))
}

/// Names that would be lines of their own in a log that believes them. More than are looked at only once the honest ring is known: as
/// long as there are, a newcomer may not be seen.
fn many_names(dir: &Path, mut dice: Dice) -> Round {
    let (dir, honest) = (dir.to_owned(), dir.join("honest.0.ring"));
    let mut strike = move |i: u64| {
        let salt = dice.next();
        if i == 0 {
            names_of(&dir, "noise").iter().for_each(|path| remove(path));
        }
        fs::write(dir.join(format!("noise-{salt:x}\nforged\u{1b}[31m.{i}.ring")), [0; 300]).expect("memory is left");
    };
    (0..3900).for_each(&mut strike);
    let (mut round, mut begun) = (rounds_of(5000, strike), false);
    Box::new(move || {
        begun = begun || Snapshot::read(&honest).is_ok_and(|ring| ring.consumer_epoch > 0);
        if begun {
            round();
        } else {
            sleep(Duration::from_millis(1));
        }
    })
}

fn names_of(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it can be read").path());
    entries
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes())))
        .collect()
}

fn many_rings(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let mut strike = move |i: u64| {
        let shape = Shape { model: format!("model-{:x}", dice.next()), capacity: 1 << 14, ..Shape::default() };
        let mut ring = Forged::new(&dir, &format!("many.{i}.ring"), &shape);
        ring.write_sound(10);
    };
    (0..400).for_each(&mut strike);
    slow_rounds_of(400, strike)
}

fn instances(dir: &Path, mut dice: Dice) -> Round {
    let dir = dir.to_owned();
    let mut strike = move |i: u64| {
        let shape = Shape { instance: format!("{:0>250x}", dice.next()), capacity: 1 << 14, ..Shape::default() };
        let mut ring = Forged::new(&dir, &format!("many.{i}.ring"), &shape);
        ring.write_sound(10);
    };
    (0..60).for_each(&mut strike);
    slow_rounds_of(60, strike)
}

fn wide_schemas(dir: &Path, mut dice: Dice) -> Round {
    let (classes, features, capacity) = (4_000, 4_000, 1 << 18);
    let shape = Shape { classes, features, name_bytes: 255, capacity, reservoir_rows: 1, ..Shape::default() };
    let make = |i| Forged::new(dir, &format!("wide.{i}.ring"), &shape);
    let mut rings: Vec<Forged> = (0..60).map(make).collect();
    Box::new(move || {
        sleep(Duration::from_millis(1));
        rings[dice.below(60) as usize].write_sound(1);
    })
}

fn long_schemas(dir: &Path, _: Dice) -> Round {
    let shape = Shape { features: 200_000, name_bytes: 255, capacity: 1 << 22, ..Shape::default() };
    let ring = Forged::new(dir, "long.0.ring", &shape);
    let dir = dir.to_owned();
    let mut strike = move |i: u64| {
        let path = dir.join(format!("long.{}.ring", i + 1));
        let _ = fs::remove_file(&path);
        fs::copy(&ring.path, &path).expect("memory is left");
    };
    (0..8).for_each(&mut strike);
    slow_rounds_of(8, strike)
}

fn wishes(dir: &Path, mut dice: Dice) -> Round {
    let shape = |i: usize| Shape {
        model: if i == 0 { "hostile".into() } else { format!("wishful-{i}") },
        classes: 300,
        features: 300,
        name_bytes: 255,
        capacity: 1 << 18,
        period_ns: 1,
        reservoir_rows: 1,
        ..Shape::default()
    };
    let mut rings: Vec<Forged> = (0..4).map(|i| Forged::new(dir, &format!("wish.{i}.ring"), &shape(i))).collect();
    Box::new(move || {
        rings[dice.below(4) as usize].write_sound(1);
    })
}
