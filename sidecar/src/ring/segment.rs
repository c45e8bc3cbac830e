//! A ring file: distrusted, then mapped.
//!
//! Meanwhile the producer may append records and count, and a hostile one may do anything to the file at any time.
//! What is trusted after [`Segment::open`] is only what was copied to the heap and checked: identity and schema.

use super::consumer::{Area, Consumed};
use super::discovery::Found;
use super::fault::Guard;
use super::schema::{Schema, SchemaError};
use super::wire::{self, ConsumedWords, ConsumerPage, Identity, ProducerPage, Record, SchemaHead};
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use thiserror::Error;

/// What one ring may ask for at most.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct AtMost {
    pub file_bytes: u64,
    pub classes: usize,
    pub features: usize,
}

impl AtMost {
    /// As many columns as the format allows.
    fn bytes(file_bytes: u64) -> AtMost {
        AtMost { file_bytes, classes: wire::MAX_CLASSES as usize, features: wire::MAX_FEATURES as usize }
    }
}

/// Why a file is not read as a ring.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum OpenError {
    #[error("cannot open it as uid {uid} gid {gid}: {source}; producer and sidecar need a common user or group", uid = nix::unistd::geteuid(), gid = nix::unistd::getegid())]
    Permission { source: io::Error },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it does not begin with MLWRING1: not a ring file")]
    NotARing,
    #[error("it has format {major}.{minor}, this sidecar reads {}.x: upgrade the older side", wire::ABI_MAJOR)]
    Version { major: u16, minor: u16 },
    #[error("it needs features {0:#x} that this sidecar does not know: upgrade the sidecar")]
    Features(u64),
    #[error("its geometry is unsound: {0}")]
    Geometry(&'static str),
    #[error("its checksum is {found:#010x}, the header says {expected:#010x}: damaged or not finished")]
    Checksum { found: u32, expected: u32 },
    #[error("its schema is unsound: {0}")]
    Schema(#[from] SchemaError),
    #[error("it takes {bytes} bytes, at most {limit}: raise limits.max_ring_bytes or lower the producer's ring_bytes")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("it has {columns} {what}, at most {most}: raise limits.max_{what}")]
    TooWide { what: &'static str, columns: u32, most: usize },
    #[error("another sidecar reads it: run one sidecar per ring directory")]
    InUse,
    #[error("its name leads to another file than a moment ago")]
    Moved,
    /// Sound, but the sidecar will not take it.
    #[error("{why}")]
    Limit { limit: &'static str, why: String },
}

impl OpenError {
    /// One word for a counter.
    pub fn reason(&self) -> &'static str {
        match self {
            OpenError::Permission { .. } => "permission",
            OpenError::Io(_) => "io",
            OpenError::NotAFile => "not_a_file",
            OpenError::NotARing => "not_a_ring",
            OpenError::Version { .. } => "version",
            OpenError::Features(_) => "features",
            OpenError::Geometry(_) => "geometry",
            OpenError::Checksum { .. } => "checksum",
            OpenError::Schema(_) => "schema",
            OpenError::TooLarge { .. } => "max_ring_bytes",
            OpenError::TooWide { what: "classes", .. } => "max_classes",
            OpenError::TooWide { .. } => "max_features",
            OpenError::InUse => "in_use",
            OpenError::Moved => "moved",
            OpenError::Limit { limit, .. } => limit,
        }
    }
}

/// The producer's counters at one moment. Plain data: the producer may claim anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/wire-format.md documents each field")]
pub struct Counters {
    pub records: u64,
    pub rows: u64,
    pub bytes: u64,
    pub next_seq: u64,
    pub dropped_records: [u64; wire::DROP_REASONS],
    pub dropped_rows: [u64; wire::DROP_REASONS],
}

impl Counters {
    fn load(page: &ProducerPage) -> Counters {
        Counters {
            records: page.records.load(Relaxed),
            rows: page.rows.load(Relaxed),
            bytes: page.bytes.load(Relaxed),
            next_seq: page.next_seq.load(Relaxed),
            dropped_records: load_all(&page.dropped_records),
            dropped_rows: load_all(&page.dropped_rows),
        }
    }
}

fn load_all(counters: &[AtomicU64; wire::DROP_REASONS]) -> [u64; wire::DROP_REASONS] {
    std::array::from_fn(|i| counters[i].load(Relaxed))
}

/// A mapped ring, locked for this consumer until dropped.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    /// Open as long as the lock is to be held.
    file: File,
    identity: Identity,
    /// Until it is taken.
    schema: Option<Schema>,
    /// Before the maps: guards are dropped first.
    guards: [Guard; 2],
    /// The whole file, read-only.
    map: MmapRaw,
    /// Region C alone, writable.
    consumer_page: MmapRaw,
}

// SAFETY: the maps are owned by the segment and unmapped with it; all shared access to them is atomic or read-only.
unsafe impl Send for Segment {}

impl Segment {
    /// Checks everything that can be checked, locks the ring for this consumer, and maps it.
    /// `max_file_bytes` bounds what one ring may ask for.
    pub fn open(path: &Path, max_file_bytes: u64) -> Result<Segment, OpenError> {
        Segment::of(open_file(path, true)?, path, AtMost::bytes(max_file_bytes), |_, _| Ok(()))
    }

    /// As `open`, but only if the name still leads to the file that was found, and if `accept` finds nothing against it before it
    /// is locked and mapped.
    pub fn open_found(
        found: &Found,
        most: AtMost,
        accept: impl FnOnce(&Identity, &Schema) -> Result<(), OpenError>,
    ) -> Result<Segment, OpenError> {
        let file = open_file(&found.path, true)?;
        let now = file.metadata()?;
        if (now.dev(), now.ino()) != found.file {
            return Err(OpenError::Moved);
        }
        Segment::of(file, &found.path, most, accept)
    }

    fn of(
        file: File,
        path: &Path,
        most: AtMost,
        accept: impl FnOnce(&Identity, &Schema) -> Result<(), OpenError>,
    ) -> Result<Segment, OpenError> {
        let (identity, schema) = read_identity(&file, most)?;
        accept(&identity, &schema)?;
        lock_as_consumer(&file)?;
        let map = MmapOptions::new().map_raw_read_only(&file)?;
        let consumer_page =
            MmapOptions::new().offset(identity.consumer_off).len(identity.page_size as usize).map_raw(&file)?;
        if map.len() as u64 != identity.file_len {
            return Err(OpenError::Geometry("the file changed its size while it was opened"));
        }
        let guards = [
            Guard::new(map.as_mut_ptr(), map.len(), false)?,
            Guard::new(consumer_page.as_mut_ptr(), consumer_page.len(), true)?,
        ];
        let (path, schema) = (path.to_owned(), Some(schema));
        let segment = Segment { path, file, identity, schema, guards, map, consumer_page };
        segment.consumer().consumer_epoch.fetch_add(1, Relaxed);
        Ok(segment)
    }

    /// Where the ring was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checked identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The checked schema.
    pub fn schema(&self) -> &Schema {
        self.schema.as_ref().expect("nobody asks once it is taken")
    }

    /// Hands the schema over, once: of many rings of one wide model, each would else keep all the names.
    pub fn take_schema(&mut self) -> Schema {
        self.schema.take().expect("it is taken once")
    }

    /// The producer's counters now.
    pub fn counters(&self) -> Counters {
        Counters::load(self.producer())
    }

    /// The producer's position, untrusted.
    pub fn position(&self) -> u64 {
        self.producer().tail.load(Relaxed)
    }

    /// Whether a page was gone when it was read: what was read since then is zeros.
    pub fn faulted(&self) -> bool {
        self.guards.iter().any(Guard::faulted)
    }

    /// Whether the file still has the size it was mapped with.
    pub fn has_its_size(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.size() == self.identity.file_len)
    }

    /// Whether a process holds the producer's lock.
    pub fn producer_attached(&self) -> bool {
        is_locked(&self.file, wire::LOCK_PRODUCER)
    }

    /// The time stamp of its newest record, or when it attached. Whatever the producer says.
    pub fn producer_heartbeat_ns(&self) -> u64 {
        self.producer().heartbeat_ns.load(Relaxed)
    }

    /// What stood in reports when a sidecar last stopped in good order: how far it had read, and the drop counters.
    pub fn accounted(&self) -> (Consumed, Counters) {
        let page = self.consumer();
        let dropped = Counters {
            dropped_records: load_all(&page.accounted_dropped_records),
            dropped_rows: load_all(&page.accounted_dropped_rows),
            ..Counters::default()
        };
        (Consumed::load(&page.accounted), dropped)
    }

    /// Remembers it for the next sidecar.
    pub fn set_accounted(&self, consumed: &Consumed, dropped: &Counters) {
        let page = self.consumer();
        for i in 0..wire::DROP_REASONS {
            page.accounted_dropped_records[i].store(dropped.dropped_records[i], Relaxed);
            page.accounted_dropped_rows[i].store(dropped.dropped_rows[i], Relaxed);
        }
        consumed.store(&page.accounted);
    }

    /// Tells whoever looks that the sidecar is alive.
    pub fn beat(&self, now_ns: u64) {
        self.consumer().heartbeat_ns.store(now_ns, Relaxed);
    }

    /// Counts a resync, and marks the ring so that its producer makes a new one.
    pub fn mark_corrupt(&self, quarantine: bool) {
        self.consumer().resyncs.fetch_add(1, Relaxed);
        self.consumer().quarantined.fetch_or(u64::from(quarantine), Relaxed);
    }

    /// An earlier sidecar found the ring corrupt too often.
    pub fn quarantined(&self) -> bool {
        self.consumer().quarantined.load(Relaxed) != 0
    }

    /// Unlinks the file if its producer is gone for good and nothing in it will be read any more. Holding the producer's lock
    /// meanwhile keeps a new one from attaching.
    pub fn unlink_if_abandoned(&self) -> io::Result<bool> {
        if !self.is_spent() || !set_lock(&self.file, libc::F_WRLCK, wire::LOCK_PRODUCER)? {
            return Ok(false);
        }
        // Looked at again under the lock: a producer may have come and gone.
        let spent = self.is_spent();
        let named = std::fs::symlink_metadata(&self.path).is_ok_and(|now| same_file(&now, &self.file));
        let removed = if spent && named { std::fs::remove_file(&self.path).map(|()| true) } else { Ok(false) };
        // Also when it could not be removed, or no producer could ever take the ring again.
        set_lock(&self.file, libc::F_UNLCK, wire::LOCK_PRODUCER)?;
        removed
    }

    fn is_spent(&self) -> bool {
        self.quarantined() || self.tail().load(Relaxed) == self.head().load(Relaxed)
    }

    fn producer(&self) -> &ProducerPage {
        // SAFETY: the region is a page that starts page-aligned inside the map (checked by `check_geometry`), at least 4096 bytes
        // long, and lives as long as `self`. All fields are atomics or padding nobody reads; loads work on read-only pages.
        unsafe { &*self.map.as_ptr().add(self.identity.producer_off as usize).cast() }
    }

    fn consumer(&self) -> &ConsumerPage {
        // SAFETY: as for `producer`; this map starts at the region and is writable.
        unsafe { &*self.consumer_page.as_ptr().cast() }
    }

    fn data(&self, pos: u64, len: u64) -> *const u8 {
        let offset = pos & (self.identity.capacity - 1);
        assert!(len <= self.identity.capacity - offset, "the consumer checks lengths before it reads");
        // SAFETY: data_off + capacity == file_len == the map's length, and offset < capacity.
        unsafe { self.map.as_ptr().add((self.identity.data_off + offset) as usize) }
    }
}

