//! `mlwatch reference show`.

use super::reference::ReferenceError;
use crate::reference::{Column, Reference, Shape};
use serde_json::{Value, json};
use std::io::{self, Write as _};

/// Columns shown to people.
const MOST_COLUMNS: usize = 20;

pub fn show(reference: &Reference, as_json: bool) -> Result<(), ReferenceError> {
    let text = match as_json {
        true => serde_json::to_string_pretty(&value(reference)).map_err(io::Error::from)?,
        false => describe(reference),
    };
    writeln!(io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

/// Of all columns: what they are, their name, and themselves.
fn columns(reference: &Reference) -> impl Iterator<Item = (&'static str, &Column)> {
    let probability = if reference.regression { "output" } else { "probability" };
    let rows = [("confidence", &reference.confidence), ("margin", &reference.margin), ("entropy", &reference.entropy)];
    let rows = rows.into_iter().filter_map(|(of, column)| Some((of, column.as_ref()?)));
    let probabilities = reference.probabilities.iter().map(move |column| (probability, column));
    rows.chain(probabilities).chain(reference.features.iter().map(|column| ("feature", column)))
}

fn value(reference: &Reference) -> Value {
    let counts = |counts: &[(String, u64)]| {
        let one = |(name, count): &(String, u64)| json!({ "name": name, "count": count });
        counts.iter().map(one).collect::<Vec<_>>()
    };
    json!({
        "model": reference.model,
        "version": reference.version,
        "id": reference.id(),
        "task": if reference.regression { "regression" } else { "classification" },
        "threshold": reference.threshold,
        "rows": reference.rows,
        "exact": reference.exact,
        "predicted": counts(&reference.predicted),
        "actual": counts(&reference.actual),
        "columns": columns(reference).map(|(of, column)| column_value(of, column)).collect::<Vec<_>>(),
        "bands": reference.bands,
        "quality": quality(reference),
    })
}

/// How right the model was, and what its probabilities mean: for each class with a map, what it makes of every tenth.
fn quality(reference: &Reference) -> Value {
    let Some(quality) = &reference.quality else { return Value::Null };
    let (accuracy, confidence) = quality.means().map(|[accuracy, confidence]| (accuracy, confidence)).unzip();
    json!({
        "n": quality.rows,
        "single_rows": quality.single_rows,
        "accuracy": accuracy,
        "confidence": confidence,
        "calibration": calibrated(reference).map(|(name, at)| json!({ "name": name, "at": at })).collect::<Vec<_>>(),
    })
}

/// Of each class with a map: its name, and the shares that 0, .1, … 1 mean.
fn calibrated(reference: &Reference) -> impl Iterator<Item = (&str, Vec<f64>)> {
    let maps = reference.calibration.iter().flat_map(|own| own.mapped().enumerate().map(move |(k, is)| (own, k, is)));
    maps.filter(|(.., is_mapped)| *is_mapped).filter_map(|(own, class, _)| {
        let at = (0..=10).map(|tenth| own.at(class, f64::from(tenth) / 10.0)).collect();
        Some((reference.probabilities.get(class)?.name.as_str(), at))
    })
}

fn labelled(reference: &Reference) -> String {
    let Some(quality) = &reference.quality else { return "without labels".into() };
    let (rows, mapped) = (quality.single_rows, calibrated(reference).count());
    let maps = format!("{mapped} of {} classes are calibrated", reference.probabilities.len());
    let Some(means) = quality.means() else { return maps };
    let [accuracy, confidence] = means.map(short);
    format!("accuracy {accuracy}, confidence {confidence} of {rows} labelled rows; {maps}")
}

fn column_value(of: &str, column: &Column) -> Value {
    let moment = &column.moment;
    let some = |x: f64| (moment.n > 0 && x.is_finite()).then_some(x);
    let mut value = json!({
        "of": of,
        "name": column.name,
        "kind": if column.as_categorical().is_some() { "categorical" } else { "numerical" },
        "n": moment.n,
        "missing": moment.nan,
        "inf": moment.inf,
        "zero": moment.zero,
        "mean": some(moment.mean),
        "std": moment.std().and_then(some),
        "min": some(moment.min),
        "max": some(moment.max),
    });
    let more = match &column.shape {
        Shape::Numerical(numerical) => json!({ "edges": numerical.edges, "counts": numerical.counts }),
        Shape::Categorical(categorical) => {
            let one = |(value, count): &(f64, u64)| json!({ "value": value, "count": count });
            json!({ "values": categorical.values.iter().map(one).collect::<Vec<_>>(), "other_count": categorical.other })
        }
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

fn describe(reference: &Reference) -> String {
    let version =
        if reference.version.is_empty() { "any version".into() } else { format!("version {}", reference.version) };
    let kind =
        if reference.exact { "exact" } else { "approximate: merged from several, or between the quantiles of reports" };
    let mut lines = vec![
        format!("model      {}  {}", quoted(&reference.model), quoted(&version)),
        format!("id         {}", reference.id()),
        format!("rows       {}  {kind}", reference.rows),
        format!("predicted  {}", shares(&reference.predicted)),
        format!("actual     {}", shares(&reference.actual)),
        format!("quality    {}", labelled(reference)),
        format!("bands      {}", bands(reference)),
        String::new(),
    ];
    let all: Vec<_> = columns(reference).collect();
    let header = ["column", "n", "missing", "mean", "std", "min", "deciles", "max"].map(String::from);
    let shown = all.iter().take(MOST_COLUMNS).map(|(of, column)| cells(of, column));
    lines.extend(aligned(&[header].into_iter().chain(shown).collect::<Vec<_>>()));
    if all.len() > MOST_COLUMNS {
        lines.push(format!("… and {} more, --json has all", all.len() - MOST_COLUMNS));
    }
    lines.join("\n")
}

/// A name in a file must not command the terminal.
fn quoted(text: &str) -> String {
    text.escape_debug().to_string()
}

fn shares(counts: &[(String, u64)]) -> String {
    let all = counts.iter().map(|(_, n)| *n as f64).sum::<f64>();
    if all == 0.0 {
        return "nothing".into();
    }
    let share = |(name, n): &(String, u64)| format!("{} {:.1} %", quoted(name), 100.0 * *n as f64 / all);
    let shown: Vec<String> = counts.iter().take(MOST_COLUMNS).map(share).collect();
    let more = if counts.len() > shown.len() { ", …" } else { "" };
    shown.join(", ") + more
}

fn bands(reference: &Reference) -> String {
    match reference.bands.iter().map(|band| band.n).max() {
        Some(periods) => format!("{} numbers over {periods} periods", reference.bands.len()),
        None => "none".into(),
    }
}

fn cells(of: &str, column: &Column) -> [String; 8] {
    let moment = &column.moment;
    let number = |x: f64| if moment.n > 0 && x.is_finite() { short(x) } else { "-".into() };
    let name = if column.name == of { of.into() } else { format!("{of} {}", quoted(&column.name)) };
    let distribution = match &column.shape {
        Shape::Numerical(numerical) => {
            let inner = numerical.edges.get(1..numerical.edges.len().saturating_sub(1)).unwrap_or(&[]);
            inner.iter().map(|edge| short(*edge)).collect::<Vec<_>>().join(" ")
        }
        Shape::Categorical(categorical) => format!("{} values", categorical.values.len()),
    };
    let (n, missing, std) = (moment.n.to_string(), moment.nan.to_string(), number(moment.std().unwrap_or(0.0)));
    [name, n, missing, number(moment.mean), std, number(moment.min), distribution, number(moment.max)]
}

/// Four significant digits.
fn short(x: f64) -> String {
    let digits = x.abs().log10().floor();
    match x == 0.0 || (-4.0..6.0).contains(&digits) {
        true if x == 0.0 => "0".into(),
        true => format!("{x:.*}", (3.0 - digits).max(0.0) as usize),
        false => format!("{x:.3e}"),
    }
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[[String; 8]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells =
            cells.map(|(i, (cell, &width))| if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}
