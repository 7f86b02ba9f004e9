//! Settings of MMLU's questions, as flags and as keys of a study.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use upright_base::{Error, Result, counted, progress::Progress};
use upright_data::{
    TemplateName,
    mmlu::{self, Form, Subject, SubjectName},
};
use upright_hub::Hub;
use upright_runs::{
    plan,
    settings::{
        Number,
        checks::{Choice, choice, count, count_from, folder},
    },
};

/// Default number of shots, as in the MMLU paper; lm-eval's own default is 0.
const SHOTS: usize = 5;

/// Which questions to ask, and how.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct MmluSettings {
    /// Questions: a folder with MMLU's CSV files (dev/NAME_dev.csv, test/NAME_test.csv), a folder in
    /// the layout of cais/mmlu, or a Hub id such as cais/mmlu
    #[arg(long, value_name = "DIR|ID")]
    pub data: PathBuf,
    /// Questions with answers before each question, 0 to 5 [default: 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub shots: Option<Number>,
    /// Subjects and groups (stem, other, social_sciences, humanities) to ask, separated by commas
    /// [default: all 57]
    #[arg(long, value_name = "NAME,...")]
    pub subjects: Option<String>,
    /// Ask only the first N questions of each subject [default: all]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub limit: Option<Number>,
    /// Form of the questions: letters (lm-eval's mmlu), cloze (lm-eval's mmlu_continuation: texts of
    /// the answers, for small models), both [default: letters]
    #[arg(long, value_name = "FORM")]
    pub form: Option<String>,
    /// Prompt template: chat (the model's chat template; also chat:NAME or chat@YYYY-MM-DD), alpaca,
    /// user-assistant, raw, or a .jinja file [default: raw, as in lm-eval]
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
}

/// Value of `--form`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// `letters`.
    Letters,
    /// `cloze`.
    Cloze,
    /// `both`.
    Both,
}

impl Choice for Forms {
    const ALL: &'static [Self] = &[Self::Letters, Self::Cloze, Self::Both];

    fn name(self) -> &'static str {
        match self {
            Self::Letters => Form::Letters.name(),
            Self::Cloze => Form::Cloze.name(),
            Self::Both => "both",
        }
    }
}

impl Forms {
    /// The forms.
    pub fn list(self) -> &'static [Form] {
        match self {
            Self::Letters => &[Form::Letters],
            Self::Cloze => &[Form::Cloze],
            Self::Both => &[Form::Letters, Form::Cloze],
        }
    }
}

/// The settings, checked.
pub struct Checked {
    /// Questions with answers before each question.
    pub shots: usize,
    /// The subjects.
    pub subjects: Vec<&'static SubjectName>,
    /// Maximum number of questions per subject.
    pub limit: Option<usize>,
    /// The forms.
    pub forms: Forms,
    /// The requested template.
    pub template: Option<TemplateName>,
}

impl MmluSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// A number is out of its range, or a name is unknown.
    pub fn checked(&self) -> Result<Checked> {
        let shots = count_from(0, "shots", self.shots.as_ref(), SHOTS)?;
        if shots > SHOTS {
            return Err(Error::input(format!(
                "shots must be at most {SHOTS}, the rows of dev, found `{shots}`"
            )));
        }
        let limit = match &self.limit {
            Some(limit) => Some(count("limit", Some(limit), 0)?),
            None => None,
        };
        let template = match &self.template {
            Some(name) => Some(plan::template("template", name)?),
            None => None,
        };
        Ok(Checked {
            shots,
            subjects: mmlu::choose(self.subjects.as_deref())?,
            limit,
            forms: choice("form", self.form.as_deref(), Forms::Letters)?,
            template,
        })
    }

    /// The questions of the requested subjects. Downloads a dataset of the Hub.
    ///
    /// # Errors
    /// The questions cannot be had or read, or a subject has fewer rows of dev than shots.
    pub fn questions(
        &self,
        hub: &Hub,
        checked: &Checked,
        observer: &mut dyn Progress,
    ) -> Result<Vec<Subject>> {
        let names = &checked.subjects;
        let repo = self.data.display().to_string();
        let choose = |files: &[String]| mmlu::files_of(&repo, files, names);
        let data = hub.dataset_folder("data", &self.data, &choose, observer)?;
        let data = folder(
            "data",
            &data,
            "give a folder with MMLU's CSV files, or cais/mmlu",
        )?;
        let subjects = mmlu::read(&data, names)?;
        for subject in &subjects {
            let rows = subject.dev.len();
            if rows < checked.shots {
                return Err(Error::file(
                    &data,
                    format!(
                        "{} has {} in dev, but shots is {}",
                        subject.about.name,
                        counted(rows, "row"),
                        checked.shots
                    ),
                    format!("use --shots {rows}, or leave the subject out with --subjects"),
                ));
            }
        }
        Ok(subjects)
    }
}
