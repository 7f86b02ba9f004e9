//! Values as the user wrote them, so that messages can quote them and every check is in one place.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text of a numeric setting: a flag's text, or a TOML integer, float or string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number(String);

impl Number {
    /// The value as a finite number, if it is one.
    pub fn real(&self) -> Option<f64> {
        self.0.trim().parse().ok().filter(|x: &f64| x.is_finite())
    }

    /// The value as a whole number from 0 to 2^63 - 1 (the largest that TOML can hold), if it is
    /// one. `1e3` is accepted.
    pub fn whole(&self) -> Option<u64> {
        let exact = self
            .0
            .trim()
            .parse::<i64>()
            .ok()
            .and_then(|n| u64::try_from(n).ok());
        let scientific = || {
            self.real()
                .filter(|x| (0.0..=2f64.powi(53)).contains(x) && x.fract() == 0.0)
        };
        exact.or_else(|| scientific().map(|x| x as u64))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self(number.to_string())
    }
}

impl From<&str> for Number {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.0.parse::<i64>(), self.real()) {
            (Ok(n), _) => serializer.serialize_i64(n),
            (_, Some(x)) => serializer.serialize_f64(x),
            _ => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_i64<E>(self, n: i64) -> Result<Number, E> {
                Ok(Number(n.to_string()))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Number, E> {
                Ok(Number(n.to_string()))
            }
            fn visit_f64<E>(self, x: f64) -> Result<Number, E> {
                Ok(Number(format!("{x:?}")))
            }
            fn visit_str<E>(self, text: &str) -> Result<Number, E> {
                Ok(Number(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// A list: comma-separated text of a flag, or a TOML string, array of strings, or table (`name =
/// value` becomes `name=value`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(pub Vec<String>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl From<&str> for List {
    fn from(text: &str) -> Self {
        Self(
            text.split(',')
                .map(|entry| entry.trim().to_owned())
                .collect(),
        )
    }
}

impl Serialize for List {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = List;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("comma-separated text, a list of strings, or a table")
            }
            fn visit_str<E>(self, text: &str) -> Result<List, E> {
                Ok(List::from(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<List, A::Error> {
                let mut list = vec![];
                while let Some(entry) = entries.next_element()? {
                    list.push(entry);
                }
                Ok(List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<List, A::Error> {
                let mut list = vec![];
                while let Some((name, value)) = entries.next_entry::<String, Number>()? {
                    list.push(format!("{name}={value}"));
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_written() {
        let read = |text: &str| (Number(text.into()).whole(), Number(text.into()).real());
        assert_eq!(read("12"), (Some(12), Some(12.0)));
        assert_eq!(read("1e3"), (Some(1000), Some(1000.0)));
        assert_eq!(read(&i64::MAX.to_string()).0, Some(i64::MAX as u64));
        assert_eq!(read("-5"), (None, Some(-5.0)));
        assert_eq!(read("0.5"), (None, Some(0.5)));
        for text in ["", "abc", "nan", "inf", "1e999", "1,5", "0x10"] {
            assert_eq!(read(text), (None, None), "{text}");
        }
    }

    #[test]
    fn numbers_and_lists_survive_toml() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Both {
            numbers: Vec<Number>,
            lists: Vec<List>,
        }
        let written =
            "numbers = [5, -0.1, 5e-5, 'abc']\nlists = ['a, b', ['c'], { sft = 1.5, dpo = 0 }]";
        let both: Both = toml::from_str(written).unwrap();
        let numbers: Vec<_> = both.numbers.iter().map(ToString::to_string).collect();
        assert_eq!(numbers, ["5", "-0.1", "5e-5", "abc"]);
        let lists: Vec<_> = both.lists.iter().map(ToString::to_string).collect();
        assert_eq!(lists, ["a,b", "c", "sft=1.5,dpo=0"]);
        assert_eq!(
            toml::from_str::<Both>(&toml::to_string(&both).unwrap()).unwrap(),
            both
        );
    }
}
