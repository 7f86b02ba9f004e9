//! What is shown: panels with axes, and marks in the units of the data.

use super::{Axis, Style};

/// One picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it shows, in a sentence; broken into lines where it is long.
    pub title: String,
    /// Panels in a row.
    pub columns: usize,
    /// Width and height of a panel's plotting area.
    pub panel_size: [f64; 2],
    /// Panels, row by row.
    pub panels: Vec<Panel>,
}

/// A pair of axes with marks. Names of layers make the figure's legend, each name once.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What it shows; may be empty.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Marks, the lowest first.
    pub layers: Vec<Layer>,
}

/// A mark with its looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// What is drawn.
    pub mark: Mark,
    /// How.
    pub style: Style,
    /// Its name in the legend; empty for none.
    pub name: String,
}

/// What is drawn, in units of the data. What lies outside of the axes is cut off.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// Points joined in order, with the style's marker at each; a point that is not finite breaks the line.
    Line(Vec<[f64; 2]>),
    /// The style's marker at each point.
    Points(Vec<[f64; 2]>),
    /// A small dot at each of many points.
    Dots(Vec<[f64; 2]>),
    /// x, y and the error of y on either side of it.
    ErrorBars(Vec<[f64; 3]>),
    /// x, y and the error of x on either side of it.
    ErrorBarsAcross(Vec<[f64; 3]>),
    /// x, and the lower and upper end of y: a filled area between two lines.
    Band(Vec<[f64; 3]>),
    /// Left, right, lower and upper end: bars, strips, cells.
    Rectangles(Vec<[f64; 4]>),
    /// Lines of equal value, each with its value written on it.
    Contours(Grid, Vec<f64>),
    /// A vertical line at x across the panel.
    Vertical(f64),
    /// A horizontal line at y across the panel.
    Horizontal(f64),
    /// Text that begins right of a point.
    Note([f64; 2], String),
}

/// A function on an even grid, row by row from the lowest y: values at (x_0, y_0), (x_1, y_0), ...
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Smallest and largest x.
    pub x: [f64; 2],
    /// Smallest and largest y.
    pub y: [f64; 2],
    /// Points along x, at least 2.
    pub columns: usize,
    /// Values.
    pub values: Vec<f64>,
}

impl Grid {
    /// Values of a function of x and y on `size` times `size` points.
    pub fn of(x: [f64; 2], y: [f64; 2], size: usize, value: impl Fn(f64, f64) -> f64) -> Self {
        let at =
            |[low, high]: [f64; 2], i: usize| low + (high - low) * i as f64 / (size - 1) as f64;
        let values = (0..size * size)
            .map(|i| value(at(x, i % size), at(y, i / size)))
            .collect();
        Self {
            x,
            y,
            columns: size,
            values,
        }
    }
}

impl Figure {
    /// A figure without panels.
    pub fn new(title: impl Into<String>, columns: usize, panel_size: [f64; 2]) -> Self {
        Self {
            title: title.into(),
            columns,
            panel_size,
            panels: Vec::new(),
        }
    }
}

impl Panel {
    /// A panel without marks.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            layers: Vec::new(),
        }
    }

    /// Adds a mark above the others; the name goes to the legend, unless it is empty.
    pub fn add(&mut self, mark: Mark, style: Style, name: &str) {
        self.layers.push(Layer {
            mark,
            style,
            name: name.to_owned(),
        });
    }
}

impl Mark {
    /// Bars of `width` around each x, from 0 up (or down) to y.
    pub fn bars(points: &[[f64; 2]], width: f64) -> Self {
        let bar = |[x, y]: &[f64; 2]| [x - width / 2.0, x + width / 2.0, y.min(0.0), y.max(0.0)];
        Self::Rectangles(points.iter().map(bar).collect())
    }

    /// Bars of `width` around each y, from 0 to the right (or left) to x.
    pub fn bars_across(points: &[[f64; 2]], width: f64) -> Self {
        let bar = |[x, y]: &[f64; 2]| [x.min(0.0), x.max(0.0), y - width / 2.0, y + width / 2.0];
        Self::Rectangles(points.iter().map(bar).collect())
    }

    /// All x and y that the axes should show.
    pub(super) fn extent(&self) -> (Vec<f64>, Vec<f64>) {
        match self {
            Self::Line(points) | Self::Points(points) | Self::Dots(points) => {
                points.iter().map(|[x, y]| (*x, *y)).unzip()
            }
            Self::ErrorBars(points) => (
                points.iter().map(|p| p[0]).collect(),
                points
                    .iter()
                    .flat_map(|p| [p[1] - p[2], p[1] + p[2]])
                    .collect(),
            ),
            Self::ErrorBarsAcross(points) => (
                points
                    .iter()
                    .flat_map(|p| [p[0] - p[2], p[0] + p[2]])
                    .collect(),
                points.iter().map(|p| p[1]).collect(),
            ),
            Self::Band(points) => (
                points.iter().map(|p| p[0]).collect(),
                points.iter().flat_map(|p| [p[1], p[2]]).collect(),
            ),
            Self::Rectangles(all) => (
                all.iter().flat_map(|r| [r[0], r[1]]).collect(),
                all.iter().flat_map(|r| [r[2], r[3]]).collect(),
            ),
            Self::Vertical(x) => (vec![*x], vec![]),
            Self::Horizontal(y) => (vec![], vec![*y]),
            Self::Contours(grid, _) => (grid.x.to_vec(), grid.y.to_vec()),
            Self::Note(..) => (vec![], vec![]),
        }
    }
}
