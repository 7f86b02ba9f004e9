//! Lays out a figure as shapes at positions: title, legend, panels with axes, marks.

use super::{
    Axis, Dash, Figure, Ink, Mark, Marker, Panel, Style,
    axis::Tick,
    clip::{Frame, simplified},
    contour,
    drawing::{Anchor, Drawing, Point, Shape, Stroke, Text},
    figure::Layer,
    font,
};

/// Font sizes.
const TITLE: f64 = 15.0;
const PANEL_TITLE: f64 = 13.0;
const NAME: f64 = 12.5;
const TICK: f64 = 11.5;
const ON_LINE: f64 = 10.0;

/// Margin around the figure, line height, and distance between panels.
const EDGE: f64 = 14.0;
const LINE: f64 = 19.0;
const BETWEEN: f64 = 22.0;
/// Space below a panel for ticks and the axis name.
const BELOW: f64 = 46.0;
/// Radius of a marker and of a dot, and half the width of the cap of an error bar.
const MARKER: f64 = 4.2;
const DOT: f64 = 1.3;
const CAP: f64 = 6.5;
/// Width of a legend sample.
const SAMPLE: f64 = 34.0;
/// Largest width of the label of a category; longer labels have several lines.
const CATEGORY: f64 = 250.0;
/// Distance between the lines of a label.
const LABEL_LINE: f64 = 13.0;

/// The lines of the label of a tick on the y axis.
fn label_lines(axis: &Axis, label: &str) -> Vec<String> {
    if axis.categories.is_empty() {
        vec![label.to_owned()]
    } else {
        font::lines(label, TICK, CATEGORY)
    }
}

/// Height that the label of a category needs.
pub(super) fn label_height(label: &str) -> f64 {
    font::lines(label, TICK, CATEGORY).len() as f64 * LABEL_LINE + 4.0
}

/// Computes the shapes of a figure.
pub(super) fn lay_out(figure: &Figure) -> Drawing {
    let [panel_width, panel_height] = figure.panel_size;
    let panels: Vec<Placed> = figure
        .panels
        .iter()
        .map(|panel| Placed::of(panel, figure.panel_size))
        .collect();
    let columns = figure.columns.clamp(1, figure.panels.len().max(1));
    let lefts = lefts(&panels, columns);
    let cells = lefts
        .iter()
        .map(|left| left + panel_width + BETWEEN)
        .sum::<f64>();
    let width = 2.0 * EDGE + cells - BETWEEN + 6.0;

    let mut shapes = Vec::new();
    let mut y = EDGE;
    for line in font::lines(&figure.title, TITLE, width - 2.0 * EDGE) {
        y += LINE;
        shapes.push(text(
            [EDGE, y - 4.0],
            &line,
            TITLE,
            Anchor::Start,
            Ink::Text,
            true,
        ));
    }
    y = legend(figure, width, y + 6.0, &mut shapes);
    for (row, panels) in panels.chunks(columns).enumerate() {
        let titles = panels
            .iter()
            .map(|placed| font::lines(&placed.panel.title, PANEL_TITLE, panel_width).len())
            .max();
        let above = titles.unwrap_or(0) as f64 * LINE + 10.0;
        let top = y + above + if row > 0 { 10.0 } else { 0.0 };
        let mut x = EDGE - BETWEEN - panel_width;
        for (placed, &left) in panels.iter().zip(&lefts) {
            x += BETWEEN + panel_width + left;
            let frame = Frame {
                x: [x, x + panel_width],
                y: [top, top + panel_height],
            };
            placed.draw(frame, left, &mut shapes);
        }
        y = top + panel_height + BELOW;
    }
    Drawing {
        size: [width, y + EDGE / 2.0],
        title: figure.title.clone(),
        shapes,
    }
}

/// Space left of the panels of each column: the axis name and its widest tick label.
fn lefts(panels: &[Placed], columns: usize) -> Vec<f64> {
    let left = |column: usize| {
        let placed = || panels.iter().skip(column).step_by(columns);
        let mut widest: f64 = 0.0;
        for placed in placed() {
            for tick in &placed.y_ticks {
                for line in label_lines(&placed.panel.y, &tick.label) {
                    widest = widest.max(font::width(&line, TICK));
                }
            }
        }
        let named = placed().any(|placed| !placed.panel.y.name.is_empty());
        // A panel without labels still keeps a distance from the ticks of its neighbor.
        if widest == 0.0 && !named {
            16.0
        } else {
            widest + 8.0 + if named { NAME + 8.0 } else { 0.0 }
        }
    };
    (0..columns).map(left).collect()
}

