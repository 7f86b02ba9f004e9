//! The date that a template writes. Templates of the Llama 3 family put today's date into every
//! prompt. A run that did so would be another run tomorrow, so the date is a setting with a
//! default.

use std::fmt;
use std::str::FromStr;

use upright_base::{Error, Result};

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    year: i32,
    /// 1 to 12.
    month: usize,
    /// 1 to 31.
    day: usize,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl Date {
    /// 26 July 2024, which Llama 3's template writes if it is given no date.
    pub const USUAL: Self = Self {
        year: 2024,
        month: 7,
        day: 26,
    };

    fn is_leap_year(self) -> bool {
        self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0)
    }

    fn days_in_month(self) -> usize {
        match self.month {
            2 if self.is_leap_year() => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// 1 on the first of January.
    fn day_of_year(self) -> usize {
        (1..self.month)
            .map(|month| Self { month, ..self }.days_in_month())
            .sum::<usize>()
            + self.day
    }

    /// 0 on Sundays.
    fn weekday(self) -> usize {
        let before = self.year - 1;
        let days =
            before * 365 + before / 4 - before / 100 + before / 400 + self.day_of_year() as i32;
        days.rem_euclid(7) as usize
    }

    /// Python's `strftime` at midnight at the start of the day; `None` if the format has an
    /// unsupported code.
    pub fn strftime(self, format: &str) -> Option<String> {
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            let mut code = letters.next()?;
            let bare = code == '-';
            if bare {
                code = letters.next()?;
            }
            let number = |value: usize, width: usize| {
                if bare {
                    value.to_string()
                } else {
                    format!("{value:0width$}")
                }
            };
            text += &match code {
                'Y' => self.year.to_string(),
                'y' => number(self.year as usize % 100, 2),
                'm' => number(self.month, 2),
                'd' => number(self.day, 2),
                'e' => format!("{:2}", self.day),
                'j' => number(self.day_of_year(), 3),
                'B' => MONTHS[self.month - 1].to_owned(),
                'b' | 'h' => MONTHS[self.month - 1][..3].to_owned(),
                'A' => DAYS[self.weekday()].to_owned(),
                'a' => DAYS[self.weekday()][..3].to_owned(),
                'w' => self.weekday().to_string(),
                'H' | 'M' | 'S' => number(0, 2),
                'I' => number(12, 2),
                'p' => "AM".to_owned(),
                'F' => self.to_string(),
                'T' => "00:00:00".to_owned(),
                'D' => self.strftime("%m/%d/%y")?,
                '%' => "%".to_owned(),
                _ => return None,
            };
        }
        Some(text)
    }
}

impl FromStr for Date {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::input(format!("`{text}` is not a date")).hint("write it as 2026-01-31");
        let numbers: Vec<usize> = text
            .splitn(3, '-')
            .map(|part| part.parse().map_err(|_| wrong()))
            .collect::<Result<_>>()?;
        let [year @ 1..=9999, month @ 1..=12, day @ 1..=31] = numbers[..] else {
            return Err(wrong());
        };
        let date = Self {
            year: year as i32,
            month,
            day,
        };
        if day > date.days_in_month() {
            Err(wrong())
        } else {
            Ok(date)
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_pythons() {
        let on = |day: &str, format: &str| day.parse::<Date>().unwrap().strftime(format);
        assert_eq!(
            Date::USUAL.strftime("%d %b %Y").as_deref(),
            Some("26 Jul 2024")
        );
        assert_eq!(
            on("2026-11-03", "%A, %B %-d, %Y (%a %j %e)").unwrap(),
            "Tuesday, November 3, 2026 (Tue 307  3)"
        );
        assert_eq!(
            on("2000-02-29", "%F %y %w %% %H:%M %I %p").unwrap(),
            "2000-02-29 00 2 % 00:00 12 AM"
        );
        assert_eq!(on("2024-12-31", "%j %A").unwrap(), "366 Tuesday");
        assert_eq!(
            (on("2024-01-01", "%Q"), on("2024-01-01", "%")),
            (None, None)
        );
    }

    #[test]
    fn days_that_are_not_are_refused() {
        for text in [
            "",
            "2024",
            "2024-13-01",
            "2024-00-01",
            "2023-02-29",
            "2024-01-32",
            "1-1-1-1",
            "0-1-1",
            "a-b-c",
        ] {
            let error = text.parse::<Date>().unwrap_err();
            assert!(
                error.message.contains("is not a date") && error.hint.contains("2026-01-31"),
                "{text}"
            );
        }
    }
}
