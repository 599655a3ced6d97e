//! The report's picture: each ratio and each time as a point on its scale, with its spread and its aim.

use std::io;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Aim, Section};
use crate::stats::Spread;

const WIDTH: i32 = 1000;
/// Where labels end and the scale begins.
const LEFT: i32 = 400;
const RIGHT: i32 = 960;
const ROW: i32 = 20;
const HEAD: i32 = 64;

const GRID: RGBColor = RGBColor(222, 222, 222);
const INK: RGBColor = RGBColor(60, 60, 60);
const PLAIN: RGBColor = RGBColor(70, 110, 160);
const MET: RGBColor = RGBColor(40, 130, 70);
const MISSED: RGBColor = RGBColor(190, 60, 50);
const AIM: RGBColor = RGBColor(120, 120, 120);

struct Row {
    label: String,
    spread: Spread,
    aim: Option<Aim>,
}

struct Panel {
    title: &'static str,
    rows: Vec<Row>,
    scale: Scale,
}

/// Draws the ratios, and the cases that are times in milliseconds.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(path: &Path, sections: &[&Section]) -> io::Result<()> {
    let panels: Vec<Panel> = [ratios(sections), times(sections)]
        .into_iter()
        .flatten()
        .collect();
    let height = panels.iter().map(Panel::height).sum::<i32>().max(HEAD);
    let root = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    let drawn = root.fill(&WHITE).and_then(|()| {
        let mut top = 0;
        for panel in &panels {
            panel.draw(&root, top)?;
            top += panel.height();
        }
        root.present()
    });
    drawn.map_err(|error| io::Error::other(error.to_string()))
}

fn ratios(sections: &[&Section]) -> Option<Panel> {
    let all = sections.iter().flat_map(|section| section.ratios());
    let rows: Vec<Row> = all
        .map(|ratio| Row {
            label: ratio.name.clone(),
            spread: Spread {
                median: ratio.of_medians,
                ..ratio.of_rounds
            },
            aim: ratio.aim,
        })
        .collect();
    panel(
        "Ratios: of medians, the rounds' least and most, the aim (a tick)",
        rows,
    )
}

fn times(sections: &[&Section]) -> Option<Panel> {
    let all = sections.iter().flat_map(|section| section.cases());
    let rows: Vec<Row> = all
        .filter(|case| case.unit == "ms")
        .map(|case| Row {
            label: case.name.clone(),
            spread: Spread::of(&case.values),
            aim: case.aim,
        })
        .collect();
    panel(
        "Times in milliseconds: median, least and most of the rounds, the aim (a tick)",
        rows,
    )
}

fn panel(title: &'static str, rows: Vec<Row>) -> Option<Panel> {
    let scale = Scale::over(&rows)?;
    Some(Panel { title, rows, scale })
}

/// A logarithmic scale between two powers of two: ratios of 2 and 1/2 are equally far from 1.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Exponents.
    first: i32,
    last: i32,
}

impl Scale {
    /// The scale that shows all rows. `None` if there is nothing to show.
    fn over(rows: &[Row]) -> Option<Scale> {
        let bounds = rows.iter().flat_map(|row| {
            let aim = row.aim.map_or(row.spread.median, Aim::bound);
            [row.spread.least, row.spread.most, row.spread.median, aim]
        });
        let (least, most) = bounds
            .filter(|value| value.is_finite() && *value > 0.0)
            .fold((f64::MAX, f64::MIN), |(least, most), value| {
                (least.min(value), most.max(value))
            });
        (least <= most).then(|| {
            let first = least.log2().floor() as i32;
            Scale {
                first,
                last: (most.log2().ceil() as i32).max(first + 1),
            }
        })
    }

    /// The pixel of a value; what is not on the scale is at its end.
    fn x(self, value: f64) -> i32 {
        let exponent = value.clamp(2f64.powi(self.first), 2f64.powi(self.last)).log2();
        let share = (exponent - f64::from(self.first)) / f64::from(self.last - self.first);
        LEFT + (share * f64::from(RIGHT - LEFT)) as i32
    }
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Panel {
    fn height(&self) -> i32 {
        HEAD + self.rows.len() as i32 * ROW + ROW
    }

    fn draw(&self, root: &Area<'_>, top: i32) -> Drawn {
        let bottom = top + HEAD + self.rows.len() as i32 * ROW;
        let bold = ("sans-serif", 18).into_font().style(FontStyle::Bold).color(&INK);
        root.draw(&Text::new(self.title, (16, top + 16), bold))?;
        for exponent in self.scale.first..=self.scale.last {
            let value = 2f64.powi(exponent);
            let x = self.scale.x(value);
            line(root, (x, top + HEAD - 10), (x, bottom), &GRID, 1)?;
            text(root, &value.to_string(), (x, top + HEAD - 18), HPos::Center)?;
        }
        for (number, row) in self.rows.iter().enumerate() {
            self.draw_row(root, row, top + HEAD + number as i32 * ROW + ROW / 2)?;
        }
        Ok(())
    }

    fn draw_row(&self, root: &Area<'_>, row: &Row, y: i32) -> Drawn {
        let x = |value| self.scale.x(value);
        let colour = match row.aim {
            None => &PLAIN,
            Some(aim) if aim.is_met_by(row.spread.median) => &MET,
            Some(_) => &MISSED,
        };
        text(root, &row.label, (LEFT - 12, y), HPos::Right)?;
        line(root, (x(row.spread.least), y), (x(row.spread.most), y), colour, 2)?;
        root.draw(&Circle::new((x(row.spread.median), y), 4, colour.filled()))?;
        if let Some(aim) = row.aim {
            let x = x(aim.bound());
            line(root, (x, y - 7), (x, y + 7), &AIM, 2)?;
        }
        Ok(())
    }
}

fn line(root: &Area<'_>, from: (i32, i32), to: (i32, i32), colour: &RGBColor, width: u32) -> Drawn {
    root.draw(&PathElement::new(vec![from, to], colour.stroke_width(width)))
}

fn text(root: &Area<'_>, text: &str, at: (i32, i32), side: HPos) -> Drawn {
    let style = ("sans-serif", 15)
        .into_font()
        .color(&INK)
        .pos(Pos::new(side, VPos::Center));
    root.draw(&Text::new(text.to_owned(), at, style))
}
