//! A Parquet file: flat numerical columns by name. A null is NaN.

use super::SourceError;
use super::arrays::class_index;
use super::batch::{Batch, BatchLabels, Values};
use super::build::{Extent, Source};
use super::chosen::{Chosen, TableColumns};
use crate::stats::Element;
use parquet::basic::{Compression, ConvertedType, LogicalType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What a column's numbers are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Half,
    Single,
    Other,
    Unsigned,
    /// Names of classes.
    Text,
}

/// A column that is read.
#[derive(Debug)]
struct Place {
    column: usize,
    kind: Kind,
    /// Below it, a value is null.
    present: i16,
}

/// A source of rows.
pub struct ParquetFile {
    path: PathBuf,
    file: SerializedFileReader<File>,
    rows: usize,
    features: Vec<Place>,
    probabilities: Vec<Place>,
    label: Option<Place>,
    chosen: Chosen,
    regression: bool,
    next_group: usize,
    group: Group,
}

/// The row group that is being read.
#[derive(Default)]
struct Group {
    rows_left: usize,
    features: Vec<ColumnReader>,
    probabilities: Vec<ColumnReader>,
    label: Option<ColumnReader>,
}

/// The crate has assertions where a damaged file should be an error; nothing that a panic leaves half done is used again.
fn unless_it_panics<T>(path: &Path, read: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
    let damaged = |_| Err(SourceError::input(path, "it is damaged: what it says of its columns cannot be"));
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(damaged)
}

impl ParquetFile {
    /// Reads what the file says of itself.
    pub fn open(
        path: &Path,
        columns: &TableColumns,
        classes: Option<&[String]>,
        regression: bool,
    ) -> Result<ParquetFile, SourceError> {
        unless_it_panics(path, || ParquetFile::open_sound(path, columns, classes, regression))
    }

    fn open_sound(
        path: &Path,
        columns: &TableColumns,
        classes: Option<&[String]>,
        regression: bool,
    ) -> Result<ParquetFile, SourceError> {
        let input = |why: &dyn std::fmt::Display| SourceError::input(path, why);
        let file =
            SerializedFileReader::new(File::open(path).map_err(|why| input(&why))?).map_err(|why| input(&why))?;
        let described = file.metadata().file_metadata().schema_descr().columns();
        let header = described.iter().map(|column| column.path().string()).collect();
        let chosen = Chosen::of(path, header, columns, classes, regression)?;
        let place = |column: &usize| Place::of(*column, &described[*column]).map_err(|why| input(&why));
        let label = |column: &usize| match kind(&described[*column]) {
            Ok(Kind::Text) if !regression => Ok(Place::new(*column, &described[*column], Kind::Text)),
            _ => place(column),
        };
        let used = chosen.features.iter().chain(&chosen.probabilities).chain(&chosen.label);
        check_codecs(file.metadata(), used).map_err(|why| input(&why))?;
        let rows = file.metadata().file_metadata().num_rows();
        Ok(ParquetFile {
            path: path.to_owned(),
            rows: usize::try_from(rows).map_err(|_| input(&format!("it says that it has {rows} rows")))?,
            features: chosen.features.iter().map(place).collect::<Result<_, _>>()?,
            probabilities: chosen.probabilities.iter().map(place).collect::<Result<_, _>>()?,
            label: chosen.label.as_ref().map(label).transpose()?,
            chosen,
            regression,
            next_group: 0,
            group: Group::default(),
            file,
        })
    }

    /// What its columns are.
    pub fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    /// The next row group with rows.
    fn open_group(&mut self) -> Result<(), String> {
        while self.group.rows_left == 0 {
            if self.next_group == self.file.num_row_groups() {
                return Err("it has fewer rows than it says".into());
            }
            let group = self.file.get_row_group(self.next_group).map_err(|why| why.to_string())?;
            let open = |place: &Place| group.get_column_reader(place.column).map_err(|why| why.to_string());
            let rows = group.metadata().num_rows();
            self.group = Group {
                rows_left: usize::try_from(rows).map_err(|_| format!("a row group says that it has {rows} rows"))?,
                features: self.features.iter().map(open).collect::<Result<_, _>>()?,
                probabilities: self.probabilities.iter().map(open).collect::<Result<_, _>>()?,
                label: self.label.as_ref().map(open).transpose()?,
            };
            self.next_group += 1;
        }
        Ok(())
    }