/// Panel width for a figure that is `width` wide.
pub(super) fn panel_width(figure: &Figure, width: f64) -> f64 {
    let panels: Vec<Placed> = figure
        .panels
        .iter()
        .map(|panel| Placed::of(panel, figure.panel_size))
        .collect();
    let columns = figure.columns.clamp(1, figure.panels.len().max(1));
    let beside = lefts(&panels, columns)
        .iter()
        .map(|left| left + BETWEEN)
        .sum::<f64>()
        - BETWEEN;
    (width - 2.0 * EDGE - 6.0 - beside) / columns as f64
}

fn text(at: Point, text: &str, size: f64, anchor: Anchor, ink: Ink, bold: bool) -> Shape {
    Shape::Text(Text {
        at,
        text: text.to_owned(),
        size,
        anchor,
        ink,
        bold,
        upwards: false,
        rim: false,
    })
}

/// Adds the legend: the names of all layers, each once, in as many lines as needed. Returns the y
/// below it.
fn legend(figure: &Figure, width: f64, top: f64, shapes: &mut Vec<Shape>) -> f64 {
    let mut named: Vec<&Layer> = Vec::new();
    for layer in figure
        .panels
        .iter()
        .flat_map(|panel| &panel.layers)
        .filter(|layer| !layer.name.is_empty())
    {
        if !named.iter().any(|other| other.name == layer.name) {
            named.push(layer);
        }
    }
    let (mut x, mut y) = (EDGE, top + LINE / 2.0);
    // A name that is wider than the figure has several lines.
    let room = width - 2.0 * EDGE - SAMPLE - 6.0;
    for layer in &named {
        let lines = font::lines(&layer.name, NAME, room);
        let longest = lines.iter().map(|line| font::width(line, NAME));
        let length = SAMPLE + 6.0 + longest.fold(0.0, f64::max);
        if x + length > width - EDGE && x > EDGE {
            (x, y) = (EDGE, y + LINE);
        }
        sample(layer, [x, y], shapes);
        for (i, line) in lines.iter().enumerate() {
            y += if i > 0 { LINE } else { 0.0 };
            shapes.push(text(
                [x + SAMPLE + 6.0, y + 4.5],
                line,
                NAME,
                Anchor::Start,
                Ink::Text,
                false,
            ));
        }
        x += length + 20.0;
    }
    if named.is_empty() {
        top
    } else {
        y + LINE / 2.0
    }
}

/// Adds the sample of a layer, left of its name in the legend.
fn sample(layer: &Layer, [x, y]: Point, shapes: &mut Vec<Shape>) {
    let (style, middle) = (&layer.style, [x + SAMPLE / 2.0, y]);
    match &layer.mark {
        Mark::Line(_) | Mark::Contours(..) | Mark::Vertical(_) | Mark::Horizontal(_) => {
            shapes.push(Shape::Line(vec![[x, y], [x + SAMPLE, y]], stroke(style)));
            if let (Some(marker), Mark::Line(_)) = (style.marker, &layer.mark) {
                place_marker(marker, middle, style, shapes);
            }
        }
        Mark::Points(_) => place_marker(
            style.marker.unwrap_or(Marker::Circle),
            middle,
            style,
            shapes,
        ),
        Mark::Dots(_) => shapes.push(Shape::Dots(vec![middle], 2.0 * DOT, style.ink, 1.0)),
        Mark::ErrorBars(_) => error_bar(middle[0], [y - 7.0, y + 7.0], style, shapes),
        Mark::ErrorBarsAcross(_) => {
            error_bar_across(y, [middle[0] - 10.0, middle[0] + 10.0], style, shapes);
        }
        Mark::Band(_) | Mark::Rectangles(_) => {
            let [left, right, top, bottom] = [x + 6.0, x + SAMPLE - 6.0, y - 6.0, y + 6.0];
            let corners = vec![[left, top], [right, top], [right, bottom], [left, bottom]];
            shapes.push(Shape::Area(corners, style.ink, style.opacity));
        }
        Mark::Note(..) => {}
    }
}

