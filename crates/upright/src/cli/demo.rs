//! `upright demo`: compares all methods on an embedded model and shows how much each one forgets.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{machine::Machine, print, print_json, terminal};
use crate::demo::{Demo, Story};
use upright_base::{Error, ErrorKind, Result, files};
use upright_core::metrics::Spread;
use upright_report::Verdict;
use upright_runs::records::PerSet;

/// Compares all methods on the embedded model in a few minutes.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Keep the model, the rows and the runs in this folder. Finished runs in it are not repeated.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the table as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    terminal::catch_signals()?;
    let mut terminal = terminal::Terminal::new();
    let options = arguments.machine.options()?;
    let go_on = if arguments.out.is_some() {
        "run the same command to continue"
    } else {
        "use --out DIR to be able to continue a stopped demo"
    };
    let tell = |dir: &Path, terminal: &mut terminal::Terminal| {
        let demo = Demo::new(dir, &options)?;
        let story = demo.tell(terminal).map_err(|error| match error.kind {
            ErrorKind::Interrupted => error.hint(go_on),
            ErrorKind::Input | ErrorKind::Failure => error,
        })?;
        Ok::<_, Error>((demo, story))
    };
    let (story, page) = match &arguments.out {
        Some(out) => {
            let (demo, story) = tell(out, &mut terminal)?;
            (story, Some(demo.report(&mut terminal)?))
        }
        None => (
            tell(files::Scratch::new("upright-demo")?.path(), &mut terminal)?.1,
            None,
        ),
    };
    if arguments.json {
        return print_json(&story);
    }
    print(&table(&story))?;
    match (&arguments.out, page) {
        (Some(out), Some(page)) => print(&format!(
            "\nruns: {}\nreport: {}\n",
            out.join("runs").display(),
            page.display()
        )),
        _ => print("\nTo keep the runs, use `upright demo --out DIR`.\n"),
    }
}

fn cell(spread: &Spread) -> String {
    let error = spread
        .error
        .map_or_else(String::new, |error| format!(" ±{error:.3}"));
    format!("{:.3}{error}", spread.mean)
}

/// The table, the claims and the answers as text.
fn table(story: &Story) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{}", line.trim_end());
    };
    line(format!(
        "Losses after {} steps: mean ± standard error over {} seeds; lower is better.",
        story.steps,
        story.seeds.len()
    ));
    line(
        "`distance`: distance to the ideal point, the best loss of each objective trained alone."
            .into(),
    );
    line(
        "`mix, half as long`: half of the steps, so about as many tokens as the other methods."
            .into(),
    );
    line(String::new());
    line(format!(
        "{:17}  {:^41}  {:^41}  {:>7} {:>7}",
        "", "held-out rows", "training rows", "", ""
    ));
    let columns = format!("{:>13} {:>13} {:>13}", "sft", "dpo", "distance");
    line(format!(
        "{:17}  {columns}  {columns}  {:>7} {:>7}",
        "method", "tokens", "seconds"
    ));
    let single = |name: &str, [sft, dpo]: [PerSet<f64>; 2]| {
        let cells = PerSet::each(|set| format!("{:>13.3} {:>13.3} {:>13}", sft[set], dpo[set], ""));
        format!("{name:17}  {}  {}", cells.held_out, cells.training)
    };
    line(single("start", story.start));
    line(single("each alone", story.optima));
    for m in &story.methods {
        let cells = PerSet::each(|set| {
            format!(
                "{:>13} {:>13} {:>13}",
                cell(&m.sft[set]),
                cell(&m.dpo[set]),
                cell(&m.ideal_distance[set])
            )
        });
        line(format!(
            "{:17}  {}  {}  {:>6.0}k {:>7.1}",
            m.method,
            cells.held_out,
            cells.training,
            m.tokens.mean / 1000.0,
            m.seconds.mean
        ));
    }
    line(String::new());
    line("Claims of the paper:".into());
    for claim in &story.claims {
        line(format!(
            "- {}: {}{}. {}",
            claim.text,
            claim.summary(),
            claim.mark(),
            claim.caution()
        ));
        claim
            .verdicts
            .iter()
            .flat_map(Verdict::lines)
            .for_each(|numbers| line(format!("    {numbers}")));
    }
    line(String::new());
    line(format!("\"{}\"", story.question));
    for (name, answer) in &story.answers {
        line(format!("  {name:14} {answer}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use upright_core::metrics::Call;
    use upright_report::{Claim, NoError, Small};

    /// A verdict over both sets is printed above the numbers of each set, by name.
    #[test]
    fn numbers_say_which_rows_they_are_of() {
        let claim = |holds: PerSet<Call>, because: PerSet<&str>, no_error: Option<NoError>| Claim {
            text: "It is so".into(),
            verdicts: vec![Verdict {
                at: String::new(),
                holds: PerSet::each(|set| Some(holds[set])),
                because: PerSet::each(|set| because[set].to_owned()),
                no_error,
                small: Small {
                    seeds: no_error.map(|_| 1),
                    ..Small::default()
                },
            }],
        };
        let story = Story {
            steps: 1,
            seeds: vec![1],
            start: [PerSet::both(1.0); 2],
            optima: [PerSet::both(1.0); 2],
            methods: Vec::new(),
            claims: vec![
                claim(
                    PerSet {
                        held_out: Call::Yes,
                        training: Call::No,
                    },
                    PerSet {
                        held_out: "1 against 2",
                        training: "2 against 1",
                    },
                    None,
                ),
                claim(
                    PerSet::both(Call::TooCloseToCall),
                    PerSet::both("3 seconds"),
                    None,
                ),
                claim(
                    PerSet::both(Call::Yes),
                    PerSet::both("4 seconds"),
                    Some(NoError::OneRun),
                ),
            ],
            question: String::new(),
            answers: Vec::new(),
        };
        let expected = "- It is so: holds here on held-out rows only.\n    held-out rows: yes (1 against 2)\n    \
                        training rows: no (2 against 1)\n- It is so: too close to call here.\n    \
                        too close to call (3 seconds)\n- It is so: holds here, one run, no error known. 1 seed: treat as an anecdote.\n    \
                        yes, one run, no error known (4 seconds)\n";
        assert!(table(&story).contains(expected), "{}", table(&story));
    }
}
