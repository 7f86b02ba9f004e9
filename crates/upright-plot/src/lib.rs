//! Figures, drawn to SVG and PNG. A [`Figure`] says what is shown, `layout.rs` where every line of it goes, and `svg.rs` and
//! `png.rs` draw it: one layout for both, so that the PNG looks like the SVG.
//!
//! Series differ by color (after Okabe and Ito's palette for color-blind readers), by dash and by marker, so that they can be
//! told apart in gray. An SVG follows the reader's choice of light or dark; a PNG is drawn for one of them.
//!
//! | module | what it is for |
//! |---|---|
//! | [`figure`] | what is shown: panels, marks, grids |
//! | [`mod@axis`] | ends and ticks of an axis, linear or logarithmic |
//! | [`style`] | colors, dashes and markers by name |
//!
//! ```
//! use upright_plot::{Axis, Figure, Mark, Panel, Style};
//!
//! let mut panel = Panel::new("training", Axis::linear("step"), Axis::linear("loss"));
//! panel.add(Mark::Line(vec![[0.0, 2.0], [10.0, 1.0]]), Style::series(0), "SFT");
//! let mut figure = Figure::new("losses", 1, [300.0, 200.0]);
//! figure.panels.push(panel);
//! assert!(figure.svg().starts_with("<svg"));
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

pub mod axis;
mod clip;
mod contour;
mod drawing;
pub mod figure;
mod font;
mod layout;
mod png;
pub mod style;
mod svg;
#[cfg(test)]
mod tests;

pub use axis::Axis;
pub use figure::{Figure, Grid, Mark, Panel};
pub use style::{Dash, Ink, Marker, Style, Theme};

use std::path::{Path, PathBuf};

use upright_base::{Result, files};

/// Rules for the classes of every picture, light and dark.
pub fn css() -> String {
    svg::style()
}

impl Figure {
    /// The same figure, its panels as wide as makes the picture `width` wide.
    #[must_use]
    pub fn fit(mut self, width: f64) -> Self {
        self.panel_size[0] = layout::panel_width(&self, width).max(60.0);
        self
    }

    /// The picture as an SVG document that can also stand inside an HTML page. Colours are classes that begin with `up-`.
    pub fn svg(&self) -> String {
        svg::write(&layout::lay_out(self))
    }

    /// The picture as an element of an HTML page, without the rules for its classes: the page has those of [`css`] once.
    pub fn inline_svg(&self) -> String {
        svg::write_inline(&layout::lay_out(self))
    }

    /// The picture as a PNG of two pixels a unit.
    ///
    /// # Errors
    /// The picture is larger than memory can hold.
    pub fn png(&self, theme: Theme) -> Result<Vec<u8>> {
        png::draw(&layout::lay_out(self), theme)
    }

    /// Writes `NAME.svg`, `NAME.png` and `NAME-dark.png` into a folder, and returns the first.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        let drawing = layout::lay_out(self);
        let path = folder.join(format!("{name}.svg"));
        files::write_atomic(&path, svg::write(&drawing).as_bytes())?;
        for (suffix, theme) in [("", Theme::Light), ("-dark", Theme::Dark)] {
            files::write_atomic(
                &folder.join(format!("{name}{suffix}.png")),
                &png::draw(&drawing, theme)?,
            )?;
        }
        Ok(path)
    }
}
