//! Axes: name, unit, scale and ticks.

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Linear.
    Linear,
    /// Logarithmic; values must be above 0.
    Log,
}

/// One axis of a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The quantity with its unit: `loss (nats)`.
    pub name: String,
    /// Its scale.
    pub scale: Scale,
    /// Smallest and largest value; none: those of the marks, with a margin.
    pub limits: Option<[f64; 2]>,
    /// Tick labels at 0, 1, 2, ... instead of numbers; empty for numbers.
    pub categories: Vec<String>,
    /// Whether ticks have labels. A panel beside one with the same axis needs none.
    pub labeled: bool,
}

/// A tick on an axis; minor ticks have no label.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Its value.
    pub at: f64,
    /// Its label.
    pub label: String,
}

impl Axis {
    /// A linear axis.
    pub fn linear(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            scale: Scale::Linear,
            limits: None,
            categories: Vec::new(),
            labeled: true,
        }
    }

    /// A logarithmic axis; values that are not above 0 are left out.
    pub fn log(name: impl Into<String>) -> Self {
        Self {
            scale: Scale::Log,
            ..Self::linear(name)
        }
    }

    /// An axis with names at 0, 1, 2, ... for bars and strips.
    pub fn categories(name: impl Into<String>, categories: &[&str]) -> Self {
        let limits = Some([-0.5, categories.len() as f64 - 0.5]);
        Self {
            limits,
            categories: categories.iter().map(|name| (*name).to_owned()).collect(),
            ..Self::linear(name)
        }
    }

    /// The same axis without tick labels.
    #[must_use]
    pub fn unlabeled(self) -> Self {
        Self {
            labeled: false,
            ..self
        }
    }

    /// The same axis with limits `low` and `high`.
    #[must_use]
    pub fn from(self, low: f64, high: f64) -> Self {
        Self {
            limits: Some([low, high]),
            ..self
        }
    }

    /// The same axis with limits at two positions, as returned by [`Axis::ends`].
    #[must_use]
    pub fn within(self, ends: [f64; 2]) -> Self {
        let limits = match self.scale {
            Scale::Linear => ends,
            Scale::Log => ends.map(|place| 10f64.powf(place)),
        };
        Self {
            limits: Some(limits),
            ..self
        }
    }

    /// The position of a value along the axis: the value or its logarithm. Not finite if the axis
    /// cannot show it.
    pub fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log if value > 0.0 => value.log10(),
            Scale::Log => f64::NEG_INFINITY,
        }
    }

    /// The limits of the axis, as positions: its own limits, or those of the values with a margin.
    pub fn ends(&self, values: impl Iterator<Item = f64>) -> [f64; 2] {
        if let Some(limits) = self.limits {
            return limits.map(|limit| self.place(limit));
        }
        let places = values
            .map(|value| self.place(value))
            .filter(|place| place.is_finite());
        let [low, high] = places.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], p| {
            [low.min(p), high.max(p)]
        });
        if low > high {
            return [0.0, 1.0];
        }
        let margin = if high > low {
            0.04 * (high / 2.0 - low / 2.0) * 2.0
        } else {
            0.5
        };
        // Clamp so that all differences and values stay finite.
        let [least, most] = match self.scale {
            Scale::Linear => [-f64::MAX / 4.0, f64::MAX / 4.0],
            Scale::Log => [-323.0, 308.0],
        };
        [
            (low - margin).clamp(least, most),
            (high + margin).clamp(least, most),
        ]
    }

    /// Ticks between two positions; about `most` or fewer for numbers.
    pub fn ticks(&self, [low, high]: [f64; 2], most: usize) -> Vec<Tick> {
        if !(low.is_finite() && high.is_finite()) {
            return Vec::new();
        }
        let names = self.categories.iter().enumerate();
        let mut ticks: Vec<Tick> = match self.scale {
            _ if !self.categories.is_empty() => names
                .map(|(i, name)| Tick {
                    at: i as f64,
                    label: name.clone(),
                })
                .collect(),
            Scale::Linear => linear_ticks(low, high, most),
            Scale::Log => log_ticks(low, high, most),
        };
        if !self.labeled {
            ticks.iter_mut().for_each(|tick| tick.label.clear());
        }
        ticks
    }
}

