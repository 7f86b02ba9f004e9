//! A picture as few kinds of shapes at places, in units of a CSS pixel, x to the right and y downwards.

use super::style::{Dash, Ink};

/// A place.
pub(super) type Point = [f64; 2];

/// Which part of a text stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A line's looks.
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
    /// Where its base line and its anchor meet.
    pub(super) at: Point,
    pub(super) text: String,
    pub(super) size: f64,
    pub(super) anchor: Anchor,
    pub(super) ink: Ink,
    pub(super) bold: bool,
    /// Read from below to above.
    pub(super) upwards: bool,
    /// Keeps what is below it away by a rim of paper.
    pub(super) rim: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Points joined in order.
    Line(Vec<Point>, Stroke),
    /// A filled polygon.
    Area(Vec<Point>, Ink, f64),
    /// Discs of one radius.
    Dots(Vec<Point>, f64, Ink, f64),
    Text(Text),
}

/// Shapes, the lowest first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawing {
    pub(super) size: Point,
    /// For readers that cannot see it.
    pub(super) title: String,
    pub(super) shapes: Vec<Shape>,
}
