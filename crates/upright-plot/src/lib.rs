//! Figures as SVG and PNG. A [`Figure`] describes the content, `layout.rs` computes where every
//! line goes, and `svg.rs` and `png.rs` draw it. Both share one layout, so the PNG looks like the
//! SVG.
//!
//! Series differ by color (after Okabe and Ito's palette for color-blind readers), by dash and by
//! marker, so they can be distinguished in gray. An SVG follows the reader's light or dark theme; a
//! PNG is drawn for one theme.
//!
//! | module | purpose |
//! |---|---|
//! | [`figure`] | the content: panels, marks, grids |
//! | [`mod@axis`] | limits and ticks of an axis, linear or logarithmic |
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

/// Height, in the units of a figure, that the label of a category needs on the y axis. Long labels
/// have several lines.
pub fn label_height(label: &str) -> f64 {
    layout::label_height(label)
}

/// CSS rules for the classes of all figures, light and dark.
pub fn css() -> String {
    svg::style()
}

impl Figure {
    /// The same figure with a panel width that makes the whole figure `width` wide.
    #[must_use]
    pub fn fit(mut self, width: f64) -> Self {
        self.panel_size[0] = layout::panel_width(&self, width).max(60.0);
        self
    }

    /// The figure as an SVG document, which can also be embedded in an HTML page. Colors are
    /// classes that begin with `up-`.
    pub fn svg(&self) -> String {
        svg::write(&layout::lay_out(self))
    }

    /// The figure as an element of an HTML page, without the CSS rules for its classes. The page
    /// includes [`css`] once.
    pub fn inline_svg(&self) -> String {
        svg::write_inline(&layout::lay_out(self))
    }

    /// The figure as a PNG with two pixels per unit.
    ///
    /// # Errors
    /// The figure is too large for memory.
    pub fn png(&self, theme: Theme) -> Result<Vec<u8>> {
        png::draw(&layout::lay_out(self), theme)
    }

    /// Writes `NAME.svg`, `NAME.png` and `NAME-dark.png` into a folder. Returns the path of the
    /// SVG.
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
