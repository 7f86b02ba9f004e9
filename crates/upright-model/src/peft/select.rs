//! Which modules an `adapter_config.json` selects, by PEFT's own rules (`check_target_module_exists` and
//! `get_pattern_key` of PEFT 0.21), so that what a file says can be compared with the tensors beside it.

use fancy_regex::Regex;
use serde_json::Value;

use super::CONFIG_FILE;
use crate::adapter::ALL_LINEAR;
use crate::adapter::layout::names_module;
use crate::config::json::Object;
use upright_base::{Error, Result};

/// A regular expression with the syntax of Python's `re`, including look-around and
/// back-references.
#[derive(Debug)]
pub(super) struct Expression {
    regex: Regex,
    /// For messages: file, key and text.
    place: (std::path::PathBuf, String),
}

impl Expression {
    /// Compiles the concatenation of `before`, `text` and `after`; `key` is the key of `text`, for
    /// messages.
    fn new(file: Object<'_>, key: &str, before: &str, text: &str, after: &str) -> Result<Self> {
        let place = (file.path.to_owned(), format!("{key} `{text}`"));
        let regex = Regex::new(&format!("{before}{text}{after}")).map_err(|error| {
            let why: String = error.to_string().chars().take(120).collect();
            file.error(
                key,
                &format!("`{text}` is not a valid regular expression: {why}"),
                "use module names instead",
            )
        })?;
        Ok(Self { regex, place })
    }

    /// `re.fullmatch(text, module)`.
    fn whole(file: Object<'_>, key: &str, text: &str) -> Result<Self> {
        Self::new(file, key, r"\A(?:", text, r")\z")
    }

    /// A key of `rank_pattern` or `alpha_pattern`: `re.match(rf"(.*\.)?({text})$", module)`.
    pub(super) fn suffix(file: Object<'_>, key: &str, text: &str) -> Result<Self> {
        Self::new(file, key, r"\A(.*\.)?(", text, r")\z")
    }

    /// Whether it matches a module's name.
    pub(super) fn fits(&self, module: &str) -> Result<bool> {
        self.regex.is_match(module).map_err(|error| {
            let problem = format!(
                "{} cannot be matched with `{module}`: {error}",
                self.place.1
            );
            Error::file(&self.place.0, problem, "use module names instead")
        })
    }
}

/// `target_modules` or `exclude_modules`.
#[derive(Debug)]
enum Modules {
    /// Full names, or their last parts after a dot.
    Names(Vec<String>),
    /// A regular expression over full names.
    Expression(Expression),
    /// Every linear but the head.
    All,
}

impl Modules {
    fn read(file: Object<'_>, key: &str) -> Result<Option<Self>> {
        Ok(match file.get(key) {
            None => None,
            Some(Value::String(name))
                if key == TARGETS && name.eq_ignore_ascii_case(ALL_LINEAR) =>
            {
                Some(Self::All)
            }
            Some(Value::String(text)) => {
                Some(Self::Expression(Expression::whole(file, key, text)?))
            }
            Some(Value::Array(_)) => {
                let names = file.texts(key)?.unwrap_or_default();
                Some(Self::Names(names.into_iter().map(str::to_owned).collect()))
            }
            Some(_) => {
                return Err(file.wrong(key, "a list of names, or a regular expression in a string"));
            }
        })
    }

    fn fit(&self, module: &str) -> Result<bool> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| names_module(name, module))),
            Self::Expression(expression) => expression.fits(module),
            Self::All => Ok(true),
        }
    }
}

const TARGETS: &str = "target_modules";

/// The modules that the file selects.
#[derive(Debug)]
pub(super) struct Selection {
    /// `None`: PEFT's default for the model type, which differs between versions of PEFT.
    targets: Option<Modules>,
    excluded: Option<Modules>,
    /// `layers_to_transform`, with one regular expression per entry of `layers_pattern`, whose
    /// first group is the layer.
    layers: Option<(Vec<usize>, Vec<Expression>)>,
}

impl Selection {
    /// Reads `target_modules`, `exclude_modules`, `layers_to_transform` and `layers_pattern`.
    pub(super) fn read(file: Object<'_>) -> Result<Self> {
        Ok(Self {
            targets: Modules::read(file, TARGETS)?,
            excluded: Modules::read(file, "exclude_modules")?
                .filter(|m| !matches!(m, Modules::Names(n) if n.is_empty())),
            layers: layers(file)?,
        })
    }

    /// Whether the file names its modules.
    pub(super) fn is_given(&self) -> bool {
        self.targets.is_some()
    }

    /// The names in `target_modules`, if nothing else selects.
    pub(super) fn plain_names(&self) -> Option<Vec<String>> {
        match (&self.targets, &self.excluded, &self.layers) {
            (Some(Modules::Names(names)), None, None) => Some(names.clone()),
            (Some(Modules::All), None, None) => Some(vec![ALL_LINEAR.to_owned()]),
            _ => None,
        }
    }

    /// Whether the file selects a module, by its name in the model that PEFT was given.
    pub(super) fn selects(&self, module: &str) -> Result<bool> {
        if let Some(excluded) = &self.excluded
            && excluded.fit(module)?
        {
            return Ok(false);
        }
        let Some(targets) = &self.targets else {
            return Ok(false);
        };
        if !targets.fit(module)? {
            return Ok(false);
        }
        // A module that is selected by its full name, by an expression or by `all-linear` is
        // selected in any layer.
        let by_suffix =
            matches!(targets, Modules::Names(names) if !names.iter().any(|name| name == module));
        let Some((layers, patterns)) = self.layers.as_ref().filter(|_| by_suffix) else {
            return Ok(true);
        };
        for pattern in patterns {
            if let Ok(Some(found)) = pattern.regex.captures(module)
                && let Some(layer) = found
                    .name("idx")
                    .and_then(|layer| layer.as_str().parse().ok())
            {
                return Ok(layers.contains(&layer));
            }
        }
        Ok(false)
    }
}

fn layers(file: Object<'_>) -> Result<Option<(Vec<usize>, Vec<Expression>)>> {
    let key = "layers_to_transform";
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let layers = match file.get(key) {
        None => return Ok(None),
        Some(Value::Array(list)) => list.iter().map(number).collect(),
        Some(value) => number(value).map(|layer| vec![layer]),
    };
    let Some(layers) = layers else {
        return Err(file.wrong(key, "a layer index, or a list of layer indices"));
    };
    if layers.is_empty() {
        return Ok(None);
    }
    let key = "layers_pattern";
    let names = match file.get(key) {
        None => Vec::new(),
        Some(Value::String(name)) => vec![name.as_str()],
        Some(_) => file.texts(key)?.unwrap_or_default(),
    };
    let any = names.iter().all(|name| name.is_empty());
    let patterns = if any {
        vec![Expression::new(
            file,
            CONFIG_FILE,
            "",
            r"\A.*?\.[^.]*\.(?P<idx>\d+)\.",
            "",
        )?]
    } else {
        let each =
            |name: &&str| Expression::new(file, key, r"\A(?:|.*?\.)", name, r"\.(?P<idx>\d+)\.");
        names.iter().map(each).collect::<Result<_>>()?
    };
    Ok(Some((layers, patterns)))
}
