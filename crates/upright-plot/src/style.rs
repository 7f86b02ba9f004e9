//! Styles: inks by their role, their colors in the light and dark theme, dashes and markers.

/// The role of a color. Its value depends on the [`Theme`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// The background.
    Paper,
    /// Titles and the most important text.
    Text,
    /// Labels of axes and ticks.
    Muted,
    /// Grid lines and frames.
    Grid,
    /// A series; the colors repeat after the last one.
    Series(usize),
}

/// The theme: light or dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Dark ink on white, as in print.
    Light,
    /// Light ink on near black.
    Dark,
}

/// Colors of series: blue, vermilion, green, purple, ochre, black, pink. After Okabe and Ito; darkened
/// (light theme) or lightened (dark theme) until each has a contrast of at least 4.5 to the paper.
const SERIES: [[u32; 2]; 7] = [
    [0x0060A8, 0x6CB6FF],
    [0xB84500, 0xFF9B5E],
    [0x007A5A, 0x3FCBA0],
    [0x8E4585, 0xDDA0DD],
    [0x7A5A00, 0xE6C34A],
    [0x111111, 0xF0F0F0],
    [0xB3246E, 0xFF8AB8],
];

impl Ink {
    /// Number of distinct colors of series.
    pub const SERIES: usize = SERIES.len();

    /// The color as 0xRRGGBB.
    pub fn rgb(self, theme: Theme) -> u32 {
        let [light, dark] = match self {
            Self::Paper => [0xFFFFFF, 0x0D1117],
            Self::Text => [0x1F2937, 0xE5E7EB],
            Self::Muted => [0x4B5563, 0x9CA3AF],
            Self::Grid => [0xD1D5DB, 0x30363D],
            Self::Series(index) => SERIES[index % SERIES.len()],
        };
        if theme == Theme::Light { light } else { dark }
    }
}

/// Pattern of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dash {
    /// No gaps.
    Solid,
    /// Long strokes.
    Dashed,
    /// Short strokes.
    Dotted,
    /// Long and short strokes, alternating.
    DashDotted,
}

impl Dash {
    /// Lengths of strokes and gaps for a line of width 1; empty if there are no gaps.
    pub fn pattern(self) -> &'static [f64] {
        match self {
            Self::Solid => &[],
            Self::Dashed => &[4.0, 2.0],
            Self::Dotted => &[1.2, 1.8],
            Self::DashDotted => &[5.0, 2.0, 1.2, 2.0],
        }
    }
}

/// Shape of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// A triangle that points up.
    Triangle,
    /// A square on its tip.
    Diamond,
    /// A star of five points.
    Star,
    /// A triangle that points down.
    Down,
}

impl Marker {
    /// Corners around the origin; all shapes have about the same area. `radius` is that of the
    /// circle.
    pub fn outline(self, radius: f64) -> Vec<[f64; 2]> {
        use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, TAU};
        let (corners, size, turn) = match self {
            Self::Circle => (20, 1.0, 0.0),
            Self::Square => (4, 1.25, FRAC_PI_4),
            Self::Triangle => (3, 1.5, -FRAC_PI_2),
            Self::Down => (3, 1.5, FRAC_PI_2),
            Self::Diamond => (4, 1.35, 0.0),
            Self::Star => (10, 1.7, -FRAC_PI_2),
        };
        let corner = |i: usize| {
            let inner = if self == Self::Star && i % 2 == 1 {
                0.45
            } else {
                1.0
            };
            let (sin, cos) = (turn + TAU * i as f64 / corners as f64).sin_cos();
            [radius * size * inner * cos, radius * size * inner * sin]
        };
        (0..corners).map(corner).collect()
    }
}

/// How a mark is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// The color.
    pub ink: Ink,
    /// Dash pattern of its lines.
    pub dash: Dash,
    /// Width of its lines.
    pub width: f64,
    /// Marker at its points; lines may have none.
    pub marker: Option<Marker>,
    /// From 0 (invisible) to 1.
    pub opacity: f64,
}

impl Style {
    /// The style with number `index`; styles differ in color, dash and marker.
    pub fn series(index: usize) -> Self {
        const DASHES: [Dash; 4] = [Dash::Solid, Dash::Dashed, Dash::DashDotted, Dash::Dotted];
        const MARKERS: [Marker; 5] = [
            Marker::Circle,
            Marker::Square,
            Marker::Triangle,
            Marker::Diamond,
            Marker::Down,
        ];
        Self {
            ink: Ink::Series(index),
            dash: DASHES[index % DASHES.len()],
            width: 2.0,
            marker: Some(MARKERS[index % MARKERS.len()]),
            opacity: 1.0,
        }
    }

    /// A thin solid line.
    pub fn thin(ink: Ink) -> Self {
        Self {
            ink,
            dash: Dash::Solid,
            width: 1.0,
            marker: None,
            opacity: 1.0,
        }
    }

    /// The same style with another dash.
    #[must_use]
    pub fn dash(self, dash: Dash) -> Self {
        Self { dash, ..self }
    }

    /// The same style with another width.
    #[must_use]
    pub fn width(self, width: f64) -> Self {
        Self { width, ..self }
    }

    /// The same style with this marker.
    #[must_use]
    pub fn marker(self, marker: Marker) -> Self {
        Self {
            marker: Some(marker),
            ..self
        }
    }

    /// The same style without markers.
    #[must_use]
    pub fn unmarked(self) -> Self {
        Self {
            marker: None,
            ..self
        }
    }

    /// The same style with this opacity.
    #[must_use]
    pub fn opacity(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}
