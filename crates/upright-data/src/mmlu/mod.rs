//! MMLU: 57 subjects of multiple-choice questions with four answers each (Hendrycks et al., 2021,
//! <https://arxiv.org/abs/2009.03300>), as lm-eval 0.4.13 reads and words them.
//!
//! | module | purpose |
//! |---|---|
//! | [`read`](fn@read) | the questions of a folder: CSV files as published, or the rows of `cais/mmlu` |
//! | [`prompt`] | a question as the text that a model gets |

pub mod prompt;
mod read;

pub use prompt::{Form, Prompt, Wording};
pub use read::{files_of, read};

use upright_base::{Error, Result, suggest::nearest};

/// A question with its four answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The question, verbatim.
    pub question: String,
    /// The four answers, verbatim: some begin with a space.
    pub choices: [String; 4],
    /// Index of the right answer, 0 to 3.
    pub answer: usize,
}

/// A subject with its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The subject's name and group.
    pub about: &'static SubjectName,
    /// Rows of the split `dev`, from which the shots are taken.
    pub dev: Vec<Question>,
    /// Rows of the split `test`, at least one.
    pub test: Vec<Question>,
}

/// A group of subjects, over which lm-eval reports a mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Science, technology, engineering and mathematics.
    Stem,
    /// Business, medicine and the rest.
    Other,
    /// Social sciences.
    SocialSciences,
    /// Humanities.
    Humanities,
}

impl Group {
    /// All groups, in lm-eval's order.
    pub const ALL: [Self; 4] = [
        Self::Stem,
        Self::Other,
        Self::SocialSciences,
        Self::Humanities,
    ];

    /// Name in lm-eval's task names, as in `mmlu_stem`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stem => "stem",
            Self::Other => "other",
            Self::SocialSciences => "social_sciences",
            Self::Humanities => "humanities",
        }
    }
}

/// Name and group of a subject.
#[derive(Debug, PartialEq, Eq)]
pub struct SubjectName {
    /// Name in file names and in lm-eval's task names, as in `mmlu_anatomy`.
    pub name: &'static str,
    /// The group that it belongs to.
    pub group: Group,
}

impl SubjectName {
    /// The name in words, as in prompts.
    pub fn words(&self) -> String {
        self.name.replace('_', " ")
    }
}

const fn of(name: &'static str, group: Group) -> SubjectName {
    SubjectName { name, group }
}

/// All subjects in alphabetical order, with the groups of lm-eval's
/// `tasks/mmlu/_generate_configs.py`.
pub const SUBJECTS: [SubjectName; 57] = [
    of("abstract_algebra", Group::Stem),
    of("anatomy", Group::Stem),
    of("astronomy", Group::Stem),
    of("business_ethics", Group::Other),
    of("clinical_knowledge", Group::Other),
    of("college_biology", Group::Stem),
    of("college_chemistry", Group::Stem),
    of("college_computer_science", Group::Stem),
    of("college_mathematics", Group::Stem),
    of("college_medicine", Group::Other),
    of("college_physics", Group::Stem),
    of("computer_security", Group::Stem),
    of("conceptual_physics", Group::Stem),
    of("econometrics", Group::SocialSciences),
    of("electrical_engineering", Group::Stem),
    of("elementary_mathematics", Group::Stem),
    of("formal_logic", Group::Humanities),
    of("global_facts", Group::Other),
    of("high_school_biology", Group::Stem),
    of("high_school_chemistry", Group::Stem),
    of("high_school_computer_science", Group::Stem),
    of("high_school_european_history", Group::Humanities),
    of("high_school_geography", Group::SocialSciences),
    of("high_school_government_and_politics", Group::SocialSciences),
    of("high_school_macroeconomics", Group::SocialSciences),
    of("high_school_mathematics", Group::Stem),
    of("high_school_microeconomics", Group::SocialSciences),
    of("high_school_physics", Group::Stem),
    of("high_school_psychology", Group::SocialSciences),
    of("high_school_statistics", Group::Stem),
    of("high_school_us_history", Group::Humanities),
    of("high_school_world_history", Group::Humanities),
    of("human_aging", Group::Other),
    of("human_sexuality", Group::SocialSciences),
    of("international_law", Group::Humanities),
    of("jurisprudence", Group::Humanities),
    of("logical_fallacies", Group::Humanities),
    of("machine_learning", Group::Stem),
    of("management", Group::Other),
    of("marketing", Group::Other),
    of("medical_genetics", Group::Other),
    of("miscellaneous", Group::Other),
    of("moral_disputes", Group::Humanities),
    of("moral_scenarios", Group::Humanities),
    of("nutrition", Group::Other),
    of("philosophy", Group::Humanities),
    of("prehistory", Group::Humanities),
    of("professional_accounting", Group::Other),
    of("professional_law", Group::Humanities),
    of("professional_medicine", Group::Other),
    of("professional_psychology", Group::SocialSciences),
    of("public_relations", Group::SocialSciences),
    of("security_studies", Group::SocialSciences),
    of("sociology", Group::SocialSciences),
    of("us_foreign_policy", Group::SocialSciences),
    of("virology", Group::Other),
    of("world_religions", Group::Humanities),
];

