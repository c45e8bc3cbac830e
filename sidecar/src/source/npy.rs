//! A `.npy` array of one or two dimensions, alone in its file or a member of an `.npz`.
//!
//! Format: numpy's NEP 1, versions 1 to 3. What the header says is believed only as far as there are bytes for it, before anything
//! is allocated.

use super::batch::Values;
use half::f16;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use thiserror::Error;

const MAGIC: &[u8] = b"\x93NUMPY";
const MOST_HEADER: usize = 1 << 16;
/// Of an unpacked member of an `.npz`, which is held in memory.
const MOST_UNPACKED: u64 = 8 << 30;

/// Why a file is no array of numbers.
#[derive(Debug, Error)]
pub enum NpyError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is no .npy file: write one with numpy.save")]
    NotNpy,
    #[error("it is .npy version {0}.{1}, want 1 to 3: write it with numpy.save")]
    Version(u8, u8),
    #[error("its header is unsound: {0}")]
    Header(&'static str),
    #[error("it holds Python objects, which are never unpickled: save array.astype('float64')")]
    Objects,
    #[error(
        "its elements are {0:?}, want floats of 16, 32 or 64 bits, integers or bools: save array.astype('float64')"
    )]
    Element(String),
    #[error("its elements are big-endian ({0:?}): save array.astype(array.dtype.newbyteorder('='))")]
    BigEndian(String),
    #[error("it has {0} dimensions, want rows, or rows × columns: save array.reshape(len(array), -1)")]
    Dimensions(usize),
    #[error("its header says {rows} × {columns} elements, and the bytes for them are not there: it was cut short")]
    Short { rows: u64, columns: u64 },
    #[error("it is no .npz file: {0}")]
    Zip(#[from] zip::result::ZipError),
    #[error("it has no array {wanted}, only {}: say which with FILE.npz:NAME", there.join(", "))]
    Member { wanted: String, there: Vec<String> },
    #[error("its array {0} is unpacked more than {MOST_UNPACKED} bytes: save it alone with numpy.save")]
    Unpacked(String),
}

/// Where an array's bytes are.
#[derive(Debug)]
enum Bytes {
    File(File, u64),
    Memory(Vec<u8>),
}

