//! Renders a drawing as SVG. Colors are classes, so they follow the reader's light or dark theme.

use std::fmt::Write;

use super::{
    drawing::{Anchor, Drawing, Point, Shape, Text},
    style::{Ink, Theme},
};

/// Fonts that most machines have and that are not wider than the font that the layout measures
/// with.
const FONTS: &str = "system-ui, 'DejaVu Sans', sans-serif";

/// Renders the SVG document.
pub(super) fn write(drawing: &Drawing) -> String {
    let [width, height] = drawing.size;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" font-family=\"{FONTS}\">\n"
    );
    let _ = writeln!(
        svg,
        "<title>{}</title>\n<style>{}</style>",
        escaped(&drawing.title),
        style()
    );
    shapes(drawing, &mut svg);
    svg
}

/// Renders the figure as an element of an HTML page that includes [`style`] once. It fills the
/// available width, up to the width of its layout.
pub(super) fn write_inline(drawing: &Drawing) -> String {
    let [width, height] = drawing.size;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" font-family=\"{FONTS}\" \
         style=\"max-width:{width:.0}px\">\n<title>{}</title>\n",
        escaped(&drawing.title)
    );
    shapes(drawing, &mut svg);
    svg
}

/// Writes all shapes and the end of the element.
fn shapes(drawing: &Drawing, svg: &mut String) {
    let [width, height] = drawing.size;
    let _ = writeln!(
        svg,
        "<rect class=\"up-paper-fill\" width=\"{width:.0}\" height=\"{height:.0}\"/>"
    );
    for shape in &drawing.shapes {
        match shape {
            Shape::Line(points, stroke) => {
                let _ = write!(
                    svg,
                    "<path class=\"up-{}\" fill=\"none\" stroke-width=\"{}\" stroke-linejoin=\"round\"",
                    name(stroke.ink),
                    number(stroke.width)
                );
                let dashes = stroke
                    .dash
                    .pattern()
                    .iter()
                    .map(|length| number(length * stroke.width));
                let dashes = dashes.collect::<Vec<_>>().join(" ");
                if !dashes.is_empty() {
                    let _ = write!(svg, " stroke-dasharray=\"{dashes}\"");
                }
                see_through(svg, stroke.opacity);
                let _ = writeln!(svg, " d=\"{}\"/>", path(points));
            }
            Shape::Area(points, ink, opacity) => {
                let _ = write!(svg, "<path class=\"up-{}-fill\"", name(*ink));
                see_through(svg, *opacity);
                let _ = writeln!(svg, " d=\"{}Z\"/>", path(points));
            }
            Shape::Dots(points, radius, ink, opacity) => {
                let _ = write!(
                    svg,
                    "<path class=\"up-{}\" fill=\"none\" stroke-linecap=\"round\" stroke-width=\"{}\"",
                    name(*ink),
                    number(2.0 * radius)
                );
                see_through(svg, *opacity);
                // A line without length but with a round cap is a disc.
                let dots: String = points
                    .iter()
                    .map(|[x, y]| format!("M{} {}h0", number(*x), number(*y)))
                    .collect();
                let _ = writeln!(svg, " d=\"{dots}\"/>");
            }
            Shape::Text(text) => label(svg, text),
        }
    }
    svg.push_str("</svg>\n");
}

fn label(svg: &mut String, text: &Text) {
    let [x, y] = text.at.map(number);
    let _ = write!(svg, "<text class=\"up-{}-fill", name(text.ink));
    if text.rim {
        svg.push_str(" up-rim");
    }
    let _ = write!(
        svg,
        "\" x=\"{x}\" y=\"{y}\" font-size=\"{}\"",
        number(text.size)
    );
    match text.anchor {
        Anchor::Start => {}
        Anchor::Middle => svg.push_str(" text-anchor=\"middle\""),
        Anchor::End => svg.push_str(" text-anchor=\"end\""),
    }
    if text.bold {
        svg.push_str(" font-weight=\"600\"");
    }
    if text.upwards {
        let _ = write!(svg, " transform=\"rotate(-90 {x} {y})\"");
    }
    let _ = writeln!(svg, ">{}</text>", escaped(&text.text));
}

/// CSS rules: every ink as a stroke and as a fill, light and dark.
pub(super) fn style() -> String {
    let inks: Vec<Ink> = [Ink::Paper, Ink::Text, Ink::Muted, Ink::Grid]
        .into_iter()
        .chain((0..Ink::SERIES).map(Ink::Series))
        .collect();
    let rules = |theme: Theme| {
        let rule = |ink: &Ink| {
            let (name, rgb) = (name(*ink), ink.rgb(theme));
            format!(".up-{name}{{stroke:#{rgb:06x}}}.up-{name}-fill{{fill:#{rgb:06x}}}")
        };
        let paper = Ink::Paper.rgb(theme);
        inks.iter().map(rule).collect::<String>() + &format!(".up-rim{{stroke:#{paper:06x}}}")
    };
    format!(
        "{}.up-rim{{stroke-width:3px;stroke-linejoin:round;paint-order:stroke}}@media(prefers-color-scheme:dark){{{}}}",
        rules(Theme::Light),
        rules(Theme::Dark)
    )
}

fn name(ink: Ink) -> String {
    match ink {
        Ink::Paper => "paper".to_owned(),
        Ink::Text => "text".to_owned(),
        Ink::Muted => "muted".to_owned(),
        Ink::Grid => "grid".to_owned(),
        Ink::Series(index) => format!("s{}", index % Ink::SERIES),
    }
}

fn see_through(svg: &mut String, opacity: f64) {
    if opacity < 1.0 {
        let _ = write!(svg, " opacity=\"{}\"", number(opacity));
    }
}

fn path(points: &[Point]) -> String {
    let mut path = String::new();
    for (i, [x, y]) in points.iter().enumerate() {
        let _ = write!(
            path,
            "{}{} {}",
            if i == 0 { "M" } else { "L" },
            number(*x),
            number(*y)
        );
    }
    path
}

/// Formats a number with at most two decimals.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
