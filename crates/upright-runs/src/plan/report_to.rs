//! The trackers that `--report-to` names.

use upright_base::{Error, Result};

use crate::settings::checks::{no_such, wrong};
use crate::settings::{Config, peers};
use crate::trackers::{NONE, TENSORBOARD, TRACKERS, TrackerSpec};

/// The trackers that the settings name, each once.
///
/// # Errors
/// A name is unknown, or `none` stands beside the name of a tracker.
pub fn named_trackers(config: &Config) -> Result<Vec<&'static TrackerSpec>> {
    let mut names: Vec<&str> = Vec::new();
    if let Some(list) = &config.report_to {
        names.extend(list.0.iter().map(String::as_str));
    }
    if config.tensorboard {
        names.push(TENSORBOARD.name);
    }
    let mut is_none = false;
    let mut found: Vec<&'static TrackerSpec> = Vec::new();
    for name in names {
        if name == NONE {
            is_none = true;
            continue;
        }
        let spec = TRACKERS.all().iter().find(|spec| spec.name == name);
        let spec = *spec.ok_or_else(|| unknown(name))?;
        if !found.iter().any(|known| known.name == spec.name) {
            found.push(spec);
        }
    }
    if let (true, Some(spec)) = (is_none, found.first()) {
        return Err(wrong(
            "report-to",
            &format!("not name none beside {}", spec.name),
            config.report_to.as_ref().expect("it names none"),
        )
        .hint("leave out one of them"));
    }
    Ok(found)
}

/// The error of an unknown tracker. Names of other tools get the advice that their own flags get.
fn unknown(name: &str) -> Error {
    let mut known = vec![NONE];
    for spec in TRACKERS.all() {
        known.push(spec.name);
    }
    let error = no_such("report-to", name, known);
    match peers::answer(name) {
        Some(advice) => error.hint(advice),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(toml: &str) -> Result<Vec<&'static str>> {
        let config = Config::parse(toml, "the settings")?;
        Ok(named_trackers(&config)?
            .iter()
            .map(|spec| spec.name)
            .collect())
    }

    #[test]
    fn settings_name_trackers() {
        let nobody: [&str; 0] = [];
        assert_eq!(names("").unwrap(), nobody);
        assert_eq!(names("report-to = 'none'").unwrap(), nobody);
        assert_eq!(names("report-to = []").unwrap(), nobody);
        for toml in [
            "tensorboard = true",
            "report-to = 'tensorboard'",
            "report-to = ['tensorboard', 'tensorboard']",
            "report-to = 'tensorboard'\ntensorboard = true",
        ] {
            assert_eq!(names(toml).unwrap(), ["tensorboard"], "{toml}");
        }
    }

    #[test]
    fn other_names_are_errors() {
        let error = names("report-to = 'zebra'").unwrap_err();
        assert_eq!(
            error.message,
            "report-to must be one of none, tensorboard, found `zebra`"
        );
        let error = names("report-to = 'tensorbord'").unwrap_err();
        assert_eq!(error.hint, "did you mean `tensorboard`?");
        for name in ["wandb", "mlflow", "trackio", "comet_ml"] {
            let error = names(&format!("report-to = 'tensorboard,{name}'")).unwrap_err();
            assert!(error.message.contains("none, tensorboard"), "{error}");
            assert!(error.hint.contains("wandb sync"), "{name}: {error}");
        }
        for toml in [
            "report-to = 'none,tensorboard'",
            "report-to = 'none'\ntensorboard = true",
        ] {
            let error = names(toml).unwrap_err();
            assert!(error.message.contains("not name none beside"), "{error}");
        }
    }
}