fn stroke(style: &Style) -> Stroke {
    Stroke {
        ink: style.ink,
        width: style.width,
        dash: style.dash,
        opacity: style.opacity,
    }
}

fn place_marker(marker: Marker, [x, y]: Point, style: &Style, shapes: &mut Vec<Shape>) {
    let mut corners: Vec<Point> = marker
        .outline(MARKER)
        .iter()
        .map(|[dx, dy]| [x + dx, y + dy])
        .collect();
    shapes.push(Shape::Area(corners.clone(), style.ink, style.opacity));
    // A rim separates overlapping markers.
    corners.push(corners[0]);
    shapes.push(Shape::Line(
        corners,
        Stroke {
            ink: Ink::Paper,
            width: 0.8,
            dash: Dash::Solid,
            opacity: 1.0,
        },
    ));
}

fn error_bar(x: f64, [top, bottom]: [f64; 2], style: &Style, shapes: &mut Vec<Shape>) {
    let line = Stroke {
        width: style.width.min(1.5),
        dash: Dash::Solid,
        ..stroke(style)
    };
    shapes.push(Shape::Line(vec![[x, top], [x, bottom]], line));
    for y in [top, bottom] {
        shapes.push(Shape::Line(vec![[x - CAP, y], [x + CAP, y]], line));
    }
}

fn error_bar_across(y: f64, [left, right]: [f64; 2], style: &Style, shapes: &mut Vec<Shape>) {
    let line = Stroke {
        width: style.width.min(1.5),
        dash: Dash::Solid,
        ..stroke(style)
    };
    shapes.push(Shape::Line(vec![[left, y], [right, y]], line));
    for x in [left, right] {
        shapes.push(Shape::Line(
            vec![[x, y - CAP / 2.0], [x, y + CAP / 2.0]],
            line,
        ));
    }
}

/// A panel with the limits and ticks of its axes.
struct Placed<'p> {
    panel: &'p Panel,
    x_ends: [f64; 2],
    y_ends: [f64; 2],
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
}

impl<'p> Placed<'p> {
    fn of(panel: &'p Panel, [width, height]: [f64; 2]) -> Self {
        let (x, y): (Vec<_>, Vec<_>) = panel.layers.iter().map(|layer| layer.mark.extent()).unzip();
        let x_ends = panel.x.ends(x.into_iter().flatten());
        let y_ends = panel.y.ends(y.into_iter().flatten());
        // As many ticks as there is room for their labels.
        let room = |length: f64, each: f64| ((length / each) as usize).clamp(2, 7);
        let x_ticks = panel.x.ticks(x_ends, room(width, 36.0));
        Self {
            panel,
            x_ends,
            y_ends,
            x_ticks,
            y_ticks: panel.y.ticks(y_ends, room(height, 28.0)),
        }
    }

    fn draw(&self, frame: Frame, left: f64, shapes: &mut Vec<Shape>) {
        self.axes(frame, left, shapes);
        for (index, layer) in self.panel.layers.iter().enumerate() {
            self.layer(layer, index, frame, shapes);
        }
    }

    /// The position of a data point in the drawing. A value that the axis cannot show is far below
    /// it or not finite.
    fn at(&self, frame: Frame, x: f64, y: f64) -> Point {
        let share = |axis: &Axis, [low, high]: [f64; 2], value: f64| {
            let share = (axis.place(value) - low) / (high - low);
            if share == f64::NEG_INFINITY {
                -1e3
            } else {
                share
            }
        };
        let (right, up) = (
            share(&self.panel.x, self.x_ends, x),
            share(&self.panel.y, self.y_ends, y),
        );
        let [[left, far], [top, bottom]] = [frame.x, frame.y];
        [left + right * (far - left), bottom - up * (bottom - top)]
    }

