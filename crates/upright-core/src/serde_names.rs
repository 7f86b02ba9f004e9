//! Methods and losses in files, by name.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{methods, methods::MethodSpec, objectives, objectives::LossSpec};

impl Serialize for MethodSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for &'static MethodSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let method = methods::all().iter().find(|method| method.name == name);
        method.copied().ok_or_else(|| {
            let known: Vec<&str> = methods::all().iter().map(|method| method.name).collect();
            let known = known.join(", ");
            D::Error::custom(format!("unknown method `{name}`, expected one of {known}"))
        })
    }
}

impl Serialize for LossSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for &'static LossSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let loss = objectives::all().iter().find(|loss| loss.name == name);
        loss.copied().ok_or_else(|| {
            let known: Vec<&str> = objectives::all().iter().map(|loss| loss.name).collect();
            let known = known.join(", ");
            D::Error::custom(format!("unknown loss `{name}`, expected one of {known}"))
        })
    }
}