impl Area for Segment {
    type Word = AtomicU64;

    fn capacity(&self) -> u64 {
        self.identity.capacity
    }

    fn tail(&self) -> &AtomicU64 {
        &self.producer().tail
    }

    fn head(&self) -> &AtomicU64 {
        &self.consumer().head
    }

    fn consumed(&self) -> &[ConsumedWords<AtomicU64>; 2] {
        &self.consumer().consumed
    }

    fn record(&self, pos: u64) -> Record {
        let at = self.data(pos, wire::RECORD_HEADER).cast::<[u64; 8]>();
        // SAFETY: 64 bytes inside the map (checked by `data`), 8-aligned because positions are multiples of 64 and data_off of a
        // page. Volatile: the bytes may change under us, and the copy must be read once and never again.
        bytemuck::must_cast(unsafe { at.read_volatile() })
    }

    fn payload(&self, pos: u64, len: u64) -> &[u8] {
        let at = self.data(pos, len);
        // SAFETY: `len` bytes inside the map (checked by `data`), mapped as long as `self` lives, initialised by the kernel.
        // An honest producer does not write to [head, tail). A hostile one can, and then the values read are arbitrary: they are
        // numbers for statistics, every bit pattern is valid, and whatever becomes an index is loaded once and checked.
        unsafe { std::slice::from_raw_parts(at, len as usize) }
    }
}

