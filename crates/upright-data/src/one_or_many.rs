//! A setting that is one value or a list of values, for `serde(with = ..)`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes one value as itself, several values as a list.
///
/// # Errors
/// Errors of the serializer.
pub fn serialize<T: Serialize, S: Serializer>(
    values: &[T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match values {
        [one] => one.serialize(serializer),
        many => many.serialize(serializer),
    }
}

/// Reads one value or a list of values.
///
/// # Errors
/// The input is neither, or a value has the wrong form.
pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string, or a list of strings")]
    enum Written<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(value) => vec![value],
        Written::Many(values) => values,
    })
}
