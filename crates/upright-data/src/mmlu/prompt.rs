//! The texts of a question, equal to those of lm-eval's tasks `mmlu` and `mmlu_continuation`.

use super::{Question, Subject};
use crate::Template;
use crate::conversation::{Message, Prompt as RowPrompt, Role, Row};
use upright_base::{ErrorKind, Result};

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// lm-eval's `mmlu`: the prompt lists the answers, and the model continues with a letter.
    Letters,
    /// lm-eval's `mmlu_continuation`: the prompt has no answers, and the model continues with the
    /// text of one.
    Cloze,
}

/// Letters of the answers.
pub const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

impl Form {
    /// Name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Letters => "letters",
            Self::Cloze => "cloze",
        }
    }

    /// The text at the start of every prompt of a subject.
    pub fn description(self, subject: &str) -> String {
        let kind = match self {
            Self::Letters => "multiple choice questions",
            Self::Cloze => "questions",
        };
        format!("The following are {kind} (with answers) about {subject}.\n\n")
    }

    /// A question up to where its answer begins, without the space in front of the answer.
    pub fn question(self, row: &Question) -> String {
        let question = trim(&row.question);
        match self {
            Self::Letters => {
                let [a, b, c, d] = &row.choices;
                format!("{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:")
            }
            Self::Cloze => format!("Question: {question}\nAnswer:"),
        }
    }

    /// The four answers as the model would write them, without the space in front.
    pub fn answers(self, row: &Question) -> [&str; 4] {
        match self {
            Self::Letters => LETTERS,
            Self::Cloze => row.choices.each_ref().map(String::as_str),
        }
    }
}

/// How the questions of a subject are worded.
#[derive(Clone, Copy, Debug)]
pub struct Wording<'w> {
    /// How a question is asked.
    pub form: Form,
    /// The first rows of the split `dev` that come before the question, each with its answer.
    pub shots: usize,
    /// The template; [`Template::Raw`] is lm-eval's default, no template.
    pub template: &'w Template,
}

/// A question as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Everything before the answer.
    pub context: String,
    /// The four continuations of the context that are compared.
    pub continuations: [String; 4],
    /// Whether the description is left out because the chat template rejects a system message.
    pub lacks_description: bool,
}