/* ---- distrust ---- */

fn open_file(path: &Path, write: bool) -> Result<File, OpenError> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits();
    let file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path).map_err(|source| {
        match (source.kind(), source.raw_os_error()) {
            (io::ErrorKind::PermissionDenied, _) => OpenError::Permission { source },
            (_, Some(libc::ELOOP | libc::EISDIR | libc::ENXIO)) => OpenError::NotAFile,
            _ => OpenError::Io(source),
        }
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(OpenError::NotAFile) }
}

fn read_identity(file: &File, most: AtMost) -> Result<(Identity, Schema), OpenError> {
    let mut bytes = [0; size_of::<Identity>()];
    let size = file.metadata()?.size();
    if size < bytes.len() as u64 {
        return Err(OpenError::NotARing);
    }
    file.read_exact_at(&mut bytes, 0)?;
    let identity: Identity = bytemuck::pod_read_unaligned(&bytes);
    check_identity(&identity)?;
    if size > most.file_bytes {
        return Err(OpenError::TooLarge { bytes: size, limit: most.file_bytes });
    }
    check_geometry(&identity, size)?;
    check_columns(file, &identity, most)?;
    let mut schema = vec![0; identity.schema_len as usize];
    file.read_exact_at(&mut schema, bytes.len() as u64)?;
    let found = crc32c::crc32c_append(crc32c::crc32c(&bytes[..bytes.len() - 4]), &schema);
    if found != identity.crc {
        return Err(OpenError::Checksum { found, expected: identity.crc });
    }
    let schema = Schema::parse(&schema)?;
    check_row_fits(&identity, &schema)?;
    Ok((identity, schema))
}

