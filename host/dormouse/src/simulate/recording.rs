//! What was recorded: a table of readings over time.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dormouse_model::Quantity;
use jiff::{SignedDuration, Timestamp};

/// The column of times.
const TIME: &str = "time";
/// The most rows: a reading each second for eleven days.
const MOST_ROWS: usize = 1_000_000;

/// Readings, each of which holds until the next.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    columns: Vec<String>,
    pub rows: Vec<Row>,
}

/// What was read at a time. None: nothing could be read.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub at: Timestamp,
    values: Vec<Option<Quantity>>,
}

impl Row {
    /// The value of a column.
    pub fn get(&self, column: usize) -> Option<Quantity> {
        *self.values.get(column)?
    }
}

impl Recording {
    /// Reads a file of comma-separated values with a header.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path)?;
        Self::parse(std::io::BufReader::new(file))
    }

    fn parse(from: impl Read) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(from);
        let header = reader.headers()?;
        ensure!(
            header.get(0) == Some(TIME),
            "the first column must be `{TIME}`, and is {:?}",
            header.get(0).unwrap_or_default()
        );
        let columns: Vec<_> = header.iter().skip(1).map(str::to_owned).collect();
        let mut rows: Vec<Row> = Vec::new();
        for record in reader.records() {
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            let row = row(&record).with_context(|| format!("line {line}"))?;
            if let Some(last) = rows.last() {
                ensure!(
                    last.at < row.at,
                    "line {line}: its time is not after that of the line before"
                );
            }
            ensure!(rows.len() < MOST_ROWS, "there are more than {MOST_ROWS} lines");
            rows.push(row);
        }
        ensure!(rows.len() > 1, "it needs two lines of readings at least");
        Ok(Self { columns, rows })
    }

    /// Which column has this name.
    pub fn column(&self, name: &str) -> Result<usize> {
        Ok(self.first_column(&[name])?.1)
    }

    /// The first of these names that a column has, and which column.
    pub fn first_column(&self, names: &[&str]) -> Result<(usize, usize)> {
        let index = |name: &str| self.columns.iter().position(|column| column == name);
        let mut known = names.iter().enumerate();
        match known.find_map(|(position, name)| Some((position, index(name)?))) {
            Some(found) => Ok(found),
            None => bail!(
                "there is no column `{}`; there are: {}",
                names.join("` or `"),
                self.columns.join(", ")
            ),
        }
    }

    /// The first and the last time.
    pub fn span(&self) -> (Timestamp, Timestamp) {
        let at = |row: Option<&Row>| row.map_or(Timestamp::UNIX_EPOCH, |row| row.at);
        (at(self.rows.first()), at(self.rows.last()))
    }
}

fn row(record: &csv::StringRecord) -> Result<Row> {
    let mut fields = record.iter();
    let at = time(fields.next().unwrap_or_default())?;
    let values = fields.map(|text| match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .with_context(|| format!("{text:?} is no quantity")),
    });
    Ok(Row {
        at,
        values: values.collect::<Result<_>>()?,
    })
}

/// RFC 3339, or seconds since any moment.
fn time(text: &str) -> Result<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        let since = SignedDuration::try_from_secs_f64(seconds);
        let at = since
            .ok()
            .and_then(|since| Timestamp::UNIX_EPOCH.checked_add(since).ok());
        return at.with_context(|| format!("{text} seconds is out of range"));
    }
    text.parse().with_context(|| {
        format!("{text:?} is neither a time such as 2026-01-31T08:00:00Z nor a number of seconds")
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_field_that_is_empty_is_no_reading() {
        let text = "time, cpu, lag\n0, 250m, 3\n2026-01-01T00:00:00Z,,1k\n";
        let recording = Recording::parse(text.as_bytes()).unwrap();
        let cpu = recording.column("cpu").unwrap();
        let read: Vec<_> = recording.rows.iter().map(|row| row.get(cpu)).collect();
        assert_eq!(read, [Some(Quantity::from_millis(250)), None]);
        assert_eq!(recording.span().0, Timestamp::UNIX_EPOCH);
        let error = recording.column("memory").unwrap_err().to_string();
        assert!(error.contains("there are: cpu, lag"), "{error}");
    }

    #[rstest]
    #[case::no_time("when,cpu\n0,1\n1,1\n", "first column")]
    #[case::a_time_that_is_none("time,cpu\n0,1\nnoon,1\n", "line 3")]
    #[case::a_time_beyond_all("time,cpu\n0,1\n1e300,1\n", "out of range")]
    #[case::back_in_time("time,cpu\n5,1\n5,1\n", "line 3: its time is not after")]
    #[case::a_number_that_is_none("time,cpu\n0,much\n1,1\n", "\"much\" is no quantity")]
    #[case::a_line_that_is_short("time,cpu\n0,1\n1\n", "line")]
    #[case::one_line("time,cpu\n0,1\n", "two lines")]
    fn what_cannot_be_read_says_where(#[case] text: &str, #[case] says: &str) {
        let error = format!("{:#}", Recording::parse(text.as_bytes()).unwrap_err());
        assert!(error.contains(says), "{error}");
    }
}