impl Wording<'_> {
    /// The text of a question of a subject. With a chat template, the description is a system
    /// message, each shot is a turn of the user and a turn of the model, and continuations have no
    /// space in front, as in lm-eval with `--apply_chat_template`. A chat template that rejects the
    /// conversation gets it again without the system message, also as in lm-eval.
    ///
    /// # Errors
    /// The chat template rejects the conversation.
    pub fn prompt(&self, subject: &Subject, row: &Question) -> Result<Prompt> {
        let answers = self.form.answers(row);
        let continuations = match self.template {
            Template::Raw => answers.map(|answer| format!(" {answer}")),
            template => answers.map(|answer| template.response(answer)),
        };
        let mut lacks_description = false;
        let context = match self.template {
            Template::Raw => self.text(subject, row),
            Template::Alpaca => {
                let text = self.text(subject, row);
                let row = Row::unanswered(0, None, RowPrompt::Text(text));
                self.template.prompt(&row)?
            }
            Template::UserAssistant => {
                let turns = RowPrompt::Messages(self.turns(subject, row));
                self.template.prompt(&Row::unanswered(0, None, turns))?
            }
            Template::Chat(chat) => {
                let turns = self.turns(subject, row);
                match chat.text(&turns, &[], true) {
                    Ok(marked) => marked.text,
                    Err(error) if error.kind == ErrorKind::Input => {
                        lacks_description = true;
                        chat.text(&turns[1..], &[], true)?.text
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Prompt {
            context,
            continuations,
            lacks_description,
        })
    }

    /// The prompt without a template.
    fn text(&self, subject: &Subject, row: &Question) -> String {
        let mut text = self.form.description(&subject.about.words());
        for shot in subject.dev.iter().take(self.shots) {
            let answer = self.form.answers(shot)[shot.answer];
            text += &format!("{} {answer}\n\n", self.form.question(shot));
        }
        text + &self.form.question(row)
    }

    /// The prompt as a conversation that begins with a system message.
    fn turns(&self, subject: &Subject, row: &Question) -> Vec<Message> {
        let description = self.form.description(&subject.about.words());
        let mut turns = vec![Message::new(Role::System, description)];
        for shot in subject.dev.iter().take(self.shots) {
            turns.push(Message::new(Role::User, self.form.question(shot)));
            turns.push(Message::said(self.form.answers(shot)[shot.answer]));
        }
        turns.push(Message::new(Role::User, self.form.question(row)));
        turns
    }
}

/// What Python's `str.isspace` is true for: Unicode white space and the four separators U+001C to
/// U+001F.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.strip`.
pub fn trim(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// Python's `str.rstrip`.
pub fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_python_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(question: &str, answer: usize) -> Question {
        Question {
            question: question.to_owned(),
            choices: ["one", " two", "three ", "4"].map(str::to_owned),
            answer,
        }
    }

    fn subject() -> Subject {
        Subject {
            about: super::super::choose(Some("us_foreign_policy")).unwrap()[0],
            dev: vec![question(" First? ", 1), question("Second?", 3)],
            test: vec![question("Last?\u{85}", 0)],
        }
    }

    fn prompt(form: Form, shots: usize, template: &Template) -> Prompt {
        let subject = subject();
        let wording = Wording {
            form,
            shots,
            template,
        };
        wording.prompt(&subject, &subject.test[0]).unwrap()
    }

    #[test]
    fn white_space_is_what_python_strips() {
        assert_eq!(
            trim("\u{1c}\u{1f}\u{85}\u{a0}\u{3000} a b\t\n\u{2029}"),
            "a b"
        );
        // Zero-width space and byte-order mark are no white space in Python either.
        assert_eq!(trim("\u{200b}a\u{feff}"), "\u{200b}a\u{feff}");
        assert_eq!(trim_end(" a \u{1d}"), " a");
    }

    #[test]
    fn letters_are_listed_and_choices_are_verbatim() {
        let letters = prompt(Form::Letters, 1, &Template::Raw);
        assert_eq!(
            letters.context,
            "The following are multiple choice questions (with answers) about us foreign policy.\n\n\
             First?\nA. one\nB.  two\nC. three \nD. 4\nAnswer: B\n\n\
             Last?\nA. one\nB.  two\nC. three \nD. 4\nAnswer:"
        );
        assert_eq!(letters.continuations, [" A", " B", " C", " D"]);
        let more = prompt(Form::Letters, 2, &Template::Raw).context;
        assert!(more.contains("Answer: B\n\nSecond?\nA. one"), "{more}");
        assert!(more.contains("Answer: D\n\nLast?"), "{more}");
    }

    #[test]
    fn a_cloze_has_no_choices_in_the_prompt() {
        let cloze = prompt(Form::Cloze, 1, &Template::Raw);
        assert_eq!(
            cloze.context,
            "The following are questions (with answers) about us foreign policy.\n\n\
             Question: First?\nAnswer:  two\n\nQuestion: Last?\nAnswer:"
        );
        assert_eq!(cloze.continuations, [" one", "  two", " three ", " 4"]);
        let bare = prompt(Form::Cloze, 0, &Template::Raw).context;
        assert!(bare.ends_with("policy.\n\nQuestion: Last?\nAnswer:"));
    }

    #[test]
    fn other_templates_word_the_same_turns() {
        let turns = prompt(Form::Letters, 1, &Template::UserAssistant);
        assert!(
            turns.context.starts_with("System: The following are")
                && turns.context.contains("Answer:\nAssistant: B\nUser: Last?")
                && turns.context.ends_with("Answer:\nAssistant:"),
            "{}",
            turns.context
        );
        assert_eq!(turns.continuations, [" A", " B", " C", " D"]);
        let alpaca = prompt(Form::Letters, 0, &Template::Alpaca);
        assert!(alpaca.context.ends_with("Answer:\n\n### Response:\n"));
        assert_eq!(alpaca.continuations, ["A", "B", "C", "D"]);
    }
}