fn check_identity(id: &Identity) -> Result<(), OpenError> {
    if id.magic != wire::MAGIC {
        return Err(OpenError::NotARing);
    }
    if id.endian_tag != wire::ENDIAN_TAG {
        return Err(OpenError::Geometry("it was written on a machine of the other byte order"));
    }
    if id.abi_major != wire::ABI_MAJOR {
        return Err(OpenError::Version { major: id.abi_major, minor: id.abi_minor });
    }
    let unknown = id.feat_incompat & !wire::KNOWN_NEEDS;
    if unknown != 0 {
        return Err(OpenError::Features(unknown));
    }
    Ok(())
}

/// Before the schema is read: what it takes in memory follows from the number of its columns.
fn check_columns(file: &File, id: &Identity, most: AtMost) -> Result<(), OpenError> {
    let mut bytes = [0; size_of::<SchemaHead>()];
    if (id.schema_len as usize) < bytes.len() {
        return Err(OpenError::Geometry("the schema is shorter than its head"));
    }
    file.read_exact_at(&mut bytes, size_of::<Identity>() as u64)?;
    let head: SchemaHead = bytemuck::pod_read_unaligned(&bytes);
    for (what, columns, most) in
        [("classes", head.n_classes, most.classes), ("features", head.n_features, most.features)]
    {
        if columns as usize > most {
            return Err(OpenError::TooWide { what, columns, most });
        }
    }
    let longest = size_of::<SchemaHead>() as u64
        + u64::from(head.n_features)
        + (3 + u64::from(head.n_classes) + u64::from(head.n_features)) * (2 + wire::MAX_NAME as u64);
    let possible = u64::from(id.schema_len) <= longest;
    if possible { Ok(()) } else { Err(OpenError::Geometry("the schema is longer than its columns can make it")) }
}