    fn axes(&self, frame: Frame, left: f64, shapes: &mut Vec<Shape>) {
        let Frame {
            x: [x0, x1],
            y: [y0, y1],
        } = frame;
        let line = |from: Point, to: Point, opacity: f64| {
            Shape::Line(
                vec![from, to],
                Stroke {
                    ink: Ink::Grid,
                    width: 1.0,
                    dash: Dash::Solid,
                    opacity,
                },
            )
        };
        let strength = |tick: &Tick| if tick.label.is_empty() { 0.4 } else { 1.0 };
        let named = |axis: &Axis| !axis.categories.is_empty();
        for tick in &self.x_ticks {
            let x = self.at(frame, tick.at, f64::NAN)[0];
            if !named(&self.panel.x) {
                shapes.push(line([x, y0], [x, y1], strength(tick)));
            }
            shapes.push(text(
                [x, y1 + 16.0],
                &tick.label,
                TICK,
                Anchor::Middle,
                Ink::Muted,
                false,
            ));
        }
        for tick in &self.y_ticks {
            let y = self.at(frame, f64::NAN, tick.at)[1];
            if !named(&self.panel.y) {
                shapes.push(line([x0, y], [x1, y], strength(tick)));
            }
            let lines = label_lines(&self.panel.y, &tick.label);
            let first = y + 4.0 - (lines.len() as f64 - 1.0) / 2.0 * LABEL_LINE;
            for (i, line) in lines.iter().enumerate() {
                shapes.push(text(
                    [x0 - 7.0, first + i as f64 * LABEL_LINE],
                    line,
                    TICK,
                    Anchor::End,
                    Ink::Muted,
                    false,
                ));
            }
        }
        let outline = vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]];
        shapes.push(Shape::Line(
            outline,
            Stroke {
                ink: Ink::Muted,
                width: 1.0,
                dash: Dash::Solid,
                opacity: 0.7,
            },
        ));
        let titles = font::lines(&self.panel.title, PANEL_TITLE, x1 - x0);
        for (i, line) in titles.iter().enumerate() {
            let above = (titles.len() - i) as f64 * LINE - 10.0;
            shapes.push(text(
                [x0, y0 - above],
                line,
                PANEL_TITLE,
                Anchor::Start,
                Ink::Text,
                true,
            ));
        }
        let middle = [f64::midpoint(x0, x1), y1 + 36.0];
        shapes.push(text(
            middle,
            &self.panel.x.name,
            NAME,
            Anchor::Middle,
            Ink::Muted,
            false,
        ));
        if self.panel.y.name.is_empty() {
            return;
        }
        shapes.push(Shape::Text(Text {
            at: [x0 - left + NAME, f64::midpoint(y0, y1)],
            text: self.panel.y.name.clone(),
            size: NAME,
            anchor: Anchor::Middle,
            ink: Ink::Muted,
            bold: false,
            upwards: true,
            rim: false,
        }));
    }

    fn layer(&self, layer: &Layer, index: usize, frame: Frame, shapes: &mut Vec<Shape>) {
        let style = &layer.style;
        let at = |[x, y]: &[f64; 2]| self.at(frame, *x, *y);
        let line = |points: &[Point], shapes: &mut Vec<Shape>| {
            let pieces = frame.line(points).into_iter();
            shapes.extend(pieces.map(|piece| Shape::Line(simplified(&piece), stroke(style))));
        };
        let area = |points: &[Point], shapes: &mut Vec<Shape>| {
            let inside = frame.area(points);
            if !inside.is_empty() && inside.iter().flatten().all(|x| x.is_finite()) {
                shapes.push(Shape::Area(inside, style.ink, style.opacity));
            }
        };
        let inside = |points: &[[f64; 2]]| {
            points
                .iter()
                .map(at)
                .filter(|p| frame.contains(*p))
                .collect::<Vec<_>>()
        };
        match &layer.mark {
            Mark::Line(points) => {
                // On a log axis, a value that is not above 0 is missing, not small.
                let shown = |[x, y]: &[f64; 2]| {
                    let missing =
                        !self.panel.x.place(*x).is_finite() || !self.panel.y.place(*y).is_finite();
                    if missing {
                        [f64::NAN; 2]
                    } else {
                        at(&[*x, *y])
                    }
                };
                line(&points.iter().map(shown).collect::<Vec<_>>(), shapes);
                if let Some(marker) = style.marker {
                    inside(points)
                        .into_iter()
                        .for_each(|point| place_marker(marker, point, style, shapes));
                }
            }
            Mark::Points(points) => {
                let marker = style.marker.unwrap_or(Marker::Circle);
                inside(points)
                    .into_iter()
                    .for_each(|point| place_marker(marker, point, style, shapes));
            }
            Mark::Dots(points) => {
                shapes.push(Shape::Dots(
                    apart(inside(points)),
                    DOT,
                    style.ink,
                    style.opacity,
                ));
            }
            Mark::ErrorBars(points) => {
                for [x, y, error] in points {
                    let ([x, low], [_, high]) = (at(&[*x, y - error]), at(&[*x, y + error]));
                    if let [piece] = &frame.line(&[[x, low], [x, high]])[..] {
                        error_bar(x, [piece[1][1], piece[0][1]], style, shapes);
                    }
                }
            }
            Mark::ErrorBarsAcross(points) => {
                for [x, y, error] in points {
                    let ([low, y], [high, _]) = (at(&[x - error, *y]), at(&[x + error, *y]));
                    if let [piece] = &frame.line(&[[low, y], [high, y]])[..] {
                        error_bar_across(y, [piece[0][0], piece[1][0]], style, shapes);
                    }
                }
            }
            Mark::Band(points) => {
                let lower = points.iter().map(|[x, low, _]| at(&[*x, *low]));
                let upper = points.iter().rev().map(|[x, _, high]| at(&[*x, *high]));
                area(&lower.chain(upper).collect::<Vec<_>>(), shapes);
            }
            Mark::Rectangles(all) => {
                for [left, right, low, high] in all {
                    area(
                        &[
                            [*left, *low],
                            [*right, *low],
                            [*right, *high],
                            [*left, *high],
                        ]
                        .map(|p| at(&p)),
                        shapes,
                    );
                }
            }
            Mark::Contours(grid, levels) => {
                for level in levels {
                    self.contour(grid, *level, style, index, frame, shapes);
                }
            }
            Mark::Vertical(x) => {
                let x = self.at(frame, *x, f64::NAN)[0];
                line(&[[x, frame.y[0]], [x, frame.y[1]]], shapes);
            }
            Mark::Horizontal(y) => {
                let y = self.at(frame, f64::NAN, *y)[1];
                line(&[[frame.x[0], y], [frame.x[1], y]], shapes);
            }
            Mark::Note(point, words) => {
                let [x, y] = at(point);
                let fits = x + 9.0 + font::width(words, TICK) <= frame.x[1];
                let (x, anchor) = if fits {
                    (x + 9.0, Anchor::Start)
                } else {
                    (x - 9.0, Anchor::End)
                };
                shapes.push(on_top([x, y + 4.0], words, TICK, anchor, style.ink));
            }
        }
    }

    /// Adds the contour lines of a level, and its label on the longest line. Layers place their
    /// labels at different shares of the length, so that labels of neighbors do not overlap.
    fn contour(
        &self,
        grid: &super::Grid,
        level: f64,
        style: &Style,
        index: usize,
        frame: Frame,
        shapes: &mut Vec<Shape>,
    ) {
        let lines = contour::lines(grid, level);
        let pieces: Vec<Vec<Point>> = lines
            .iter()
            .flat_map(|line| {
                frame.line(
                    &line
                        .iter()
                        .map(|[x, y]| self.at(frame, *x, *y))
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        let longest = pieces
            .iter()
            .max_by_key(|piece| piece.len())
            .cloned()
            .unwrap_or_default();
        shapes.extend(
            pieces
                .into_iter()
                .map(|piece| Shape::Line(simplified(&piece), stroke(style))),
        );
        let share = [0.5, 0.12, 0.88][index % 3];
        let at = ((longest.len() as f64 - 1.0) * share).max(0.0) as usize;
        let room = |[x, y]: &Point| {
            *x > frame.x[0] + 14.0
                && *x < frame.x[1] - 14.0
                && *y > frame.y[0] + 10.0
                && *y < frame.y[1] - 10.0
        };
        if let Some([x, y]) = longest.get(at).filter(|point| room(point)) {
            shapes.push(on_top(
                [*x, *y + 3.5],
                &level.to_string(),
                ON_LINE,
                Anchor::Middle,
                style.ink,
            ));
        }
    }
}

/// Text with a rim that hides what is below it.
fn on_top(at: Point, words: &str, size: f64, anchor: Anchor, ink: Ink) -> Shape {
    Shape::Text(Text {
        at,
        text: words.to_owned(),
        size,
        anchor,
        ink,
        bold: false,
        upwards: false,
        rim: true,
    })
}

/// Keeps one of each group of dots that coincide.
fn apart(points: Vec<Point>) -> Vec<Point> {
    let mut seen = std::collections::HashSet::new();
    points
        .into_iter()
        .filter(|point| seen.insert(point.map(|x| (x * 1.5).round() as i64)))
        .collect()
}
