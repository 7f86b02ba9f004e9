//! The template of conversations: the requested one, that of an adapter's run, or the default.

use std::path::Path;

use upright_base::{Result, progress::Progress};
use upright_data::{Template, TemplateName, Tokenizer, conversation::Row};
use upright_runs::origin::Origin;

/// The setting that names a template, for errors.
const SETTING: &str = "--template";

/// A template, and whether it is the default.
pub(super) struct Chosen {
    pub(super) template: Template,
    is_default: bool,
}

impl Chosen {
    /// The text of a row's prompt.
    pub(super) fn prompt(&self, row: &Row) -> Result<String> {
        let is_default_chat = self.is_default && matches!(self.template, Template::Chat(_));
        match self.template.prompt(row) {
            Err(error) if is_default_chat => Err(Template::by_default(error, SETTING)),
            text => text,
        }
    }
}

/// The requested template; else, for an adapter in a run folder, the template of the run's
/// instruction rows; else the default for the rows.
pub(super) fn choose(
    asked: Option<&TemplateName>,
    adapter: Option<&Path>,
    rows: &[Row],
    tokenizer: &Tokenizer,
    observer: &mut dyn Progress,
) -> Result<Chosen> {
    if let Some(name) = asked {
        return Ok(Chosen {
            template: Template::choose(Some(name), rows, tokenizer)?,
            is_default: false,
        });
    }
    let origin = adapter.and_then(Origin::of);
    let rows_of_run = origin.as_ref().and_then(Origin::instruction_rows);
    if let (Some(origin), Some(made_of)) = (&origin, rows_of_run) {
        let run = origin.run.display();
        let name = made_of.template()?;
        match Template::choose(Some(&name), rows, tokenizer) {
            Ok(template) => {
                observer.note(&format!(
                    "using the template of the run {run}; --template selects another"
                ));
                // Rows with tools may use an additional template.
                let same = template.sha256().unwrap_or_default() == made_of.data.template_sha256;
                if !same && rows.iter().all(|row| row.tools.is_empty()) {
                    observer.note(&format!(
                        "warning: the template {name} has changed since the run {run}"
                    ));
                }
                return Ok(Chosen {
                    template,
                    is_default: false,
                });
            }
            Err(error) => observer.note(&format!(
                "warning: cannot use the template of the run {run}: {error}"
            )),
        }
    }
    // Only a chat template can be missing or broken.
    let template = Template::choose(None, rows, tokenizer)
        .map_err(|error| Template::by_default(error, SETTING))?;
    Ok(Chosen {
        template,
        is_default: true,
    })
}