/// After this, all offsets are page-aligned, ascending and inside the file, and no arithmetic on them can overflow.
fn check_geometry(id: &Identity, size: u64) -> Result<(), OpenError> {
    let page = u64::from(id.page_size);
    let sound = |holds: bool, what| if holds { Ok(()) } else { Err(OpenError::Geometry(what)) };
    sound(id.header_len as usize == size_of::<Identity>(), "header_len is not 256")?;
    sound(
        page.is_power_of_two() && (4096..=65536).contains(&page),
        "page_size is not a power of two from 4096 to 65536",
    )?;
    let capacity = wire::MIN_CAPACITY.max(page)..=wire::MAX_CAPACITY;
    sound(
        id.capacity.is_power_of_two() && capacity.contains(&id.capacity),
        "capacity is not a power of two from 16 KiB to 8 GiB",
    )?;
    sound(u64::from(id.record_align) == wire::ALIGN, "record_align is not 64")?;
    sound(id.max_record == id.capacity / wire::RECORDS_PER_LAP, "max_record is not capacity / 4")?;
    let producer_off = (size_of::<Identity>() as u64 + u64::from(id.schema_len)).next_multiple_of(page);
    sound(id.producer_off == producer_off, "producer_off does not follow the schema")?;
    sound(id.consumer_off == producer_off + page, "consumer_off does not follow the producer's page")?;
    sound(id.data_off == producer_off + 2 * page, "data_off does not follow the consumer's page")?;
    sound(id.file_len == id.data_off + id.capacity, "file_len is not data_off + capacity")?;
    sound(id.file_len == size, "the file does not have the size its header states")
}

fn check_row_fits(id: &Identity, schema: &Schema) -> Result<(), OpenError> {
    let sections = (0..6).filter_map(|bit| schema.row_bytes(1 << bit));
    let row: u64 = sections.map(|bytes| bytes.next_multiple_of(wire::ALIGN)).sum::<u64>() + wire::RECORD_HEADER;
    if row <= id.max_record { Ok(()) } else { Err(OpenError::Geometry("one row does not fit into a record")) }
}

fn same_file(now: &std::fs::Metadata, file: &File) -> bool {
    file.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (now.dev(), now.ino()))
}

/* ---- locks: of the open file, so that closing another descriptor of it drops none; see docs/wire-format.md ---- */

fn lock_request(kind: i32, byte: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: byte, l_len: 1, l_pid: 0 }
}

