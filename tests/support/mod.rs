//! The C producer as a Rust test sees it: the real `libmlwatch.so`, through its exported symbols.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod conservation;
pub mod schema;
pub mod sidecar;

use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

pub const F16: u32 = 1;
pub const BF16: u32 = 2;
pub const F32: u32 = 3;
pub const F64: u32 = 4;
pub const CLASSIFICATION: u32 = 1;
pub const REGRESSION: u32 = 2;

/// `mlw_options`, field by field.
#[repr(C)]
pub struct RawOptions {
    pub size: usize,
    pub model: *const c_char,
    pub version: *const c_char,
    pub instance: *const c_char,
    pub task: u32,
    pub flags: u32,
    pub n_classes: u32,
    pub n_features: u32,
    pub proba_dtype: u32,
    pub feature_dtype: u32,
    pub class_names: *const *const c_char,
    pub feature_names: *const *const c_char,
    pub feature_kinds: *const u8,
    pub threshold: f64,
    pub period_ns: u64,
    pub reservoir_rows: u64,
    pub dir: *const c_char,
    pub ring_bytes: u64,
    pub error: *mut c_char,
    pub error_size: usize,
    pub segment_by: u32,
    pub reserved: u32,
}

/// `mlw_batch`, field by field.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RawBatch {
    pub size: usize,
    pub rows: u32,
    pub reserved: u32,
    pub timestamp_ns: u64,
    pub proba: *const c_void,
    pub proba_stride: isize,
    pub features: *const c_void,
    pub features_stride: isize,
    pub labels: *const i32,
    pub labels_stride: isize,
    pub label_sets: *const u8,
    pub label_sets_stride: isize,
    pub targets: *const f64,
    pub targets_stride: isize,
    pub ids: *const u64,
    pub ids_stride: isize,
    pub segments: *const u16,
    pub segments_stride: isize,
}

/// `mlw_reservation`, field by field.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RawReservation {
    pub size: usize,
    pub rows: u32,
    pub sections: u32,
    pub timestamp_ns: u64,
    pub proba: *mut c_void,
    pub features: *mut c_void,
    pub labels: *mut i32,
    pub label_sets: *mut u8,
    pub targets: *mut f64,
    pub ids: *mut u64,
    pub segments: *mut u16,
}

/// `mlw_counts`, field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Counts {
    pub size: usize,
    pub records: u64,
    pub rows: u64,
    pub bytes: u64,
    pub dropped_records: u64,
    pub dropped_rows: u64,
    pub full: (u64, u64),
    pub too_large: (u64, u64),
    pub contended: (u64, u64),
    pub rejected: (u64, u64),
    pub detached: (u64, u64),
}

type Handle = *mut c_void;

/// The exported functions.
pub struct Api {
    pub open: unsafe extern "C" fn(*const RawOptions, *mut Handle) -> c_int,
    pub write: unsafe extern "C" fn(Handle, *const RawBatch) -> c_int,
    pub record_rows: unsafe extern "C" fn(Handle, u32) -> u32,
    pub reserve: unsafe extern "C" fn(Handle, *mut RawReservation) -> c_int,
    pub commit: unsafe extern "C" fn(Handle) -> c_int,
    pub discard: unsafe extern "C" fn(Handle) -> c_int,
    pub counters: unsafe extern "C" fn(Handle, *mut Counts) -> c_int,
    pub path: unsafe extern "C" fn(Handle) -> *const c_char,
    pub close: unsafe extern "C" fn(Handle),
}

/// Built with `make lib` when a test asks for it first.
pub fn api() -> &'static Api {
    static API: OnceLock<Api> = OnceLock::new();
    API.get_or_init(|| {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")); // ours, or one inside it
        let root = package.ancestors().find(|dir| dir.join("Makefile").exists()).expect("a Makefile");
        let made = Command::new("make").args(["-s", "lib"]).current_dir(root).status().expect("make runs");
        assert!(made.success(), "make lib failed");
        Api::load(&root.join("target/c/libmlwatch.so"))
    })
}

impl Api {
    /// A library of its own, even if one of the same name is loaded already from elsewhere.
    pub fn load(path: &Path) -> Api {
        // SAFETY: loading runs no code of the library, and it stays loaded for good.
        let library = Box::leak(Box::new(unsafe { Library::new(path) }.expect("it loads")));
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the types mirror include/mlwatch.h.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }.expect($name)
            };
        }
        Api {
            open: symbol!("mlw_open"),
            write: symbol!("mlw_write"),
            record_rows: symbol!("mlw_record_rows"),
            reserve: symbol!("mlw_reserve"),
            commit: symbol!("mlw_commit"),
            discard: symbol!("mlw_discard"),
            counters: symbol!("mlw_counters"),
            path: symbol!("mlw_path"),
            close: symbol!("mlw_close"),
        }
    }
}