    fn labels(&self, first: usize, values: &[f64]) -> Result<Option<BatchLabels>, String> {
        if self.label.is_none() {
            return Ok(None);
        }
        if self.regression {
            return Ok(Some(BatchLabels::Targets(values.to_vec())));
        }
        let index = |(i, x): (usize, &f64)| {
            class_index(*x, self.chosen.class_names.len()).map_err(|why| format!("row {}: {why}", first + i))
        };
        values.iter().enumerate().map(index).collect::<Result<_, _>>().map(|labels| Some(BatchLabels::Classes(labels)))
    }

    fn batch(&mut self, rows: Range<usize>) -> Result<Batch, String> {
        let (mut features, mut probabilities, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = rows.len();
        while left > 0 {
            self.open_group()?;
            let count = left.min(self.group.rows_left);
            read_rows(&mut self.group.features, &self.features, &self.chosen, count, &mut features)?;
            read_rows(&mut self.group.probabilities, &self.probabilities, &self.chosen, count, &mut probabilities)?;
            read_rows(self.group.label.as_mut_slice(), self.label.as_slice(), &self.chosen, count, &mut labels)?;
            self.group.rows_left -= count;
            left -= count;
        }
        Ok(Batch {
            count: rows.len(),
            labels: self.labels(rows.start, &labels)?,
            probabilities: values(&self.probabilities, probabilities),
            features: values(&self.features, features),
        })
    }
}

impl Source for ParquetFile {
    fn extent(&self) -> Extent {
        Extent { rows: self.rows, classes: self.probabilities.len(), features: self.features.len() }
    }

    fn feature_elements(&self) -> Vec<Element> {
        self.features.iter().map(|place| place.kind.element()).collect()
    }

    fn read(&mut self, rows: Range<usize>) -> Result<Batch, SourceError> {
        let path = self.path.clone();
        unless_it_panics(&path, || self.batch(rows).map_err(|why| SourceError::input(&path, why)))
    }
}

/// The crate finds out only when it reads, and does not say what to do.
fn check_codecs<'a>(file: &ParquetMetaData, columns: impl Iterator<Item = &'a usize>) -> Result<(), String> {
    for column in columns {
        for group in file.row_groups() {
            let column = group.columns().get(*column).ok_or("a row group has fewer columns than the file says")?;
            let codec = column.compression();
            if !matches!(
                codec,
                Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_)
            ) {
                return Err(format!(
                    "its column {} is compressed with {}, which mlwatch does not read: write the file anew with zstd, snappy or gzip, as in pyarrow.parquet.write_table(table, path, compression=\"zstd\")",
                    column.column_path().string(),
                    codec.to_string().split('(').next().unwrap_or_default()
                ));
            }
        }
    }
    Ok(())
}

impl Kind {
    fn element(self) -> Element {
        match self {
            Kind::Half => Element::F16,
            Kind::Single => Element::F32,
            Kind::Other | Kind::Unsigned | Kind::Text => Element::F64,
        }
    }
}

impl Place {
    fn of(column: usize, described: &ColumnDescriptor) -> Result<Place, String> {
        let kind = kind(described).and_then(|kind| if kind == Kind::Text { Err(TEXT) } else { Ok(kind) });
        let kind = kind.map_err(|holds| {
            let name = described.path().string();
            format!("its column {name} holds {holds}, want a flat column of numbers: leave it out (--feature-columns), or write it as numbers")
        })?;
        Ok(Place::new(column, described, kind))
    }

    fn new(column: usize, described: &ColumnDescriptor, kind: Kind) -> Place {
        Place { column, kind, present: described.max_def_level() }
    }
}

const TEXT: &str = "text, bytes or decimals";

fn kind(described: &ColumnDescriptor) -> Result<Kind, &'static str> {
    if described.max_rep_level() > 0 || described.path().parts().len() > 1 {
        return Err("lists or structures");
    }
    let (logical, converted) = (described.logical_type_ref(), described.converted_type());
    match (described.physical_type(), logical, converted) {
        (Type::BOOLEAN | Type::DOUBLE, ..) => Ok(Kind::Other),
        (Type::FLOAT, ..) => Ok(Kind::Single),
        (Type::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Float16), _) => Ok(Kind::Half),
        (Type::INT32 | Type::INT64, Some(LogicalType::Integer(integer)), _) => {
            Ok(if integer.is_signed { Kind::Other } else { Kind::Unsigned })
        }
        (Type::INT32 | Type::INT64, None, ConvertedType::NONE) => Ok(Kind::Other),
        (Type::INT32 | Type::INT64, ..) => Err("times, dates or decimals"),
        (Type::INT96, ..) => Err("times"),
        (Type::BYTE_ARRAY, Some(LogicalType::String | LogicalType::Enum), _)
        | (Type::BYTE_ARRAY, None, ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::ENUM) => Ok(Kind::Text),
        (Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY, ..) => Err(TEXT),
    }
}

