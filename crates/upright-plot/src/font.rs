//! The embedded font: text widths for the layout of SVG and PNG, glyph outlines for PNG.

use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId, OutlineBuilder};

/// DejaVu Sans, reduced to Latin, Greek and a few symbols; see the license beside it.
const FILE: &[u8] = include_bytes!("font/DejaVuSans-subset.ttf");

static FACE: LazyLock<Face<'static>> =
    LazyLock::new(|| Face::parse(FILE, 0).expect("the embedded font is valid"));

/// The glyph of a character; a question mark if the font lacks it.
fn glyph(sign: char) -> GlyphId {
    FACE.glyph_index(sign)
        .or_else(|| FACE.glyph_index('?'))
        .unwrap_or_default()
}

fn advance(glyph: GlyphId, size: f64) -> f64 {
    f64::from(FACE.glyph_hor_advance(glyph).unwrap_or(0)) * scale(size)
}

fn scale(size: f64) -> f64 {
    size / f64::from(FACE.units_per_em())
}

/// Width of a line of text.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(|sign| advance(glyph(sign), size)).sum()
}

/// Breaks text at spaces into lines of at most `most` width. A wider word is broken too.
pub(super) fn lines(text: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), size) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.extend(pieces(word, size, most)),
        }
    }
    lines
}

/// Breaks a word into pieces of at most `most` width, each of at least one character.
fn pieces(word: &str, size: f64, most: f64) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut length = 0.0;
    for sign in word.chars() {
        let wide = advance(glyph(sign), size);
        let last = pieces.len() - 1;
        if length + wide > most && !pieces[last].is_empty() {
            pieces.push(sign.to_string());
            length = wide;
        } else {
            pieces[last].push(sign);
            length += wide;
        }
    }
    pieces
}

/// Draws the outline of a line of text that starts at the origin; y points down.
pub(super) fn outline(text: &str, size: f64, pen: &mut tiny_skia::PathBuilder) {
    let mut pen = Pen {
        path: pen,
        x: 0.0,
        scale: scale(size) as f32,
    };
    for sign in text.chars() {
        let glyph = glyph(sign);
        FACE.outline_glyph(glyph, &mut pen);
        pen.x += advance(glyph, size) as f32;
    }
}

/// Draws the outline of a glyph at its position in the line.
struct Pen<'p> {
    path: &'p mut tiny_skia::PathBuilder,
    x: f32,
    scale: f32,
}

impl Pen<'_> {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, -y * self.scale)
    }
}

impl OutlineBuilder for Pen<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }
    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }
    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }
    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }
    fn close(&mut self) {
        self.path.close();
    }
}