/// Multiples of 1, 2 or 5 times a power of ten; at most `most + 1` of them.
fn linear_ticks(low: f64, high: f64, most: usize) -> Vec<Tick> {
    let rough = (high - low) / most.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    // Larger and finer numbers are in scientific notation.
    let is_plain = low.abs().max(high.abs()) < 1e15 && step >= 1e-12;
    let slack = 1e-9 * (high - low);
    let (first, last) = (
        ((low - slack) / step).ceil() as i64,
        ((high + slack) / step).floor() as i64,
    );
    let tick = |i: i64| {
        let at = i as f64 * step;
        let label = if is_plain {
            format!("{at:.decimals$}")
        } else {
            format!("{at:.2e}")
        };
        Tick {
            at,
            label: minus(&label),
        }
    };
    (first..=last).take(most + 2).map(tick).collect()
}

/// Powers of ten, plus multiples of them if there are fewer than three powers. The ticks in between
/// have no label. A range without such multiples gets linear ticks.
fn log_ticks(low: f64, high: f64, most: usize) -> Vec<Tick> {
    const LABELLED: [&[u32]; 3] = [&[1, 2, 5], &[1, 2, 3, 5, 7], &[1, 2, 3, 4, 5, 6, 7, 8, 9]];
    let (first, last) = (low.floor() as i32, high.ceil() as i32);
    let value = |digit: u32, power: i32| {
        // The division is exact; a product with a power below 1 is not.
        if power < 0 {
            f64::from(digit) / 10f64.powi(-power)
        } else {
            f64::from(digit) * 10f64.powi(power)
        }
    };
    let inside = |value: f64| (low - 1e-9..=high + 1e-9).contains(&value.log10());
    let count = |digits: &[u32]| -> usize {
        (first..=last)
            .map(|power| {
                digits
                    .iter()
                    .filter(|digit| inside(value(**digit, power)))
                    .count()
            })
            .sum()
    };
    let decades = count(&[1]);
    let labeled = if decades >= 3 {
        Some(&[1][..])
    } else {
        LABELLED.into_iter().find(|digits| count(digits) >= 3)
    };
    let Some(labeled) = labeled else {
        let ticks = linear_ticks(10f64.powf(low), 10f64.powf(high), most.min(4));
        return ticks.into_iter().filter(|tick| inside(tick.at)).collect();
    };
    // With very many decades, there is no room for all labels.
    let every = (decades / (most + 3)) as i32 + 1;
    let plain = first >= -3 && last <= 4;
    let mut ticks = Vec::new();
    for power in first..=last {
        for digit in 1..10 {
            let at = value(digit, power);
            if !inside(at) {
                continue;
            }
            let shown = labeled.contains(&digit) && (decades < 3 || power.rem_euclid(every) == 0);
            let label = match (shown, plain) {
                (false, _) => String::new(),
                (true, true) => format!("{at:.*}", (-power).max(0) as usize),
                (true, false) if digit == 1 => format!("10{}", superscript(power)),
                (true, false) => format!("{digit}·10{}", superscript(power)),
            };
            ticks.push(Tick { at, label });
        }
    }
    ticks
}

/// A number with a minus sign instead of a hyphen, and without a minus before 0.
fn minus(number: &str) -> String {
    match number.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| c == '0' || c == '.') => rest.to_owned(),
        Some(rest) => format!("\u{2212}{rest}"),
        None => number.to_owned(),
    }
}