/// f16 and f32 where that is what all of them are, as from arrays.
fn values(places: &[Place], values: Vec<f64>) -> Option<Values> {
    let finest = places.iter().map(|place| place.kind.element()).min();
    let values = match finest {
        Some(Element::F16) => Values::F16(values.into_iter().map(half::f16::from_f64).collect()),
        Some(Element::F32) => Values::F32(values.into_iter().map(|x| x as f32).collect()),
        _ => Values::F64(values),
    };
    (!places.is_empty()).then_some(values)
}

/// The next rows of all columns, row by row.
fn read_rows(
    readers: &mut [ColumnReader],
    places: &[Place],
    chosen: &Chosen,
    rows: usize,
    into: &mut Vec<f64>,
) -> Result<(), String> {
    let (start, width) = (into.len(), places.len());
    into.resize(start + rows * width, f64::NAN);
    for (k, (reader, place)) in readers.iter_mut().zip(places).enumerate() {
        let column = read_column(reader, place, chosen, rows)?;
        into[start..].iter_mut().skip(k).step_by(width).zip(column).for_each(|(out, x)| *out = x);
    }
    Ok(())
}

fn read_column(reader: &mut ColumnReader, place: &Place, chosen: &Chosen, rows: usize) -> Result<Vec<f64>, String> {
    let unsigned = place.kind == Kind::Unsigned;
    match reader {
        ColumnReader::BoolColumnReader(reader) => read(reader, place, rows, |x| f64::from(u8::from(*x))),
        ColumnReader::FloatColumnReader(reader) => read(reader, place, rows, |x| f64::from(*x)),
        ColumnReader::DoubleColumnReader(reader) => read(reader, place, rows, |x| *x),
        ColumnReader::Int32ColumnReader(reader) => {
            read(reader, place, rows, |x| if unsigned { f64::from(x.cast_unsigned()) } else { f64::from(*x) })
        }
        ColumnReader::Int64ColumnReader(reader) => {
            read(reader, place, rows, |x| if unsigned { x.cast_unsigned() as f64 } else { *x as f64 })
        }
        ColumnReader::FixedLenByteArrayColumnReader(reader) => read(reader, place, rows, |x| {
            let bytes = x.data().try_into().ok().map(half::f16::from_le_bytes);
            bytes.map_or(f64::NAN, f64::from)
        }),
        ColumnReader::ByteArrayColumnReader(reader) if place.kind == Kind::Text => {
            let mut wrong = None;
            let class = |text: &ByteArray| match chosen.label(&String::from_utf8_lossy(text.data())) {
                Ok(class) => class.into(),
                Err(why) => {
                    wrong.get_or_insert(why);
                    f64::NAN
                }
            };
            let classes = read(reader, place, rows, class)?;
            wrong.map_or(Ok(classes), |why| Err(format!("a label: {why}")))
        }
        ColumnReader::ByteArrayColumnReader(_) | ColumnReader::Int96ColumnReader(_) => {
            Err("it changed its columns".into())
        }
    }
}

fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    place: &Place,
    rows: usize,
    widen: impl FnMut(&T::T) -> f64,
) -> Result<Vec<f64>, String> {
    let (mut values, mut levels, mut records) = (Vec::with_capacity(rows), Vec::new(), 0);
    while records < rows {
        let read = reader.read_records(rows - records, Some(&mut levels), None, &mut values);
        match read.map_err(|why| why.to_string())? {
            (0, ..) => return Err("a column is shorter than its row group says".into()),
            (read, ..) => records += read,
        }
    }
    let mut present = values.iter().map(widen);
    if place.present == 0 {
        return Ok(present.collect());
    }
    let or_null = |level: &i16| if *level == place.present { present.next().unwrap_or(f64::NAN) } else { f64::NAN };
    Ok(levels.iter().map(or_null).collect())
}