impl Bytes {
    fn len(&self) -> u64 {
        match self {
            Bytes::File(_, len) => *len,
            Bytes::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        match self {
            Bytes::File(file, _) => file.read_exact_at(out, at),
            Bytes::Memory(bytes) => {
                let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..)?.get(..out.len()));
                out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl Element {
    fn parse(descr: &str) -> Result<Element, NpyError> {
        let (order, kind) = descr.split_at_checked(1).unwrap_or(("", ""));
        let element = match kind {
            "f2" => Element::F16,
            "f4" => Element::F32,
            "f8" => Element::F64,
            "i1" => Element::I8,
            "i2" => Element::I16,
            "i4" => Element::I32,
            "i8" => Element::I64,
            "u1" | "b1" => Element::U8,
            "u2" => Element::U16,
            "u4" => Element::U32,
            "u8" => Element::U64,
            _ if kind.starts_with('O') => return Err(NpyError::Objects),
            _ => return Err(NpyError::Element(descr.to_owned())),
        };
        match order {
            "<" | "|" | "=" => Ok(element),
            ">" if element.size() == 1 => Ok(element),
            ">" => Err(NpyError::BigEndian(descr.to_owned())),
            _ => Err(NpyError::Element(descr.to_owned())),
        }
    }

    fn size(self) -> usize {
        match self {
            Element::I8 | Element::U8 => 1,
            Element::F16 | Element::I16 | Element::U16 => 2,
            Element::F32 | Element::I32 | Element::U32 => 4,
            Element::F64 | Element::I64 | Element::U64 => 8,
        }
    }

    /// 64-bit integers beyond 2^53 become the nearest f64.
    fn decode(self, bytes: &[u8]) -> Values {
        macro_rules! decoded {
            ($as:ident, $type:ty, $to:ty) => {
                Values::$as(
                    bytes
                        .chunks_exact(self.size())
                        .map(|b| <$type>::from_le_bytes(b.try_into().expect("an element")) as $to)
                        .collect(),
                )
            };
        }
        match self {
            Element::F16 => Values::F16(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect()),
            Element::F32 => decoded!(F32, f32, f32),
            Element::F64 => decoded!(F64, f64, f64),
            Element::I8 => decoded!(F32, i8, f32),
            Element::I16 => decoded!(F32, i16, f32),
            Element::I32 => decoded!(F64, i32, f64),
            Element::I64 => decoded!(F64, i64, f64),
            Element::U8 => decoded!(F32, u8, f32),
            Element::U16 => decoded!(F32, u16, f32),
            Element::U32 => decoded!(F64, u32, f64),
            Element::U64 => decoded!(F64, u64, f64),
        }
    }
}

/// An array on disk, or unpacked.
#[derive(Debug)]
pub struct Npy {
    bytes: Bytes,
    data_at: u64,
    element: Element,
    fortran: bool,
    pub rows: usize,
    pub columns: usize,
    /// 1 or 2.
    pub dimensions: usize,
}

impl Npy {
    /// `member` of an `.npz`, the first of those that is there; of an `.npy` there is none.
    pub fn open(path: &Path, members: &[&str]) -> Result<Npy, NpyError> {
        let file = File::open(path)?;
        let mut start = [0; 2];
        let zipped = file.read_exact_at(&mut start, 0).is_ok() && &start == b"PK";
        let len = file.metadata()?.len();
        Npy::of(if zipped { Bytes::Memory(unpack(file, members)?) } else { Bytes::File(file, len) })
    }

    fn of(bytes: Bytes) -> Result<Npy, NpyError> {
        let (header, data_at) = header(&bytes)?;
        let element = Element::parse(quoted(&header, "descr")?)?;
        let fortran = match after(&header, "fortran_order")? {
            text if text.starts_with("True") => true,
            text if text.starts_with("False") => false,
            _ => return Err(NpyError::Header("fortran_order is neither True nor False")),
        };
        let shape = shape(&header)?;
        let (rows, columns) = match shape[..] {
            [rows] => (rows, 1),
            [rows, columns] => (rows, columns),
            _ => return Err(NpyError::Dimensions(shape.len())),
        };
        let need = rows.checked_mul(columns).and_then(|n| n.checked_mul(element.size() as u64));
        if need.is_none_or(|need| need > bytes.len().saturating_sub(data_at)) {
            return Err(NpyError::Short { rows, columns });
        }
        let [rows, columns] = [rows, columns].map(|n| usize::try_from(n).expect("64-bit"));
        Ok(Npy { bytes, data_at, element, fortran, rows, columns, dimensions: shape.len() })
    }

    /// Some of the rows.
    pub fn read(&self, range: Range<usize>) -> io::Result<Values> {
        if self.fortran && self.columns > 1 {
            self.read_by_column(range)
        } else {
            self.read_run(range.start * self.columns, range.len() * self.columns)
        }
    }

    fn read_run(&self, first: usize, count: usize) -> io::Result<Values> {
        let size = self.element.size();
        let mut bytes = vec![0; count * size];
        self.bytes.read(self.data_at + (first * size) as u64, &mut bytes)?;
        Ok(self.element.decode(&bytes))
    }

    fn read_by_column(&self, range: Range<usize>) -> io::Result<Values> {
        let columns = (0..self.columns).map(|column| self.read_run(column * self.rows + range.start, range.len()));
        let columns = columns.collect::<io::Result<Vec<Values>>>()?;
        let (mut half, mut narrow, mut wide) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..range.len() {
            for column in &columns {
                match column {
                    Values::F16(values) => half.push(values[row]),
                    Values::F32(values) => narrow.push(values[row]),
                    Values::F64(values) => wide.push(values[row]),
                }
            }
        }
        Ok(match self.element.decode(&[]) {
            Values::F16(_) => Values::F16(half),
            Values::F32(_) => Values::F32(narrow),
            Values::F64(_) => Values::F64(wide),
        })
    }
}

/// Grows with the bytes that come, not with what the archive says.
fn unpack(file: File, members: &[&str]) -> Result<Vec<u8>, NpyError> {
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file))?;
    let found = members.iter().map(|name| format!("{name}.npy")).find(|name| archive.index_for_name(name).is_some());
    let Some(name) = found else {
        let there = archive.file_names().map(|name| name.trim_end_matches(".npy").to_owned()).collect();
        return Err(NpyError::Member { wanted: members.join(" or "), there });
    };
    let mut bytes = Vec::new();
    archive.by_name(&name)?.take(MOST_UNPACKED + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_UNPACKED {
        return Err(NpyError::Unpacked(name));
    }
    Ok(bytes)
}

/// Its text, and where the elements begin.
fn header(bytes: &Bytes) -> Result<(String, u64), NpyError> {
    let mut start = [0; 12];
    let known = start.len().min(usize::try_from(bytes.len()).unwrap_or(usize::MAX));
    bytes.read(0, &mut start[..known])?;
    if !start.starts_with(MAGIC) || known < start.len() {
        return Err(NpyError::NotNpy);
    }
    let [_, _, _, _, _, _, major, minor, a, b, c, d] = start;
    let (at, len) = match major {
        1 => (10, usize::from(u16::from_le_bytes([a, b]))),
        2 | 3 => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return Err(NpyError::Version(major, minor)),
    };
    if len > MOST_HEADER || (at + len) as u64 > bytes.len() {
        return Err(NpyError::Header("it is longer than the file, or than any header"));
    }
    let mut text = vec![0; len];
    bytes.read(at as u64, &mut text)?;
    let text = String::from_utf8(text).map_err(|_| NpyError::Header("it is no text"))?;
    Ok((text, (at + len) as u64))
}

/// What follows a key of the dict that the header is.
fn after<'a>(header: &'a str, key: &str) -> Result<&'a str, NpyError> {
    let found = ['\'', '"'].iter().find_map(|quote| header.split_once(&format!("{quote}{key}{quote}")));
    let (_, rest) = found.ok_or(NpyError::Header("descr, fortran_order or shape is missing"))?;
    let value = rest.trim_start().strip_prefix(':').ok_or(NpyError::Header("a key has no value"))?;
    Ok(value.trim_start())
}

