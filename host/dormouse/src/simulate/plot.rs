//! A drawing of a simulation: replicas over time, and under them each recorded metric.

use std::path::Path;

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::columns::Column;
use super::recording::Recording;
use super::timeline::{Timeline, hours};

const WIDTH: u32 = 960;
/// Height of each panel.
const HEIGHT: u32 = 220;
/// The most points of a line: more than that no screen shows.
const POINTS: usize = 4000;

/// What is drawn.
pub(super) struct Drawing<'a> {
    pub title: &'a str,
    pub timeline: &'a Timeline,
    pub recording: &'a Recording,
    /// Replicas that were recorded beside the metrics, to compare with.
    pub recorded_replicas: Option<usize>,
    pub columns: &'a [Column],
}

type Point = (f64, f64);
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

impl Drawing<'_> {
    /// Writes it into a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut svg = String::new();
        self.draw(&mut svg)
            .map_err(|error| anyhow!("it could not be drawn: {error}"))?;
        Ok(std::fs::write(path, svg)?)
    }

    fn draw(&self, svg: &mut String) -> Drawn {
        let panels = self.columns.len() + 1;
        let root = SVGBackend::with_string(svg, (WIDTH, HEIGHT * u32::try_from(panels)?)).into_drawing_area();
        root.fill(&WHITE)?;
        let areas = root.split_evenly((panels, 1));
        let mut areas = areas.iter();
        if let Some(area) = areas.next() {
            self.draw_replicas(area)?;
        }
        for (area, column) in areas.zip(self.columns) {
            let points = self.recorded(column.index);
            let line = Line {
                name: &column.name,
                points: &points,
                color: RGBColor(200, 90, 20),
            };
            self.panel(area, &column.name, &[line])?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_replicas(&self, area: &Area<'_>) -> Drawn {
        // A number holds until the next: two points for each.
        let simulated: Vec<_> = self
            .timeline
            .spans()
            .flat_map(|(from, to, count)| [from, to].map(|at| (self.hour(at), f64::from(count))))
            .collect();
        let recorded = self.recorded_replicas.map(|column| self.recorded(column));
        let recorded = recorded.as_ref().map(|points| Line {
            name: "recorded",
            points,
            color: RGBColor(120, 120, 120),
        });
        let simulated = Line {
            name: "simulated",
            points: &simulated,
            color: BLUE,
        };
        let lines: Vec<_> = recorded.into_iter().chain([simulated]).collect();
        self.panel(area, &format!("{}: replicas", self.title), &lines)
    }

    fn panel(&self, area: &Area<'_>, caption: &str, lines: &[Line<'_>]) -> Drawn {
        let most = lines
            .iter()
            .flat_map(|line| line.points)
            .map(|(_, value)| *value)
            .fold(0.0, f64::max);
        let hours = self.hour(self.timeline.end).max(f64::MIN_POSITIVE);
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..hours, 0.0..(most * 1.1).max(1.0))?;
        chart
            .configure_mesh()
            .x_desc("hours")
            .light_line_style(TRANSPARENT)
            .draw()?;
        for line in lines {
            let color = line.color;
            chart
                .draw_series(LineSeries::new(
                    line.points.iter().copied(),
                    color.stroke_width(2),
                ))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
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

    /// The readings of a column; of very many the largest of each group.
    fn recorded(&self, column: usize) -> Vec<Point> {
        let rows = &self.recording.rows;
        let groups = rows.chunks(rows.len().div_ceil(POINTS).max(1));
        let points = groups.filter_map(|rows| {
            let values = rows.iter().filter_map(|row| Some((row.at, row.get(column)?)));
            let (at, value) = values.max_by_key(|(_, value)| *value)?;
            Some((self.hour(at), value.approximate()))
        });
        points.collect()
    }

    /// Hours since the begin.
    fn hour(&self, at: Timestamp) -> f64 {
        hours(self.timeline.begin, at)
    }
}

struct Line<'a> {
    name: &'a str,
    points: &'a [Point],
    color: RGBColor,
}