#[cfg(test)]
mod tests {
    use super::super::build::build;
    use super::super::spec::Names;
    use super::super::table::open_table;
    use super::*;
    use crate::reference::{Column, Reference};
    use crate::stats::Elements;
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};

    fn data(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet").join(name)
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn of(features: &[&str]) -> TableColumns {
        TableColumns { features: strings(features), ..TableColumns::default() }
    }

    fn open(name: &str, columns: &TableColumns) -> Result<ParquetFile, String> {
        ParquetFile::open(&data(name), columns, None, false).map_err(|why| why.to_string())
    }

    const NAMES: [&str; 8] = ["single", "double", "half", "signed", "unsigned", "long", "ulong", "flag"];

    /// As tests/data/parquet/write.py has it.
    fn row(i: usize) -> [f64; 8] {
        let (x, null) = (i as f64, i % 10 == 3);
        let or_null = |x: f64| if null { f64::NAN } else { x };
        let unsigned = f64::from(u32::MAX) - x;
        let flag = f64::from(u8::from(i.is_multiple_of(2)));
        let (long, ulong) = (0.0 - x * 2f64.powi(40), 2f64.powi(63) + x * 2f64.powi(20));
        [x / 4.0, or_null(x / 10.0), x / 8.0, x - 50.0, unsigned, or_null(long), ulong, or_null(flag)]
    }

    fn bits(values: impl IntoIterator<Item = f64>) -> Vec<u64> {
        values.into_iter().map(f64::to_bits).collect()
    }

    #[test]
    fn numbers_of_every_kind_are_read_whatever_the_codec_the_row_groups_and_the_cuts() {
        for name in ["snappy.parquet", "zstd.parquet", "gzip.parquet"] {
            for step in [1, 7, 64, 100] {
                let mut file = open(name, &of(&NAMES)).unwrap();
                assert_eq!((file.extent().rows, file.chosen().feature_names()), (100, strings(&NAMES)));
                for start in (0..100).step_by(step) {
                    let rows = start..(start + step).min(100);
                    let Some(Values::F64(got)) = file.read(rows.clone()).unwrap().features else { panic!("{name}") };
                    assert_eq!(bits(got), bits(rows.flat_map(row)), "{name} from {start} by {step}");
                }
            }
        }
    }

    #[test]
    fn floats_alone_stay_f32_as_from_arrays() {
        let batch = open("zstd.parquet", &of(&["half", "single"])).unwrap().read(0..3).unwrap();
        assert_eq!(batch.features, Some(Values::F32(vec![0.0, 0.0, 0.125, 0.25, 0.25, 0.5])));
    }

    #[test]
    fn what_is_no_flat_column_of_numbers_is_named_with_what_to_do() {
        for (column, holds) in [
            ("text", "text"),
            ("when", "times"),
            ("day", "dates"),
            ("price", "decimals"),
            ("list.list.element", "lists"),
            ("pair.a", "structures"),
        ] {
            let why = open("others.parquet", &of(&["x", column])).err().unwrap();
            assert!(why.contains(&format!("its column {column} holds")) && why.contains(holds), "{why}");
            assert!(why.contains("--feature-columns"), "{why}");
        }
        assert!(open("others.parquet", &of(&["x"])).is_ok());
        assert!(open("others.parquet", &of(&["y"])).err().unwrap().contains("it has no column y, only x, text"));
        assert!(open("write.py", &of(&["x"])).is_err());
    }

    fn reference(path: &Path) -> Result<Reference, String> {
        let columns =
            TableColumns { features: strings(&NAMES), probabilities: strings(&["p_*"]), label: Some("truth".into()) };
        let open = open_table(path, &columns, None, false).map_err(|why| why.to_string())?;
        let mut source = open.source;
        let names = Names {
            model: "m".into(),
            threshold: 0.5,
            classes: Some(open.class_names),
            features: Some(open.feature_names),
            ..Names::default()
        };
        let spec = names.spec(2, NAMES.len()).unwrap();
        build(&mut *source, spec, 1000, 2).map_err(|why| why.to_string())
    }

    #[test]
    fn a_parquet_file_gives_the_same_reference_as_its_csv() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        let mut text = NAMES.join(",") + ",p_a,p_b,truth\n";
        for i in 0..100 {
            let numbers = row(i).map(|x| if x.is_nan() { String::new() } else { x.to_string() });
            let p = i as f64 / 128.0;
            let truth = if i % 10 == 3 { String::new() } else { (i % 2).to_string() };
            text += &format!("{},{p},{},{truth}\n", numbers.join(","), 1.0 - p);
        }
        std::fs::write(&path, text).unwrap();
        let (csv, parquet) = (reference(&path).unwrap(), reference(&data("snappy.parquet")).unwrap());
        assert_eq!((csv.rows, csv.actual[0].1, csv.features[1].moment.nan), (100, 50, 10));
        // Probabilities are f64 in the one and f32 in the other: their sums differ in the last bits.
        assert_eq!((&csv.predicted, &csv.actual), (&parquet.predicted, &parquet.actual));
        for (csv, parquet) in csv.features.iter().zip(&parquet.features) {
            let element = match csv.name.as_str() {
                "single" => Element::F32,
                "half" => Element::F16,
                _ => Element::F64,
            };
            assert_eq!(parquet.elements, Elements::of(element));
            assert_eq!(&Column { elements: csv.elements, ..parquet.clone() }, csv, "a text does not say it");
        }
        assert!((csv.probabilities[0].moment.mean - parquet.probabilities[0].moment.mean).abs() < 1e-12);
    }

    #[test]
    fn labels_are_names_of_classes_as_in_a_csv() {
        let columns =
            TableColumns { features: strings(&["x"]), probabilities: strings(&["p_*"]), label: Some("truth".into()) };
        let labels = |name: &str, classes: &[&str]| {
            let mut file = ParquetFile::open(&data(name), &columns, Some(&strings(classes)), false)?;
            let columns = TableColumns { features: strings(&["single"]), ..columns.clone() };
            let mut indices = ParquetFile::open(&data("snappy.parquet"), &columns, Some(&strings(classes)), false)?;
            Ok::<_, SourceError>((file.read(0..100)?.labels, indices.read(0..100)?.labels))
        };
        let (names, indices) = labels("text_labels.parquet", &["cat", "dog"]).unwrap();
        assert_eq!(names, indices);
        let why = labels("text_labels.parquet", &["cat", "eel"]).unwrap_err().to_string();
        assert!(why.contains("\"dog\" is neither a class (cat, eel) nor an index"), "{why}");
        let feature = open("text_labels.parquet", &of(&["truth"])).err().unwrap();
        assert!(feature.contains("holds text"), "{feature}");
    }

    #[test]
    fn a_codec_that_is_not_read_is_named_with_what_to_do() {
        for (name, codec) in [("lz4.parquet", "LZ4_RAW"), ("brotli.parquet", "BROTLI")] {
            let why = open(name, &of(&["x"])).err().unwrap();
            assert!(why.contains(&format!("compressed with {codec}")) && why.contains("zstd"), "{why}");
        }
    }

    #[test]
    fn whatever_bytes_are_damaged_nothing_panics() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for name in ["snappy.parquet", "zstd.parquet", "others.parquet", "text_labels.parquet", "empty.parquet"] {
            let whole = std::fs::read(data(name)).unwrap();
            // What the file says of itself stands at its end.
            let footer = whole.len().min(1500) as u64;
            for _ in 0..1000 {
                let mut bytes = whole.clone();
                for _ in 0..1 + random.next_u64() % 3 {
                    let at = whole.len() - 1 - (random.next_u64() % footer) as usize;
                    bytes[at] = random.next_u64() as u8;
                }
                std::fs::write(&path, &bytes).unwrap();
                if let Ok(mut file) = ParquetFile::open(&path, &TableColumns::default(), None, false) {
                    let rows = file.extent().rows.min(1 << 16);
                    let _ = file.read(0..rows);
                }
            }
        }
    }

    #[test]
    fn damage_is_an_error_and_an_empty_file_is_no_reference() {
        let bytes = std::fs::read(data("zstd.parquet")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        for end in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..end]).unwrap();
            assert!(reference(&path).is_err(), "{end}");
        }
        let mut file = open("empty.parquet", &TableColumns::default()).unwrap();
        let spec = Names { model: "m".into(), threshold: 0.5, ..Names::default() }.spec(0, 1).unwrap();
        assert!(build(&mut file, spec, 10, 1).unwrap_err().to_string().contains("no rows"));
    }
}
