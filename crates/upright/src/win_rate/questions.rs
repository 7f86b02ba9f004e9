//! Preference rows as instructions for the judge, with the chosen responses as reference answers.

use upright_base::{Error, Result, counted};
use upright_data::{
    ColumnMap, DataFile, Dropped, RowKind,
    conversation::{Message, Prompt, Role, Row},
};
use upright_judge::Pair;

use super::PAPER_PROMPTS;

/// How texts are shown to the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without white space around them, and without a leading `Assistant:` of references.
    Clean,
    /// As they are in the file and as the model writes them, as in the paper.
    AsInPaper,
}

/// Label that references of HH-RLHF begin with.
const LABEL: &str = "Assistant:";

/// A row that a model answers and a judge reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The row, for the model.
    pub row: Row,
    /// The instruction, for the judge.
    pub instruction: String,
    /// The chosen response.
    pub reference: String,
}

/// The questions in a file of preference rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    /// The questions, in file order, at least one.
    pub all: Vec<Question>,
    /// Rows that are left out.
    pub dropped: Vec<Dropped>,
    /// References whose leading `Assistant:` is removed.
    pub unlabeled: usize,
    /// How texts are shown.
    pub style: Style,
}

impl Questions {
    /// Reads the first `limit` rows of a file.
    ///
    /// # Errors
    /// The file is broken or holds no preference rows.
    pub fn read(file: &DataFile, map: &ColumnMap, limit: usize, style: Style) -> Result<Self> {
        let (rows, _, _) = file.read_first(map, RowKind::Preference, limit)?;
        let mut questions = Self {
            all: Vec::with_capacity(rows.rows.len()),
            dropped: rows.dropped,
            unlabeled: 0,
            style,
        };
        for row in rows.rows {
            let Some(chosen) = row.responses.first() else {
                continue;
            };
            let mut reference = chosen.content.clone();
            let mut instruction = instruction(&row.prompt);
            if style == Style::Clean {
                let text = reference.trim();
                let bare = text.strip_prefix(LABEL);
                questions.unlabeled += usize::from(bare.is_some());
                reference = bare.unwrap_or(text).trim().to_owned();
                instruction = instruction.trim().to_owned();
            }
            questions.all.push(Question {
                row,
                instruction,
                reference,
            });
        }
        if questions.all.is_empty() {
            return Err(Error::input(format!(
                "{}: no row has a prompt and a chosen response",
                file.name()
            ))
            .hint("give preference rows, as for --dpo"));
        }
        Ok(questions)
    }

    /// The pairs of a model's answers with the references.
    pub fn pairs(&self, answers: &[String]) -> Vec<Pair> {
        let mut pairs = Vec::with_capacity(self.all.len());
        for (question, answer) in self.all.iter().zip(answers) {
            let output = match self.style {
                Style::Clean => answer.trim(),
                Style::AsInPaper => answer,
            };
            pairs.push(Pair {
                instruction: question.instruction.clone(),
                reference: question.reference.clone(),
                output: output.to_owned(),
            });
        }
        pairs
    }

    /// Stand-ins for pairs before a model has answered: each answer is as long as its reference.
    pub fn expected_pairs(&self) -> Vec<Pair> {
        let mut answers = Vec::with_capacity(self.all.len());
        for question in &self.all {
            answers.push(format!("{}.", question.reference));
        }
        self.pairs(&answers)
    }

    /// What a user should know about the rows.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for left_out in &self.dropped {
            notes.push(format!(
                "{} skipped, {}: {}",
                counted(left_out.rows.len(), "row"),
                left_out.reason,
                left_out.named()
            ));
        }
        if self.unlabeled > 0 {
            notes.push(format!(
                "{} begin with `{LABEL}`, which is removed: no answer of a model has it",
                counted(self.unlabeled, "reference")
            ));
        }
        if self.style == Style::AsInPaper && self.all.len() < PAPER_PROMPTS {
            notes.push(format!(
                "warning: the paper takes {PAPER_PROMPTS} prompts, but the rows have {}",
                self.all.len()
            ));
        }
        notes
    }
}

/// A prompt as one text. A conversation of several turns gets labels.
fn instruction(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Instruction { system, .. } if system.trim().is_empty() => prompt.asked(),
        Prompt::Instruction { system, .. } => format!("{system}\n\n{}", prompt.asked()),
        Prompt::Messages(messages) => conversation(messages),
    }
}

fn conversation(messages: &[Message]) -> String {
    let spoken = messages.iter().filter(|turn| turn.role != Role::System);
    let is_single = spoken.count() == 1;
    let mut texts = Vec::with_capacity(messages.len());
    for turn in messages {
        let label = match turn.role {
            Role::System => None,
            Role::User => Some("User"),
            Role::Assistant => Some("Assistant"),
            Role::Tool => Some("Tool"),
        };
        match label.filter(|_| !is_single) {
            Some(label) => texts.push(format!("{label}: {}", turn.content)),
            None => texts.push(turn.content.clone()),
        }
    }
    texts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &str, style: Style) -> Questions {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, rows).unwrap();
        let file = DataFile::from(&path.display().to_string()[..]);
        Questions::read(&file, &ColumnMap::default(), usize::MAX, style).unwrap()
    }

    #[test]
    fn labels_and_white_space_go_unless_as_in_the_paper() {
        let row = r#"{"prompt": "Human: hi\n\n", "chosen": "Assistant: hello\n", "rejected": "Assistant: no"}"#;
        let clean = read(row, Style::Clean);
        assert_eq!(clean.all[0].instruction, "Human: hi");
        assert_eq!((&clean.all[0].reference[..], clean.unlabeled), ("hello", 1));
        assert_eq!(clean.pairs(&[" yes ".into()])[0].output, "yes");
        let paper = read(row, Style::AsInPaper);
        assert_eq!(paper.all[0].instruction, "Human: hi\n\n");
        assert!(paper.all[0].reference.starts_with("Assistant: hello"));
        assert_eq!(paper.pairs(&[" yes ".into()])[0].output, " yes ");
    }

    #[test]
    fn conversations_are_labelled_only_if_they_have_several_turns() {
        let turn = |role, text: &str| Message::new(role, text);
        let single = [turn(Role::System, "Be brief."), turn(Role::User, "a")];
        assert_eq!(conversation(&single), "Be brief.\n\na");
        let several = [
            turn(Role::User, "a"),
            turn(Role::Assistant, "b"),
            turn(Role::User, "c"),
        ];
        assert_eq!(conversation(&several), "User: a\n\nAssistant: b\n\nUser: c");
    }
}
