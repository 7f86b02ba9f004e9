use super::*;

fn row(prompt: Prompt) -> Row {
    let responses = vec![Message::said(" Yes."), Message::said("No.")];
    Row {
        responses,
        ..Row::unanswered(3, Some(4), prompt)
    }
}

fn task(system: &str, input: &str) -> Row {
    row(Prompt::Instruction {
        system: system.into(),
        instruction: "Add.".into(),
        input: input.into(),
    })
}

fn talk() -> Row {
    let say = Message::new;
    row(Prompt::Messages(vec![
        say(Role::System, "Be kind."),
        say(Role::User, "Hi"),
        say(Role::Assistant, " Ho"),
        say(Role::User, "Really?"),
    ]))
}

/// Texts of the pieces; 'read' for a masked piece.
fn said(rendered: &Rendered) -> Vec<&str> {
    rendered
        .responses
        .iter()
        .flatten()
        .map(|piece| {
            if piece.scored {
                &piece.text[..]
            } else {
                "read"
            }
        })
        .collect()
}

fn prompt(template: &Template, row: &Row) -> String {
    template.render(row, Turns::Last).unwrap().prompt
}

#[test]
fn alpaca_words_both_cases_and_takes_a_system_text() {
    assert_eq!(
        prompt(&Template::Alpaca, &task("", "1 2")),
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
         response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### \
         Response:\n"
    );
    let without = "Below is an instruction that describes a task. Write a response that appropriately completes the \
                   request.\n\n### Instruction:\nAdd.\n\n### Response:\n";
    assert_eq!(prompt(&Template::Alpaca, &task("", " ")), without);
    assert_eq!(
        prompt(&Template::Alpaca, &row(Prompt::Text("Add.".into()))),
        without
    );
    let own = prompt(&Template::Alpaca, &task("You add.", "1 2"));
    assert_eq!(
        own,
        "You add.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"
    );
}

#[test]
fn user_assistant_joins_turns() {
    let template = &Template::UserAssistant;
    assert_eq!(
        prompt(template, &task("", "1 2")),
        "User: Add.\n1 2\nAssistant:"
    );
    assert_eq!(
        prompt(template, &task("Be brief.", "")),
        "System: Be brief.\nUser: Add.\nAssistant:"
    );
    assert_eq!(
        prompt(template, &row(Prompt::Text("Hi".into()))),
        "User: Hi\nAssistant:"
    );
    assert_eq!(
        prompt(template, &talk()),
        "System: Be kind.\nUser: Hi\nAssistant: Ho\nUser: Really?\nAssistant:"
    );
}

#[test]
fn raw_changes_nothing() {
    let marked = row(Prompt::Text("\n\nHuman: Hi\n\nAssistant:".into()));
    let rendered = Template::Raw.render(&marked, Turns::All).unwrap();
    assert_eq!(rendered.prompt, "\n\nHuman: Hi\n\nAssistant:");
    assert_eq!(said(&rendered), [" Yes.", "No."]);
    assert_eq!(prompt(&Template::Raw, &task("", "1 2")), "Add.\n1 2");
    assert_eq!(prompt(&Template::Raw, &task("S", "")), "S\nAdd.");
}

#[test]
fn the_space_between_belongs_to_the_response() {
    assert_eq!(
        said(
            &Template::UserAssistant
                .render(&task("", ""), Turns::Last)
                .unwrap()
        ),
        [" Yes.", " No."]
    );
    assert_eq!(
        said(&Template::Alpaca.render(&task("", ""), Turns::Last).unwrap()),
        ["Yes.", "No."]
    );
}

#[test]
fn templates_without_turns_refuse_conversations() {
    for template in [Template::Raw, Template::Alpaca] {
        let error = template.render(&talk(), Turns::Last).unwrap_err();
        assert_eq!(
            error.message,
            format!(
                "row 3 (line 4): the prompt is a conversation, but the template {template} supports none"
            )
        );
        assert_eq!(
            error.hint,
            "use the template user-assistant, or chat if the model has a chat template"
        );
    }
}

#[test]
fn a_model_with_a_chat_template_has_it_by_default() {
    let marked = row(Prompt::Text("\n\nHuman: Hi\n\nAssistant: ".into()));
    let other = row(Prompt::Text("User: Hi\nAssistant:".into()));
    let plain = row(Prompt::Text("Hi".into()));
    let model = tempfile::tempdir().unwrap();
    let usual = |rows: &[Row]| Template::default_for(rows, model.path());
    assert_eq!(usual(&[marked.clone(), marked.clone()]), TemplateName::Raw);
    assert_eq!(usual(&[marked.clone(), other.clone()]), TemplateName::Raw);
    for rows in [
        vec![marked.clone(), plain.clone()],
        vec![talk()],
        vec![task("Be brief.", "1 2")],
        vec![],
    ] {
        assert_eq!(usual(&rows), TemplateName::UserAssistant, "{rows:?}");
    }
    std::fs::write(model.path().join("chat_template.jinja"), "").unwrap();
    for rows in [
        vec![marked.clone(), marked.clone()],
        vec![marked.clone(), plain.clone()],
        vec![other.clone(), plain],
        vec![talk()],
        vec![task("Be brief.", "1 2")],
        vec![],
    ] {
        assert_eq!(usual(&rows), TemplateName::CHAT, "{rows:?}");
    }
    // Nobody knows the turns of the other text.
    assert_eq!(usual(&[marked, other]), TemplateName::Raw);
}
