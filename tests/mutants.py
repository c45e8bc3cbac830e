"""Plants faults into the ring's two sides, one at a time, and shows which test finds each.

    mutants.py [WORD...]        only the faults whose description has one of the words

A copy of the tree is changed, never the tree. A fault whose place is not found exactly once, that does not build, or that no test
finds although nobody argues that it makes no difference, is an error.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "target" / "mutants" / "tree"
NOT_COPIED = {"target", ".git", "__pycache__", ".pytest_cache", "build"}
HANGS_AFTER = 120  # seconds: a test that never ends has found the fault, too

RING, RECIPE, PRODUCER = "producer-c/ring.c", "producer-c/recipe.c", "producer-c/producer.c"
CONSUMER = "sidecar/src/ring/consumer.rs"

STORE_TAIL = "atomic_store_explicit(&shared->tail, p->tail, memory_order_release);"

COPIES = (
    "copy_section(p, record, AT_PROBA, b->proba, b->proba_stride, first_row); "
    "copy_section(p, record, AT_FEATURES, b->features, b->features_stride, first_row); "
    "if (p->shape.sections >> AT_LABELS) copy_others(p, record, b, first_row); "
)

# What is wrong, where, the code as it is, the code with the fault.
IN_C = [
    ("tail stored relaxed", RING, STORE_TAIL, STORE_TAIL.replace("release", "relaxed")),
    ("head loaded relaxed", RING,
     "atomic_load_explicit(&p->consumer->head, memory_order_acquire)",
     "atomic_load_explicit(&p->consumer->head, memory_order_relaxed)"),
    ("published before the payload is there", RING,
     COPIES + "publish(p, &c);", "publish(p, &c);" + COPIES),
    ("tail stored before the counters", RING,
     "bump(&shared->records, 1); bump(&shared->rows, s->rows);",
     STORE_TAIL + "bump(&shared->records, 1); bump(&shared->rows, s->rows);"),
    ("numbered before it is counted", RING,
     "bump(&shared->records, 1);",
     "atomic_store_explicit(&shared->next_seq, p->next_seq, memory_order_relaxed); bump(&shared->records, 1);"),
    ("any head is believed", RING,
     "if (head - p->cached_head <= p->tail - p->cached_head && head % MLW_ALIGN == 0)", "if (1)"),
    ("a head that is not aligned is believed", RING, "&& head % MLW_ALIGN == 0)", ")"),
    ("a head that goes back is believed", RING,
     "head - p->cached_head <= p->tail - p->cached_head", "p->tail - head <= p->capacity"),
    ("padding takes no room", RING, "has_room(p, c->padding + p->shape.len)", "has_room(p, p->shape.len)"),
    ("a record may run over the end of a lap", RING,
     "p->shape.len > rest_of_lap)", "p->shape.len > rest_of_lap + MLW_ALIGN)"),
    ("a claim may be one unit too long", RING,
     "refresh_head(p); return need <= p->capacity - (p->tail - p->cached_head);",
     "refresh_head(p); return need <= p->capacity + MLW_ALIGN - (p->tail - p->cached_head);"),
    ("the last free unit is not used", RING,
     "refresh_head(p); return need <=", "refresh_head(p); return need <"),
    ("the head is looked at once and never again", RING,
     "refresh_head(p); return", "if (p->cached_head == 0) { refresh_head(p); } return"),
    ("the record lies where its padding should", RING, "c->pos = p->tail + c->padding;", "c->pos = p->tail;"),
    ("padding has no header", RING, "if (unlikely(c->padding))", "if (0)"),
    ("padding says it is where its record is", RING, 
     "mlw_crc32c_header_start(start), p->tail,", "mlw_crc32c_header_start(start), p->tail + len,"),
    ("a drop takes no number", RING, "count_drop(p, why, rows); p->next_seq++;", "count_drop(p, why, rows);"),
    ("a drop's number stays private", RING,
     "p->next_seq++; atomic_store_explicit(&page(p)->next_seq, p->next_seq, memory_order_relaxed); }",
     "p->next_seq++; }"),
    ("a drop counts as one row", RING,
     "bump(&page(p)->dropped_rows[why], rows);", "(void)rows; bump(&page(p)->dropped_rows[why], 1);"),
    ("a discarded record is published", RING, "if (visible) publish(p, &p->claim);", "(void)visible; publish(p, &p->claim);"),
    ("a reservation does not hold the handle", RING,
     "p->reserved = 1; }", "p->reserved = 1; leave(p); }"),
    ("a shape serves any number of rows", RING,
     "return p->shape.rows == rows && p->shape.sections == sections;", "(void)rows; return p->shape.rows && p->shape.sections == sections;"),
    ("a shape serves any sections", RING,
     "return p->shape.rows == rows && p->shape.sections == sections;", "(void)sections; return p->shape.rows == rows;"),
    ("a section lies where the one before it does", RING,
     "s->at[i] = (uint32_t)(sizeof(struct mlw_record) + at[i]);", "s->at[i] = (uint32_t)(sizeof(struct mlw_record) + at[i ? i - 1 : 0]);"),
    ("a forked child keeps its parent's shape", PRODUCER, "p->shape.rows = 0;", ""),
    ("segments are not copied", RING,
     "copy_section(p, record, AT_SEGMENTS, b->segments, b->segments_stride, first_row);", "(void)first_row;"),
    ("a batch that ends before its segments has them", RING, "b->size >= sizeof *b && b->segments != NULL", "b->segments != NULL"),
    ("a reservation that ends before its segments has them", RING, "if (likely(r->size >= sizeof *r))", "if (1)"),
    ("segments are reserved for who cannot be told where", RING,
     "|| (r->sections >> AT_SEGMENTS != 0 && r->size < sizeof *r)", ""),
    ("records have segments whatever the schema says", RECIPE,
     "o->segment_by == MLW_SEGMENT_BY_ROW ? sizeof(uint16_t) : 0", "sizeof(uint16_t)"),
    ("segments alone are a record", RECIPE, "~(uint32_t)(MLW_IDS | MLW_SEGMENTS)", "~(uint32_t)MLW_IDS"),
    ("a reader need not know of segments", RECIPE, "o->segment_by == MLW_SEGMENT_BY_ROW ? MLW_NEEDS_SEGMENTS : 0", "0"),
    ("a reader need not know of embeddings", RECIPE, "kind_of(o, i) == MLW_EMBEDDING ? MLW_NEEDS_EMBEDDINGS : 0", "0"),
    ("segments are by any kind of feature", RECIPE, "kind_of(o, o->segment_by - 1) != MLW_CATEGORICAL", "0"),
    ("segments are by an embedding, too", RECIPE,
     "kind_of(o, o->segment_by - 1) != MLW_CATEGORICAL", "kind_of(o, o->segment_by - 1) < MLW_CATEGORICAL"),
    ("segments are by a feature that is not there", RECIPE, "o->segment_by > o->n_features", "0"),
    ("an unknown kind of feature is taken", RECIPE, "kind_of(o, i) > MLW_EMBEDDING", "0"),
    ("entering looks and then takes", RING,
     "unlikely(atomic_exchange_explicit(&p->busy, 1, memory_order_acquire))",
     "unlikely(atomic_load_explicit(&p->busy, memory_order_acquire)) "
     "|| (atomic_store_explicit(&p->busy, 1, memory_order_relaxed), 0)"),
    ("entering is relaxed", RING,
     "atomic_exchange_explicit(&p->busy, 1, memory_order_acquire)",
     "atomic_exchange_explicit(&p->busy, 1, memory_order_relaxed)"),
    ("leaving is relaxed", RING,
     "atomic_store_explicit(&p->busy, 0, memory_order_release)",
     "atomic_store_explicit(&p->busy, 0, memory_order_relaxed)"),
    ("a dead producer's number is not made up for", PRODUCER,
     "return counted == next + 1 ? counted : next;", "(void)counted; return next;"),
    ("an adopted ring is begun anew", PRODUCER,
     "p->tail = atomic_load_explicit(&page->tail, memory_order_relaxed);", "p->tail = 0;"),
]

EACH = "each(self.shape.batch(&record, payload));"
RELEASE = "self.at.store(&self.area.consumed()[self.slot]);"
STORE_HEAD = "self.area.head().store(self.at.head, Release);"

IN_RUST = [
    ("tail loaded relaxed", CONSUMER,
     "(self.at.head, self.area.tail().load(Acquire))", "(self.at.head, self.area.tail().load(Relaxed))"),
    ("head stored relaxed", CONSUMER, STORE_HEAD, STORE_HEAD.replace("Release", "Relaxed")),
    ("given back before it is read", CONSUMER, EACH,
     "self.area.head().store(self.at.head + u64::from(record.rec_len), Release);" + EACH),
    ("a mark's head is stored last", CONSUMER,
     "words.head.store(self.head, Release); words.records.store(self.records, Release); "
     "words.rows.store(self.rows, Release); words.next_seq.store(self.next_seq, Release);",
     "words.records.store(self.records, Release); words.rows.store(self.rows, Release); "
     "words.next_seq.store(self.next_seq, Release); words.head.store(self.head, Release);"),
    ("a mark's next_seq is relaxed", CONSUMER,
     "words.next_seq.store(self.next_seq, Release);", "words.next_seq.store(self.next_seq, Relaxed);"),
    ("one mark is used over and over", CONSUMER, "self.slot ^= 1;", ""),
    ("head is stored before its mark", CONSUMER, RELEASE, STORE_HEAD + RELEASE),
    ("no mark is written", CONSUMER, RELEASE, ""),
    ("any checksum will do", CONSUMER, "if record.crc != record.expected_crc()", "if false"),
    ("a stale lap passes", CONSUMER, "if record.pos != pos", "if false"),
    ("a record may end behind the tail", CONSUMER,
     "rest_of_lap.min(tail - pos).min(longest)", "rest_of_lap.min(longest)"),
    ("a record may be half the ring", CONSUMER,
     "rest_of_lap.min(tail - pos).min(longest)", "rest_of_lap.min(tail - pos).min(2 * longest)"),
    ("a record may run over the end of a lap", CONSUMER,
     "rest_of_lap.min(tail - pos).min(longest)", "longest.min(tail - pos)"),
    ("a length may be any", CONSUMER, "|| !rec_len.is_multiple_of(wire::ALIGN)", ""),
    ("padding may stand anywhere", CONSUMER, "wire::KIND_PADDING if rec_len == rest_of_lap", "wire::KIND_PADDING"),
    ("a number may come twice", CONSUMER, "None if self.inherited => 0,", "None if self.inherited || true => 0,"),
    ("a record may have no rows", CONSUMER, "rows > 0 && need ==", "need =="),
    ("two truths at once", CONSUMER, "|| truth.count_ones() > 1", "|| truth.count_ones() > 2"),
    ("the header is read again for its length", CONSUMER,
     "wire::RECORD_HEADER, record.payload_len.into());",
     "wire::RECORD_HEADER, self.area.record(self.at.head).payload_len.into());"),
    ("segments are read where the ids are", CONSUMER, "segments: bytes(section::SEGMENTS)", "segments: bytes(section::IDS)"),
    ("the header is read again for its sections", CONSUMER, EACH,
     "each(self.shape.batch(&self.area.record(self.at.head), payload));"),
    ("the tail is read again", CONSUMER,
     "polled.used = tail - self.at.head;", "polled.used = self.area.tail().load(Acquire) - self.at.head;"),
    ("any tail is believed", CONSUMER, "tail >= head && tail - head <= self.area.capacity() &&", "tail >= head &&"),
    ("a tail that is not aligned is believed", CONSUMER, "(head | tail).is_multiple_of(wire::ALIGN)", "true"),
    ("a resync stops where the tail says", CONSUMER,
     "self.area.tail().load(Acquire) & !(wire::ALIGN - 1)", "self.area.tail().load(Acquire)"),
    ("a resync keeps what it gave up", CONSUMER,
     "& !(wire::ALIGN - 1); self.release();", "& !(wire::ALIGN - 1);"),
    ("a new consumer loads head relaxed", CONSUMER,
     "let head = area.head().load(Acquire);", "let head = area.head().load(Relaxed);"),
]

# Faults that make no difference, and why.
ARGUED = {
    "a length may be any": "data is as long as its sections, padding as the rest of its lap: both are multiples of 64",
    "a new consumer loads head relaxed": "the lock orders it: the last consumer's stores are before its release, by the kernel",
}


def run(command, timeout=None, **more):
    return subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=timeout, **more)


def built(command):
    result = run(command)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed, so nothing was proved:\n{result.stdout}{result.stderr}")


def fails(command, **more):
    """How it fails, if it does."""
    try:
        return "fails" if run(command, HANGS_AFTER, **more).returncode else ""
    except subprocess.TimeoutExpired:
        return "hangs"


def c_test(program):
    """A program of tests/c, with a ring directory of its own."""

    def test():
        built(["make", "-s", f"target/c/{program}"])
        with tempfile.TemporaryDirectory(dir="/dev/shm") as rings:
            options = {"TSAN_OPTIONS": "halt_on_error=1 report_thread_leaks=0 die_after_fork=0", "PATH": "/usr/bin:/bin"}
            return fails([f"target/c/{program}", rings], env=options)

    return test


def rust_test(name):
    def test():
        built(["make", "-s", "lib"])
        built(["cargo", "test", "--locked", "-q", "--no-run", "--test", name])
        return fails(["cargo", "test", "--locked", "-q", "--test", name])

    return test


C_TESTS = {
    "exhaustive": c_test("exhaustive"),
    "race": c_test("race.tsan"),
    "threads": c_test("producer_test.tsan"),
    "stepped": rust_test("stepped"),
}
RUST_TESTS = {name: rust_test(name) for name in ("loom", "killed_consumer", "hostile_bytes")}


def copy_tree():
    """Files that are the same keep their time, so that little is built again."""
    for source in ROOT.rglob("*"):
        inside = source.relative_to(ROOT)
        if NOT_COPIED & set(inside.parts) or not source.is_file():
            continue
        target = TREE / inside
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def plant(text, before, after, what):
    """`before` is found however it is laid out."""
    tokens = re.findall(r"\w+|[^\w\s]", before)
    places = re.findall(r"\s*".join(map(re.escape, tokens)), text)
    if len(places) != 1:
        sys.exit(f"{what}: its place was found {len(places)} times: bring tests/mutants.py up to date")
    return text.replace(places[0], after)


def finders(fault, tests):
    what, file, before, after = fault
    original = (ROOT / file).read_text()
    (TREE / file).write_text(plant(original, before, after, f"{file}, {what}"))
    try:
        found = [(name, test()) for name, test in tests.items()]
        return [name if how == "fails" else f"{name} ({how})" for name, how in found if how]
    finally:
        (TREE / file).write_text(original)


def try_all(side, faults, tests, words):
    faults = [fault for fault in faults if not words or any(word in fault[0] for word in words)]
    broken = [name for name, test in tests.items() if faults and test()]
    if broken:
        sys.exit(f"without any fault {', '.join(broken)} fails")
    unexplained = []
    for fault in faults:
        begun = time.monotonic()
        names = finders(fault, tests)
        verdict = ", ".join(names) or f"none: {ARGUED.get(fault[0], 'SURVIVES')}"
        print(f"{side:<9}{fault[0]:<53}{verdict}  ({time.monotonic() - begun:.0f} s)", flush=True)
        unexplained += [] if names or fault[0] in ARGUED else [fault[0]]
    print(f"{len(faults)} faults planted in the {side}, {len(unexplained)} not found", flush=True)
    return unexplained


def main():
    copy_tree()
    words = sys.argv[1:]
    unexplained = try_all("producer", IN_C, C_TESTS, words) + try_all("consumer", IN_RUST, RUST_TESTS, words)
    sys.exit(f"not found: {'; '.join(unexplained)}" if unexplained else 0)


if __name__ == "__main__":
    main()