fn superscript(number: i32) -> String {
    let raised = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + digit as u32 - '0' as u32).expect("a digit"),
    };
    number.to_string().chars().map(raised).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks
            .iter()
            .map(|tick| &tick.label[..])
            .filter(|label| !label.is_empty())
            .collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let linear = Axis::linear("x");
        assert_eq!(
            labels(&linear.ticks([-0.31, 0.52], 7)),
            ["−0.2", "0.0", "0.2", "0.4"]
        );
        assert_eq!(
            labels(&linear.ticks([0.0, 20_000.0], 7)),
            ["0", "5000", "10000", "15000", "20000"]
        );
        assert_eq!(
            labels(&linear.ticks([1.0, 2.0], 7)),
            ["1.0", "1.2", "1.4", "1.6", "1.8", "2.0"]
        );
        let log = Axis::log("x");
        assert_eq!(
            labels(&log.ticks([-1.0, 2.0], 10)),
            ["0.1", "1", "10", "100"]
        );
        assert_eq!(
            labels(&log.ticks([2.0, 6.0], 10)),
            ["10²", "10³", "10⁴", "10⁵", "10⁶"]
        );
        assert_eq!(
            labels(&log.ticks([-1.0, 0.4], 10)),
            ["0.1", "0.2", "0.5", "1", "2"]
        );
        assert_eq!(
            labels(&log.ticks([-11.0, -9.5], 10)),
            ["10⁻¹¹", "2·10⁻¹¹", "5·10⁻¹¹", "10⁻¹⁰", "2·10⁻¹⁰"]
        );
        assert_eq!(
            labels(&linear.ticks([0.0, 20_000.0], 3)),
            ["0", "10000", "20000"]
        );
        // Less than a decade has more digits, and a very short range has round numbers.
        assert_eq!(labels(&log.ticks([-0.6, -0.05], 10)), ["0.3", "0.5", "0.7"]);
        assert_eq!(labels(&log.ticks([0.18, 0.27], 10)), ["1.6", "1.7", "1.8"]);
        let bars = Axis::categories("method", &["mix", "alright"]);
        assert_eq!(
            (
                bars.ends(std::iter::empty()),
                labels(&bars.ticks([-0.5, 1.5], 7))
            ),
            ([-0.5, 1.5], vec!["mix", "alright"])
        );
    }

    #[test]
    fn any_finite_values_have_an_axis() {
        let extremes = [5e-324, 1e-320, 1e-310, 1e-300, 1.0, 1e300, 1e308, f64::MAX];
        for low in extremes.into_iter().flat_map(|value| [value, -value]) {
            for high in extremes.into_iter().flat_map(|value| [value, -value]) {
                for axis in [Axis::linear("x"), Axis::log("x")] {
                    let ends = axis.ends([low, high].into_iter());
                    assert!(
                        (ends[1] - ends[0]).is_finite() && ends[0] <= ends[1],
                        "{low} {high} {ends:?}"
                    );
                    let again = axis.clone().within(ends).ends(std::iter::empty());
                    assert!(
                        again.iter().all(|end| end.is_finite()),
                        "{low} {high} {again:?}"
                    );
                    let ticks = axis.ticks(ends, 7);
                    assert!(
                        ticks.len() < 7000 && labels(&ticks).len() < 20,
                        "{low} {high} {}",
                        ticks.len()
                    );
                    assert!(
                        ticks.iter().all(|tick| tick.label.chars().count() < 24),
                        "{low} {high}"
                    );
                }
            }
        }
        assert_eq!(Axis::log("x").ticks([f64::NEG_INFINITY, 1.0], 7), []);
        assert_eq!(
            labels(&Axis::linear("x").ticks([0.0, 2e300], 2)),
            ["0.00e0", "1.00e300", "2.00e300"]
        );
    }

    #[test]
    fn an_axis_reaches_over_its_values() {
        assert_eq!(
            Axis::linear("x").ends([0.0, 100.0, f64::NAN].into_iter()),
            [-4.0, 104.0]
        );
        assert_eq!(Axis::linear("x").ends([3.0].into_iter()), [2.5, 3.5]);
        assert_eq!(Axis::log("x").ends([0.0, -1.0].into_iter()), [0.0, 1.0]);
        assert_eq!(
            Axis::log("x").from(0.1, 10.0).ends([5e9].into_iter()),
            [-1.0, 1.0]
        );
    }
}
