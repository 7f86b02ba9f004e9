//! Names of templates, as flags and plans write them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::date::Date;
use upright_base::{Error, Result};

/// The name of a template, as the user gives it; [`super::Template::choose`] loads the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateName {
    /// Stanford Alpaca's wording.
    Alpaca,
    /// `User: …` and `Assistant:`.
    UserAssistant,
    /// No text around prompt and response.
    Raw,
    /// The model's own: `chat`, `chat:NAME` where the model has several, `chat@2026-01-31` where it writes the date.
    Chat {
        /// Which of the model's templates; `None` for its default.
        name: Option<String>,
        /// The date that `strftime_now` returns; `None` for [`Date::USUAL`].
        date: Option<Date>,
    },
    /// A Jinja file, rendered as the model's own would be.
    File(PathBuf),
}

pub(super) const NAMES: &str = "templates: alpaca, user-assistant, raw, chat (the model's own; chat:NAME, chat@YYYY-MM-DD), or a .jinja file";

impl TemplateName {
    /// The model's default template.
    pub const CHAT: Self = Self::Chat {
        name: None,
        date: None,
    };
}

impl FromStr for TemplateName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "alpaca" => Ok(Self::Alpaca),
            "user-assistant" => Ok(Self::UserAssistant),
            "raw" => Ok(Self::Raw),
            "chat" => Ok(Self::CHAT),
            _ if name.starts_with("chat:") || name.starts_with("chat@") => {
                let (which, date) = name
                    .split_once('@')
                    .map_or((name, None), |(which, date)| (which, Some(date)));
                let date = date
                    .map(str::parse)
                    .transpose()
                    .map_err(|error: Error| error.at(name))?;
                let which = which.strip_prefix("chat:").map(str::to_owned);
                if which.as_deref() == Some("") {
                    return Err(
                        Error::input(format!("{name}: no name follows the colon")).hint(NAMES)
                    );
                }
                Ok(Self::Chat { name: which, date })
            }
            path if path.contains(['/', '\\', '.']) => Ok(Self::File(path.into())),
            other => Err(Error::input(format!("unknown template {other:?}")).hint(NAMES)),
        }
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alpaca => f.write_str("alpaca"),
            Self::UserAssistant => f.write_str("user-assistant"),
            Self::Raw => f.write_str("raw"),
            Self::Chat { name, date } => {
                f.write_str("chat")?;
                name.iter().try_for_each(|name| write!(f, ":{name}"))?;
                date.iter().try_for_each(|date| write!(f, "@{date}"))
            }
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_written_alike() {
        for name in [
            "alpaca",
            "user-assistant",
            "raw",
            "chat",
            "chat:tool_use",
            "chat@2026-11-23",
            "chat:a@2024-02-29",
            "t/x",
        ] {
            assert_eq!(name.parse::<TemplateName>().unwrap().to_string(), name);
        }
        let complaint = |name: &str| name.parse::<TemplateName>().unwrap_err();
        assert_eq!(complaint("Alpaca").message, "unknown template \"Alpaca\"");
        assert_eq!(complaint("Alpaca").hint, NAMES);
        assert!(complaint("chat:").message.contains("no name"));
        assert!(
            complaint("chat@2023-02-29")
                .message
                .starts_with("chat@2023-02-29: ")
        );
    }
}