/// The subjects that a list names, in alphabetical order. The list has names of subjects and of
/// groups, separated by commas. Without a list, all subjects.
///
/// # Errors
/// A name is unknown, or the list is empty.
pub fn choose(list: Option<&str>) -> Result<Vec<&'static SubjectName>> {
    let Some(list) = list else {
        return Ok(SUBJECTS.iter().collect());
    };
    let mut is_wanted = [false; SUBJECTS.len()];
    for word in list
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let name = word.strip_prefix("mmlu_").unwrap_or(word);
        let mut is_known = false;
        for (index, subject) in SUBJECTS.iter().enumerate() {
            if subject.name == name || subject.group.name() == name {
                is_wanted[index] = true;
                is_known = true;
            }
        }
        if !is_known {
            let groups = Group::ALL.iter().map(|group| group.name());
            let names = SUBJECTS.iter().map(|subject| subject.name).chain(groups);
            let hint = match nearest(name, names) {
                Some(close) => format!("did you mean `{close}`?"),
                None => "subjects are named as the files of MMLU, e.g. college_biology; groups are stem, other, \
                         social_sciences, humanities"
                    .to_owned(),
            };
            return Err(Error::input(format!("subjects: MMLU has no subject `{word}`")).hint(hint));
        }
    }
    let mut chosen = Vec::new();
    for (index, subject) in SUBJECTS.iter().enumerate() {
        if is_wanted[index] {
            chosen.push(subject);
        }
    }
    if chosen.is_empty() {
        return Err(Error::input("subjects: the list is empty").hint(
            "name subjects, e.g. --subjects anatomy,world_religions, or leave --subjects out",
        ));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_sorted_and_grouped_as_in_lm_eval() {
        assert!(SUBJECTS.is_sorted_by_key(|subject| subject.name));
        let counts = Group::ALL.map(|group| {
            SUBJECTS
                .iter()
                .filter(|subject| subject.group == group)
                .count()
        });
        // Of stem, other, social sciences and humanities: 19 + 13 + 12 + 13 = 57.
        assert_eq!(counts, [19, 13, 12, 13]);
    }

    #[test]
    fn subjects_and_groups_are_chosen_by_name() {
        let names = |list: &str| -> Vec<&str> {
            let chosen = choose(Some(list)).unwrap();
            chosen.iter().map(|subject| subject.name).collect()
        };
        assert_eq!(
            names("virology, mmlu_anatomy,virology"),
            ["anatomy", "virology"]
        );
        assert_eq!(names("humanities").len(), 13);
        assert_eq!(choose(None).unwrap().len(), 57);
        let error = choose(Some("anatomi")).unwrap_err();
        assert_eq!(error.message, "subjects: MMLU has no subject `anatomi`");
        assert_eq!(error.hint, "did you mean `anatomy`?");
        assert_eq!(
            choose(Some("humanites")).unwrap_err().hint,
            "did you mean `humanities`?"
        );
        assert!(
            choose(Some("xyzzy"))
                .unwrap_err()
                .hint
                .contains("groups are")
        );
        assert!(choose(Some(" ,")).unwrap_err().message.contains("empty"));
    }
}
