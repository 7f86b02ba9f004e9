//! A drawing as a list of simple shapes, in CSS pixels, with x to the right and y down.

use super::style::{Dash, Ink};

/// A position: x, y.
pub(super) type Point = [f64; 2];

/// Which part of a text is at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// The style of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stroke {
    pub(super) ink: Ink,
    pub(super) width: f64,
    pub(super) dash: Dash,
    pub(super) opacity: f64,
}

/// A line of text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    /// Position of its anchor on its baseline.
    pub(super) at: Point,
    pub(super) text: String,
    pub(super) size: f64,
    pub(super) anchor: Anchor,
    pub(super) ink: Ink,
    pub(super) bold: bool,
    /// Rotated, to be read from bottom to top.
    pub(super) upwards: bool,
    /// Has a rim in the background color that hides what is below it.
    pub(super) rim: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Points connected in order.
    Line(Vec<Point>, Stroke),
    /// A filled polygon.
    Area(Vec<Point>, Ink, f64),
    /// Discs of one radius.
    Dots(Vec<Point>, f64, Ink, f64),
    Text(Text),
}

/// Shapes, from bottom to top.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawing {
    pub(super) size: Point,
    /// Title for screen readers.
    pub(super) title: String,
    pub(super) shapes: Vec<Shape>,
}
