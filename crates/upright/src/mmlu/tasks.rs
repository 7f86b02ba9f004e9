//! Names of tasks and groups, as in lm-eval's `tasks/mmlu/default` and `tasks/mmlu/continuation`.

use upright_data::mmlu::{Form, Group};

/// Name of a subject's task: `mmlu_anatomy`, or `mmlu_anatomy_continuation` for the cloze form.
pub fn task(form: Form, subject: &str) -> String {
    match form {
        Form::Letters => format!("mmlu_{subject}"),
        Form::Cloze => format!("mmlu_{subject}_continuation"),
    }
}

/// Alias of a subject's task in lm-eval's tables.
pub fn task_alias(form: Form, subject: &str) -> String {
    match form {
        Form::Letters => subject.to_owned(),
        Form::Cloze => task(form, subject),
    }
}

/// Name of the group of all subjects.
pub fn whole(form: Form) -> &'static str {
    match form {
        Form::Letters => "mmlu",
        Form::Cloze => "mmlu_continuation",
    }
}

/// Alias of the group of all subjects.
pub fn whole_alias(form: Form) -> &'static str {
    match form {
        Form::Letters => "mmlu",
        Form::Cloze => "mmlu (continuation)",
    }
}

/// Name of a group: `mmlu_stem`, or `mmlu_continuation::stem` for the cloze form.
pub fn group(form: Form, group: Group) -> String {
    match form {
        Form::Letters => format!("mmlu_{}", group.name()),
        Form::Cloze => format!("mmlu_continuation::{}", group_words(group)),
    }
}

/// Alias of a group.
pub fn group_alias(form: Form, of: Group) -> String {
    match form {
        Form::Letters => group_words(of),
        Form::Cloze => group(form, of),
    }
}

/// Name of a group in words.
pub fn group_words(group: Group) -> String {
    group.name().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_lm_eval() {
        assert_eq!(task(Form::Letters, "anatomy"), "mmlu_anatomy");
        assert_eq!(task(Form::Cloze, "anatomy"), "mmlu_anatomy_continuation");
        assert_eq!(
            group(Form::Letters, Group::SocialSciences),
            "mmlu_social_sciences"
        );
        assert_eq!(
            group(Form::Cloze, Group::SocialSciences),
            "mmlu_continuation::social sciences"
        );
        assert_eq!(
            group_alias(Form::Letters, Group::SocialSciences),
            "social sciences"
        );
    }
}
