//! A setting that is one value or a list of them, for `serde(with = ..)`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One value as itself, several as a list.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<T: Serialize, S: Serializer>(
    values: &[T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match values {
        [one] => one.serialize(serializer),
        many => many.serialize(serializer),
    }
}

/// The same back.
///
/// # Errors
/// It is neither, or a value has the wrong form.
pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text, or a list of texts")]
    enum Written<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(value) => vec![value],
        Written::Many(values) => values,
    })
}