/// Sets or clears; `false` if somebody else holds it.
fn set_lock(file: &File, kind: i32, byte: i64) -> io::Result<bool> {
    let request = lock_request(kind, byte);
    let mut result = fcntl(file, FcntlArg::F_OFD_SETLK(&request));
    if result == Err(Errno::EINVAL) {
        result = fcntl(file, FcntlArg::F_SETLK(&request));
    }
    match result {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

fn lock_as_consumer(file: &File) -> Result<(), OpenError> {
    if set_lock(file, libc::F_WRLCK, wire::LOCK_CONSUMER)? { Ok(()) } else { Err(OpenError::InUse) }
}

fn is_locked(file: &File, byte: i64) -> bool {
    let mut request = lock_request(libc::F_WRLCK, byte);
    let mut result = fcntl(file, FcntlArg::F_OFD_GETLK(&mut request));
    if result == Err(Errno::EINVAL) {
        result = fcntl(file, FcntlArg::F_GETLK(&mut request));
    }
    result.is_ok() && i32::from(request.l_type) != libc::F_UNLCK
}

/* ---- looking without touching ---- */

/// A ring as `mlwatch inspect` shows it: read with `pread`, neither mapped, locked nor changed.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/wire-format.md documents each field")]
pub struct Snapshot {
    pub path: PathBuf,
    pub format: String,
    pub uuid: String,
    pub created_ns: u64,
    pub creator_pid: u32,
    pub creator_uid: u32,
    pub file_bytes: u64,
    pub capacity: u64,
    pub max_record: u64,
    pub schema: Schema,
    pub head: u64,
    pub tail: u64,
    /// Bytes between head and tail; `None` if the positions are unsound.
    pub used: Option<u64>,
    pub producer_attached: bool,
    pub producer_epoch: u64,
    pub producer_heartbeat_ns: u64,
    pub closed: bool,
    pub consumer_attached: bool,
    pub consumer_epoch: u64,
    pub consumer_heartbeat_ns: u64,
    pub resyncs: u64,
    pub quarantined: bool,
    pub counters: Counters,
}

impl Snapshot {
    /// Reads the ring file at `path`.
    pub fn read(path: &Path) -> Result<Snapshot, OpenError> {
        let file = open_file(path, false)?;
        let (id, schema) = read_identity(&file, AtMost::bytes(u64::MAX))?;
        let producer: ProducerPage = read_page(&file, id.producer_off)?;
        let consumer: ConsumerPage = read_page(&file, id.consumer_off)?;
        let (head, tail) = (consumer.head.into_inner(), producer.tail.load(Relaxed));
        let used = tail.wrapping_sub(head);
        Ok(Snapshot {
            path: path.to_owned(),
            format: format!("{}.{}", id.abi_major, id.abi_minor),
            uuid: id.uuid.iter().map(|byte| format!("{byte:02x}")).collect(),
            created_ns: id.created_ns,
            creator_pid: id.creator_pid,
            creator_uid: id.creator_uid,
            file_bytes: id.file_len,
            capacity: id.capacity,
            max_record: id.max_record,
            schema,
            head,
            tail,
            used: (used <= id.capacity).then_some(used),
            producer_attached: is_locked(&file, wire::LOCK_PRODUCER),
            producer_epoch: producer.attach_epoch.load(Relaxed),
            producer_heartbeat_ns: producer.heartbeat_ns.load(Relaxed),
            closed: producer.state.load(Relaxed) == wire::STATE_CLOSED,
            consumer_attached: is_locked(&file, wire::LOCK_CONSUMER),
            consumer_epoch: consumer.consumer_epoch.into_inner(),
            consumer_heartbeat_ns: consumer.heartbeat_ns.into_inner(),
            resyncs: consumer.resyncs.into_inner(),
            quarantined: consumer.quarantined.into_inner() != 0,
            counters: Counters::load(&producer),
        })
    }
}

/// The two pages: only atomics and bytes.
trait Page {}
impl Page for ProducerPage {}
impl Page for ConsumerPage {}

fn read_page<P: Page>(file: &File, at: u64) -> io::Result<P> {
    let mut page = std::mem::MaybeUninit::<P>::zeroed();
    // SAFETY: the memory is initialised (zeroed), `size_of::<P>()` bytes long and borrowed only here.
    let bytes = unsafe { std::slice::from_raw_parts_mut(page.as_mut_ptr().cast::<u8>(), size_of::<P>()) };
    file.read_exact_at(bytes, at)?;
    // SAFETY: `Page` types consist of AtomicU64 and u8, for which every bit pattern is valid.
    Ok(unsafe { page.assume_init() })
}