/// What a test wants of a ring; the rest as `mlw_options_init` has it.
#[derive(Clone, Debug)]
pub struct Options {
    pub model: String,
    pub version: String,
    pub instance: String,
    pub task: u32,
    pub n_classes: u32,
    pub n_features: u32,
    pub dtype: u32,
    pub ring_bytes: u64,
    pub period_ns: u64,
    pub reservoir_rows: u64,
    pub segment_by: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            model: "test".into(),
            version: String::new(),
            instance: "host".into(),
            task: CLASSIFICATION,
            n_classes: 3,
            n_features: 2,
            dtype: F32,
            ring_bytes: 1 << 16,
            period_ns: 0,
            reservoir_rows: 0,
            segment_by: 0,
        }
    }
}

/// An open handle.
pub struct Producer(pub Handle);

// SAFETY: a handle may move between threads, it only serves one at a time.
unsafe impl Send for Producer {}

impl Producer {
    pub fn open(dir: &Path, options: &Options) -> Result<Producer, (c_int, String)> {
        Producer::open_with(api(), dir, options)
    }

    /// Only `path` and `drop` may be used on a handle of another library than `api()`.
    pub fn open_with(api: &'static Api, dir: &Path, options: &Options) -> Result<Producer, (c_int, String)> {
        let text = |s: &str| CString::new(s).unwrap();
        let (model, version, instance) = (text(&options.model), text(&options.version), text(&options.instance));
        let dir = text(dir.to_str().unwrap());
        let mut error = vec![0; 512];
        let raw = RawOptions {
            size: size_of::<RawOptions>(),
            model: model.as_ptr(),
            version: version.as_ptr(),
            instance: instance.as_ptr(),
            task: options.task,
            flags: 0,
            n_classes: options.n_classes,
            n_features: options.n_features,
            proba_dtype: options.dtype,
            feature_dtype: options.dtype,
            class_names: null(),
            feature_names: null(),
            feature_kinds: null(),
            threshold: 0.5,
            period_ns: options.period_ns,
            reservoir_rows: options.reservoir_rows,
            dir: dir.as_ptr(),
            ring_bytes: options.ring_bytes,
            error: error.as_mut_ptr(),
            error_size: error.len(),
            segment_by: options.segment_by,
            reserved: 0,
        };
        let mut handle = null_mut();
        // SAFETY: all pointers outlive the call.
        match unsafe { (api.open)(&raw, &mut handle) } {
            0 => Ok(Producer(handle)),
            // SAFETY: mlw_open writes a terminated string, and the buffer was zeroed.
            code => Err((code, unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy().into_owned())),
        }
    }

    pub fn write(&self, batch: &RawBatch) -> c_int {
        // SAFETY: the handle is open; the batch's pointers are the caller's business.
        unsafe { (api().write)(self.0, batch) }
    }

    /// Features only, one row of as many values as the schema has.
    pub fn write_features(&self, values: &[f32], columns: usize) -> c_int {
        self.write(&RawBatch { rows: (values.len() / columns) as u32, features: values.as_ptr().cast(), ..batch() })
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts { size: size_of::<Counts>(), ..Counts::default() };
        // SAFETY: the handle is open.
        assert_eq!(unsafe { (api().counters)(self.0, &mut counts) }, 0);
        counts
    }

    pub fn path(&self) -> PathBuf {
        // SAFETY: the handle is open, and the string lives as long as it.
        unsafe { CStr::from_ptr((api().path)(self.0)) }.to_str().unwrap().into()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once.
        unsafe { (api().close)(self.0) }
    }
}

/// `mlw_batch_init`.
pub fn batch() -> RawBatch {
    RawBatch {
        size: size_of::<RawBatch>(),
        rows: 0,
        reserved: 0,
        timestamp_ns: 0,
        proba: null(),
        proba_stride: 0,
        features: null(),
        features_stride: 0,
        labels: null(),
        labels_stride: 0,
        label_sets: null(),
        label_sets_stride: 0,
        targets: null(),
        targets_stride: 0,
        ids: null(),
        ids_stride: 0,
        segments: null(),
        segments_stride: 0,
    }
}

/// `mlw_reservation_init`.
pub fn reservation(rows: u32, sections: u32) -> RawReservation {
    RawReservation {
        size: size_of::<RawReservation>(),
        rows,
        sections,
        timestamp_ns: 0,
        proba: null_mut(),
        features: null_mut(),
        labels: null_mut(),
        label_sets: null_mut(),
        targets: null_mut(),
        ids: null_mut(),
        segments: null_mut(),
    }
}

/// A program of `tests/c`, linked with the library, in `dir`.
pub fn compiled(source: &str, dir: &Path) -> PathBuf {
    api(); // builds the library
    let program = dir.join(Path::new(source).file_stem().expect("a file"));
    let built = Command::new("cc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Iinclude", source, "target/c/libmlwatch.a", "-o"])
        .arg(&program)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.expect("cc runs").success());
    program
}

/// A ring directory in memory, removed when dropped.
pub fn ring_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("mlwatch-test-").tempdir_in("/dev/shm").expect("/dev/shm is writable")
}