fn quoted<'a>(header: &'a str, key: &str) -> Result<&'a str, NpyError> {
    let value = after(header, key)?;
    let Some(quote) = value.chars().next().filter(|c| ['\'', '"'].contains(c)) else {
        return Err(NpyError::Element(value.chars().take(80).collect()));
    };
    value[1..].split_once(quote).map(|(text, _)| text).ok_or(NpyError::Header("a string has no end"))
}

fn shape(header: &str) -> Result<Vec<u64>, NpyError> {
    let unsound = NpyError::Header("shape is no tuple of numbers");
    let inside = after(header, "shape")?.strip_prefix('(').and_then(|text| text.split_once(')'));
    let Some((inside, _)) = inside else { return Err(unsound) };
    let parts = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| part.trim_end_matches('L').parse().map_err(|_| NpyError::Header("shape is no tuple of numbers")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn npy(dict: &str, data: &[u8]) -> Vec<u8> {
        [MAGIC, &[1, 0], &(dict.len() as u16).to_le_bytes(), dict.as_bytes(), data].concat()
    }

    fn parse(bytes: Vec<u8>) -> Result<Npy, NpyError> {
        Npy::of(Bytes::Memory(bytes))
    }

    fn dict(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
    }

    #[test]
    fn both_orders_give_the_same_rows() {
        let by_row: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let by_column: Vec<u8> = [1.0f32, 4.0, 2.0, 5.0, 3.0, 6.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let c = parse(npy(&dict("<f4", "False", "(2, 3)"), &by_row)).unwrap();
        let f = parse(npy(&dict("<f4", "True", "(2, 3)"), &by_column)).unwrap();
        for range in [0..2, 1..2, 0..1, 1..1] {
            assert_eq!(c.read(range.clone()).unwrap(), f.read(range).unwrap());
        }
        assert_eq!(c.read(1..2).unwrap(), Values::F32(vec![4.0, 5.0, 6.0]));
    }

    #[test]
    fn every_kind_of_number_is_read() {
        for (descr, bytes, want) in [
            ("<f2", vec![0x00, 0x3e], 1.5),
            ("<f8", (-0.1f64).to_le_bytes().to_vec(), -0.1),
            ("|i1", vec![0xff], -1.0),
            ("<i2", vec![0xfe, 0xff], -2.0),
            ("<i4", i32::MIN.to_le_bytes().to_vec(), f64::from(i32::MIN)),
            ("<i8", (-3i64).to_le_bytes().to_vec(), -3.0),
            ("|u1", vec![200], 200.0),
            ("|b1", vec![1], 1.0),
            ("<u2", vec![0xff, 0xff], 65535.0),
            ("<u4", u32::MAX.to_le_bytes().to_vec(), f64::from(u32::MAX)),
            ("<u8", (1u64 << 60).to_le_bytes().to_vec(), (1u64 << 60) as f64),
        ] {
            let array = parse(npy(&dict(descr, "False", "(1,)"), &bytes)).unwrap();
            assert_eq!((array.read(0..1).unwrap().into_f64(), array.dimensions), (vec![want], 1), "{descr}");
        }
    }

    #[test]
    fn refuses_what_is_no_matrix_of_numbers_and_says_the_remedy() {
        for (descr, shape, says) in [
            ("|O", "(1,)", "never unpickled"),
            ("<U4", "(1,)", "astype"),
            ("<c16", "(1,)", "astype"),
            (">f8", "(1,)", "newbyteorder"),
            ("<f8", "(1, 1, 1)", "reshape"),
            ("<f8", "()", "reshape"),
            ("<f8", "(3,)", "cut short"),
            ("<f8", "(18446744073709551615, 18446744073709551615)", "cut short"),
            ("<f8", "(-1,)", "unsound"),
            ("<f8", "1", "unsound"),
        ] {
            let why = parse(npy(&dict(descr, "False", shape), &[0; 16])).unwrap_err().to_string();
            assert!(why.contains(says), "{descr} {shape}: {why}");
        }
        assert!(matches!(parse(b"PAR1".to_vec()), Err(NpyError::NotNpy)));
        let records = npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}", &[0; 8]);
        assert!(matches!(parse(records), Err(NpyError::Element(_))));
    }

    proptest! {
        #[test]
        fn whatever_the_header_says_it_is_read_or_refused(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = npy(&dict("<f8", "True", "(2, 3)"), &[7; 48]);
            let index = at.index(bytes.len());
            bytes[index] = byte;
            for bytes in [bytes.clone(), bytes[..cut.index(bytes.len())].to_vec()] {
                if let Ok(array) = parse(bytes) {
                    prop_assert!(array.rows * array.columns <= 48);
                    prop_assert!(array.read(0..array.rows).is_ok());
                }
            }
        }
    }
}
