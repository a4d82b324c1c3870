//! A table of files with their labels: CSV, TSV or JSON Lines.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::{Component, Path, PathBuf},
};

use serde_json::Value;

use super::{
    DataError,
    class_names::classes_of,
    decode::{DecodeOptions, OwnedImage, decode_file},
    image_source::{ImageSource, SourceItem},
    record_file::open_file,
    source_config::ManifestConfig,
};

/// A line of a JSON table may not be longer; it names a file and a label.
const MAX_LINE: usize = 1 << 20;

/// The rows of a table in their order.
#[derive(Debug)]
pub struct Manifest {
    class_names: Vec<String>,
    items: Vec<SourceItem>,
    images: PathBuf,
}

/// A row that is kept, and its number in the table, from 1 without the header.
struct Row {
    number: u64,
    path: String,
    label: Option<String>,
}

/// What goes wrong with the table, and where.
struct Problem {
    row: u64,
    message: String,
    help: String,
}

impl Manifest {
    /// Reads the table; files are looked for when they are decoded.
    ///
    /// # Errors
    /// When the table cannot be read, lacks a column, names a file twice or one that is not below the folder.
    pub fn open(root: &Path, config: &ManifestConfig) -> Result<Self, DataError> {
        let path = root.join(&config.path);
        let (file, _) = open_file(&path, "source.manifest.path")?;
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let rows = match extension.as_deref() {
            Some("csv") => read_csv(file, b',', config),
            Some("tsv") => read_csv(file, b'\t', config),
            Some("jsonl" | "ndjson") => read_json_lines(file, config),
            _ => {
                return Err(DataError::source(
                    format!("`{}` is no table that is known here", path.display()),
                    "name it `.csv` or `.tsv`, with a header, or `.jsonl`, with an object on each line",
                ));
            }
        };
        let rows = rows.and_then(check_rows).map_err(|problem| {
            let Problem { row, message, help } = problem;
            let place = if row == 0 { String::new() } else { format!("row {row} of ") };
            DataError::source(format!("{place}`{}`: {message}", path.display()), help)
        })?;
        if rows.is_empty() {
            let of = config.split.as_ref().map(|split| format!(" of split `{split}`")).unwrap_or_default();
            return Err(DataError::source(
                format!("`{}` has no rows{of}", path.display()),
                format!("`split` is compared with column `{}`", config.split_column),
            ));
        }
        let (class_names, labels) = classes_of(rows.iter().map(|row| row.label.as_deref()));
        let items = rows.into_iter().zip(labels).map(|(row, label)| SourceItem { name: row.path, label }).collect();
        Ok(Self { class_names, items, images: root.join(&config.images) })
    }
}

impl ImageSource for Manifest {
    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn items(&self) -> &[SourceItem] {
        &self.items
    }

    fn decode(&self, idx: usize, options: &DecodeOptions) -> Result<OwnedImage, String> {
        decode_file(&self.images.join(&self.items[idx].name), options)
    }
}

fn read_csv(file: std::fs::File, delimiter: u8, config: &ManifestConfig) -> Result<Vec<Row>, Problem> {
    let damaged = |row: u64, error: &csv::Error| Problem {
        row,
        message: error.to_string(),
        help: "the table is UTF-8 text with a header and as many fields in each row".into(),
    };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(BufReader::new(file));
    let header = reader.headers().map_err(|error| damaged(0, &error))?.clone();
    let column = |name: &str| header.iter().position(|column| column.trim_start_matches('\u{FEFF}') == name);
    let missing = |name: &str, key: &str| Problem {
        row: 0,
        message: format!("it has no column `{name}`"),
        help: format!(
            "its columns are `{}`; `{key}` says which one it is",
            header.iter().collect::<Vec<_>>().join("`, `")
        ),
    };
    let path_at = column(&config.path_column).ok_or_else(|| missing(&config.path_column, "path_column"))?;
    let label_at = column(&config.label_column);
    let split_at = match &config.split {
        Some(_) => Some(column(&config.split_column).ok_or_else(|| missing(&config.split_column, "split_column"))?),
        None => None,
    };
    let mut rows = vec![];
    for (number, record) in (1..).zip(reader.records()) {
        let record = record.map_err(|error| damaged(number, &error))?;
        let field = |at: usize| record.get(at).unwrap_or_default();
        if split_at.is_some_and(|at| Some(field(at)) != config.split.as_deref()) {
            continue;
        }
        let label = label_at.map(field).filter(|label| !label.is_empty()).map(str::to_owned);
        rows.push(Row { number, path: field(path_at).to_owned(), label });
    }
    Ok(rows)
}

fn read_json_lines(file: std::fs::File, config: &ManifestConfig) -> Result<Vec<Row>, Problem> {
    let mut rows = vec![];
    let mut reader = BufReader::new(file);
    let mut line = vec![];
    for number in 1.. {
        line.clear();
        let problem = |message: String| Problem {
            row: number,
            message,
            help: "each line is a JSON object with the path, and with the label where there is one".into(),
        };
        let read = std::io::Read::take(&mut reader, MAX_LINE as u64).read_until(b'\n', &mut line);
        if read.map_err(|error| problem(format!("it cannot be read: {error}")))? == 0 {
            break;
        }
        if line.len() == MAX_LINE {
            return Err(problem(format!("it is longer than {MAX_LINE} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let object: Value = serde_json::from_slice(&line).map_err(|error| problem(error.to_string()))?;
        let text = |key: &str| match &object[key] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            Value::Number(number) if number.is_i64() || number.is_u64() => Ok(Some(number.to_string())),
            other => Err(problem(format!("`{key}` is {other}, neither a word nor a whole number"))),
        };
        if config.split.is_some() && text(&config.split_column)? != config.split {
            continue;
        }
        let path = text(&config.path_column)?.ok_or_else(|| problem(format!("it has no `{}`", config.path_column)))?;
        rows.push(Row { number, path, label: text(&config.label_column)?.filter(|label| !label.is_empty()) });
    }
    Ok(rows)
}

/// Only what lies below the folder of images is known by its content, so everything must.
fn check_rows(rows: Vec<Row>) -> Result<Vec<Row>, Problem> {
    let mut first: BTreeMap<&str, u64> = BTreeMap::new();
    for row in &rows {
        let is_below = Path::new(&row.path).components().all(|part| matches!(part, Component::Normal(_)));
        if row.path.is_empty() || !is_below {
            return Err(Problem {
                row: row.number,
                message: format!("`{}` is no path below the folder of images", row.path),
                help: "paths are relative to `images`, without `..`; set `images` to a folder that holds all files"
                    .into(),
            });
        }
        if let Some(before) = first.insert(&row.path, row.number) {
            return Err(Problem {
                row: row.number,
                message: format!("`{}` stands in row {before} already", row.path),
                help: "name each file once; `split` tells rows of different splits apart".into(),
            });
        }
    }
    Ok(rows)
}
