//! One plot: lines over logarithmic axes.

use std::ops::Range;

use anyhow::anyhow;
use plotters::prelude::*;
use vianic_tools::bench::contestant::Role;

const SIZE: (u32, u32) = (1150, 540);
/// Room around the plot; on the right for the names of the lines.
const MARGIN: u32 = 16;
const NAMES: u32 = 270;
/// Room for the axes' labels: below, and on the left.
const LABELS: (u32, u32) = (44, 80);
/// Where the names are, from the upper left corner of the plot.
const NAMES_AT: (i32, i32) = (SIZE.0.cast_signed() - (MARGIN + LABELS.1 + NAMES).cast_signed() + 12, 0);

/// A plot to be drawn.
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

/// What an axis shows.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) show: fn(f64) -> String,
}

/// One line.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) points: Vec<(f64, f64)>,
}

impl Plot {
    /// The plot as SVG.
    pub(super) fn svg(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| anyhow!("cannot draw {}: {error}", self.title))?;
        // The document's own declaration is in the way where the drawing is put into a page.
        Ok(svg.find("<svg").map_or_else(String::new, |start| svg[start..].to_owned()))
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = range(points().map(|point| point.0), 1.15);
        let y = range(points().map(|point| point.1), 1.4);
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(MARGIN)
            .margin_right(NAMES)
            .x_label_area_size(LABELS.0)
            .y_label_area_size(LABELS.1)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x.title)
            .y_desc(self.y.title)
            .x_label_formatter(&|x| (self.x.show)(*x))
            .y_label_formatter(&|y| (self.y.show)(*y))
            .label_style(("sans-serif", 14))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (number, line) in self.lines.iter().enumerate() {
            let color = color(line.role, number);
            let style = color.stroke_width(if line.role == Role::Card { 3 } else { 2 });
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(3))?
                .label(line.name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::Coordinate(NAMES_AT.0, NAMES_AT.1))
            .label_font(("sans-serif", 13))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// The limit is black, other limits grey, the card red; everybody else has some other colour.
fn color(role: Role, number: usize) -> RGBAColor {
    match role {
        Role::Limit => BLACK.to_rgba(),
        Role::Bound => BLACK.mix(0.45),
        Role::Card if number.is_multiple_of(2) => RGBColor(200, 20, 40).to_rgba(),
        Role::Card => RGBColor(240, 110, 60).to_rgba(),
        Role::Peer => {
            const PEERS: [RGBColor; 8] = [
                RGBColor(20, 90, 180),
                RGBColor(30, 140, 70),
                RGBColor(130, 60, 170),
                RGBColor(0, 150, 170),
                RGBColor(150, 110, 20),
                RGBColor(90, 110, 130),
                RGBColor(220, 100, 180),
                RGBColor(100, 190, 50),
            ];
            PEERS[number % PEERS.len()].to_rgba()
        }
    }
}

/// From the least to the most, with some room.
fn range(figures: impl Iterator<Item = f64> + Clone, room: f64) -> Range<f64> {
    let low = figures.clone().fold(f64::INFINITY, f64::min);
    let high = figures.fold(0.0, f64::max);
    if low.is_finite() && low > 0.0 { low / room..high * room } else { 0.5..2.0 }
}
