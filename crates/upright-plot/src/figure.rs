//! The content of a figure: panels with axes, and marks in data units.

use super::{Axis, Style};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The title; a long title is broken into lines.
    pub title: String,
    /// Number of panels per row.
    pub columns: usize,
    /// Width and height of the plotting area of a panel.
    pub panel_size: [f64; 2],
    /// Panels, row by row.
    pub panels: Vec<Panel>,
}

/// A pair of axes with marks. The names of all layers form the legend of the figure, each name
/// once.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// The title; may be empty.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Marks, from bottom to top.
    pub layers: Vec<Layer>,
}

/// A mark with its style.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The mark.
    pub mark: Mark,
    /// The style.
    pub style: Style,
    /// Its name in the legend; empty for none.
    pub name: String,
}

/// A mark in data units. Parts outside the axes are clipped.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// Points connected in order, with the style's marker at each. A non-finite point breaks the
    /// line.
    Line(Vec<[f64; 2]>),
    /// The style's marker at each point.
    Points(Vec<[f64; 2]>),
    /// A small dot at each of many points.
    Dots(Vec<[f64; 2]>),
    /// x, y and the error of y in each direction.
    ErrorBars(Vec<[f64; 3]>),
    /// x, y and the error of x in each direction.
    ErrorBarsAcross(Vec<[f64; 3]>),
    /// x, and the lower and upper limit of y: a filled area between two lines.
    Band(Vec<[f64; 3]>),
    /// Left, right, lower and upper edge: bars, strips, cells.
    Rectangles(Vec<[f64; 4]>),
    /// Contour lines at the given levels, each labeled with its level.
    Contours(Grid, Vec<f64>),
    /// A vertical line at x across the panel.
    Vertical(f64),
    /// A horizontal line at y across the panel.
    Horizontal(f64),
    /// Text to the right of a point.
    Note([f64; 2], String),
}

/// A function on a regular grid, row by row from the lowest y: values at (x_0, y_0), (x_1, y_0),
/// ...
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
    /// Evaluates a function of x and y on `size` by `size` points.
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

    /// Adds a mark on top of the others. The name appears in the legend unless it is empty.
    pub fn add(&mut self, mark: Mark, style: Style, name: &str) {
        self.layers.push(Layer {
            mark,
            style,
            name: name.to_owned(),
        });
    }
}

impl Mark {
    /// Vertical bars of `width` around each x, from 0 to y.
    pub fn bars(points: &[[f64; 2]], width: f64) -> Self {
        let bar = |[x, y]: &[f64; 2]| [x - width / 2.0, x + width / 2.0, y.min(0.0), y.max(0.0)];
        Self::Rectangles(points.iter().map(bar).collect())
    }

    /// Horizontal bars of `width` around each y, from 0 to x.
    pub fn bars_across(points: &[[f64; 2]], width: f64) -> Self {
        let bar = |[x, y]: &[f64; 2]| [x.min(0.0), x.max(0.0), y - width / 2.0, y + width / 2.0];
        Self::Rectangles(points.iter().map(bar).collect())
    }

    /// All x and y values that the axes should cover.
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
