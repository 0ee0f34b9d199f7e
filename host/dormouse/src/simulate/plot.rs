//! A drawing of a simulation: replicas over time, and under them each recorded metric.

use std::path::Path;

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::recording::Recording;
use super::timeline::{Timeline, hours};

const WIDTH: u32 = 960;
/// Height of each panel.
const HEIGHT: u32 = 220;
/// The most points of a line: more than that no screen shows.
const POINTS: usize = 4000;

/// A recorded column to draw.
pub(super) struct Column<'a> {
    pub name: &'a str,
    pub index: usize,
}

/// Replicas that were recorded beside the metrics, to compare with.
pub(super) fn write(
    path: &Path,
    title: &str,
    timeline: &Timeline,
    recording: &Recording,
    recorded_replicas: Option<usize>,
    columns: &[Column<'_>],
) -> Result<()> {
    let mut svg = String::new();
    let panels = u32::try_from(columns.len() + 1)?;
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT * panels)).into_drawing_area();
        draw(
            &root,
            panels,
            title,
            timeline,
            recording,
            recorded_replicas,
            columns,
        )
        .map_err(|error| anyhow!("it could not be drawn: {error}"))?;
    }
    std::fs::write(path, svg)?;
    Ok(())
}

type Point = (f64, f64);
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    panels: u32,
    title: &str,
    timeline: &Timeline,
    recording: &Recording,
    recorded_replicas: Option<usize>,
    columns: &[Column<'_>],
) -> Drawn {
    root.fill(&WHITE)?;
    let (begin, end) = (timeline.begin, timeline.end);
    let areas = root.split_evenly((usize::try_from(panels)?, 1));
    let mut areas = areas.iter();
    let replicas = steps(
        timeline
            .spans()
            .map(|(from, to, count)| (hours(begin, from), hours(begin, to), f64::from(count))),
    );
    let recorded = recorded_replicas.map(|column| recorded(recording, column, begin));
    let simulated = Line {
        name: "simulated",
        points: &replicas,
        color: BLUE,
    };
    let mut lines = Vec::from_iter(recorded.as_ref().map(|points| Line {
        name: "recorded",
        points,
        color: RGBColor(120, 120, 120),
    }));
    lines.push(simulated);
    if let Some(area) = areas.next() {
        panel(area, &format!("{title}: replicas"), hours(begin, end), &lines)?;
    }
    for (area, column) in areas.zip(columns) {
        let points = self::recorded(recording, column.index, begin);
        let line = Line {
            name: column.name,
            points: &points,
            color: RGBColor(200, 90, 20),
        };
        panel(area, column.name, hours(begin, end), &[line])?;
    }
    root.present()?;
    Ok(())
}

struct Line<'a> {
    name: &'a str,
    points: &'a [Point],
    color: RGBColor,
}

fn panel(area: &DrawingArea<SVGBackend<'_>, Shift>, caption: &str, hours: f64, lines: &[Line<'_>]) -> Drawn {
    let most = lines
        .iter()
        .flat_map(|line| line.points)
        .map(|(_, value)| *value)
        .fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..hours.max(f64::MIN_POSITIVE), 0.0..(most * 1.1).max(1.0))?;
    chart
        .configure_mesh()
        .x_desc("hours")
        .light_line_style(TRANSPARENT)
        .draw()?;
    for line in lines {
        let drawn = chart.draw_series(LineSeries::new(
            line.points.iter().copied(),
            line.color.stroke_width(2),
        ))?;
        if lines.len() > 1 {
            let color = line.color;
            drawn
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
        }
    }
    if lines.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .draw()?;
    }
    Ok(())
}

/// A value holds until the next: two points for each.
fn steps(spans: impl Iterator<Item = (f64, f64, f64)>) -> Vec<Point> {
    spans
        .flat_map(|(from, to, value)| [(from, value), (to, value)])
        .collect()
}

/// The readings of a column; of very many the largest of each group.
fn recorded(recording: &Recording, column: usize, begin: Timestamp) -> Vec<Point> {
    let group = recording.rows.len().div_ceil(POINTS).max(1);
    let groups = recording.rows.chunks(group);
    let points = groups.filter_map(|rows| {
        let values = rows.iter().filter_map(|row| Some((row.at, row.get(column)?)));
        let (at, value) = values.max_by_key(|(_, value)| *value)?;
        Some((hours(begin, at), value.approximate()))
    });
    points.collect()
}
