//! The glossary of the page, for a reader who has not read the paper.

use crate::compare::{Arm, Report, Role, labels, matching};
use upright_core::methods::{self, MIX, SEQUENTIAL};
use upright_runs::plan::ObjectivePlan;

/// The terms that a reader needs, each with its meaning on this page.
pub(crate) fn how_to_read(report: &Report) -> Vec<(String, String)> {
    let plans = || {
        report
            .runs
            .iter()
            .flat_map(|run| &run.plan().objectives)
            .filter(|o| report.objectives.contains(&o.name))
    };
    let first = |wanted: bool| {
        plans()
            .find(|o| o.is_preference() == wanted)
            .map(|o| o.name.clone())
    };
    let mut losses: Vec<String> = plans()
        .filter(|o| o.is_preference())
        .map(preference)
        .collect();
    losses.sort();
    losses.dedup();
    let mut words: Vec<(String, String)> = Vec::new();
    let mut say = |name: &str, text: String| words.push((format!("{name}."), text));
    let (instruction, preference) = (first(false), first(true));
    if let Some(name) = &instruction {
        say(
            &format!("Instructions ({name})"),
            "The model learns to give the responses in the dataset (supervised fine-tuning, SFT). \
             The loss is the negative log-likelihood of a response, per token; 0 would be \
             certainty."
                .into(),
        );
    }
    if let Some(name) = &preference {
        say(
            &format!("Preferences ({name})"),
            format!(
                "The model learns from pairs which of two responses is preferred. {}",
                losses.join(" ")
            ),
        );
    }
    if report.objectives.len() > 1 {
        say(
            "Forgetting",
            "Training on one objective alone makes the model worse at the other. A model that is \
             trained on one after the other forgets the first. This page asks which method keeps \
             both, and at what cost."
                .into(),
        );
        say(
            "Lower left is better",
            "Smaller losses are better, so the best corner of a plot of two losses is the lower \
             left. An arm is on the front (the Pareto front) if no other arm is at least as good \
             in every loss and better in one."
                .into(),
        );
    }
    say(
        "Ideal point, gap, distance",
        "The ideal point has every loss at its optimum, the lowest loss reached by training that \
         objective alone, unless the runs were given another; possibly no single model reaches it. \
         The gap is the final loss minus its optimum. The distance is the Euclidean norm of all \
         gaps."
            .into(),
    );
    say(
        "Held-out and training rows",
        "Held-out rows (eval) were never trained on; trust these for a model you want to use. \
         Training rows (fit) are a fixed sample of the training data. They show what the \
         optimization reached, and the curves of the paper are of this kind."
            .into(),
    );
    let mut error = "Numbers are means over the runs of an arm, which differ in their seed, with \
                     the standard error of the mean. A single run has no error."
        .to_owned();
    if !report.benchmarks.is_empty() {
        error += " On a benchmark, the error of a single model is over the questions.";
    }
    say("Mean ± error", error);
    let time = matching::time(&report.arms);
    if report.arms.iter().any(|arm| (time.mean)(arm).is_some()) {
        let text = if time.is_busy() {
            "Wall-clock seconds of all training steps times CPU utilization: the cost of the run \
             itself, independent of other load on the machine. Costs on this page are in busy \
             seconds."
        } else {
            "Costs on this page are in wall-clock seconds of all training steps. Not every run \
             recorded its CPU utilization, so they include waiting for other programs."
        };
        let name = if time.is_busy() {
            "Busy seconds"
        } else {
            "Wall-clock seconds"
        };
        say(name, text.into());
    }
    if !report.levels.is_empty() {
        say("Equal steps, equal tokens", equal(report));
    }
    if report.arms.iter().any(Arm::is_averaged) {
        say(
            "Averaged",
            "An averaged adapter is the mean of the adapters after every step of a run. Late steps \
             count more. The last iterate is the adapter after the last step. Both are of the same \
             runs and cost the same. Averaged arms are compared with averaged arms only."
                .into(),
        );
    }
    for (name, text) in explained(report) {
        say(name, text);
    }
    words
}

/// Explains a preference loss.
fn preference(objective: &ObjectivePlan) -> String {
    (objective.loss.about)(&objective.settings)
}

/// Explains what is equal in comparisons, with the tokens that Mix takes at equal steps.
fn equal(report: &Report) -> String {
    let mut text =
        "At equal steps, all arms took as many steps. At equal tokens, all arms trained on \
                    as many tokens as ALRIGHT, within 10%. Without ALRIGHT, Sequential sets the \
                    number of tokens."
            .to_owned();
    let mut ratios = Vec::new();
    for arm in &report.arms {
        let like = report.levels.iter().find(|level| {
            arm.role.is(&MIX)
                && arm.comparison() == level.comparison()
                && matching::same(&arm.weights, &level.weights)
        });
        if let (Some(level), Some(tokens)) = (like, arm.tokens) {
            ratios.push(tokens.mean / level.tokens);
        }
    }
    let least = ratios.iter().copied().reduce(f64::min);
    let most = ratios.iter().copied().reduce(f64::max);
    if let (Some(least), Some(most)) = (least, most) {
        let [least, most] = [least, most].map(|ratio| format!("{ratio:.1}"));
        let times = if least == most {
            least
        } else {
            format!("{least} to {most}")
        };
        text += &format!(
            " A step of Mix takes a batch of every objective. At equal steps, Mix trained on \
             {times} times as many tokens."
        );
    }
    text
}

/// The methods in the report.
fn explained(report: &Report) -> Vec<(&'static str, String)> {
    let any = |of: fn(&Role) -> bool| report.arms.iter().any(|arm| of(&arm.role));
    let mut words = Vec::new();
    for form in methods::all().iter().flat_map(|method| method.forms) {
        let is_shown = report.arms.iter().any(|arm| match &arm.role {
            Role::Joint(joint) => joint.form == form,
            Role::Sequential(_) => *form == SEQUENTIAL.forms[0],
            _ => false,
        });
        if is_shown {
            words.push((form.title, form.about.to_owned()));
        }
    }
    if any(|role| *role == Role::Sum) {
        let sum = "Adapters that were trained separately and then added, without further training. \
                   Its cost is the cost of the runs that trained them. It is unknown if those runs \
                   are not in the report.";
        words.push(("Sum of adapters", sum.into()));
    }
    if any(|role| matches!(role, Role::Measured(_))) {
        words.push((
            "Adapter",
            "An existing adapter, evaluated as it is, without training.".into(),
        ));
    }
    let joint = report.arms.iter().find(|arm| arm.is_joint());
    let lambda = joint.and_then(|arm| {
        labels::lambda(
            report.runs[arm.runs[0]].plan(),
            &arm.weights,
            &report.objectives,
        )
    });
    if let Some(lambda) = lambda {
        let several = matching::distinct(report.arms.iter().filter(|arm| arm.is_joint())).len() > 1;
        let here = if several {
            String::new()
        } else {
            format!(" Here it is {}.", labels::short(lambda))
        };
        words.push((
            "lambda",
            format!(
                "The weight of the preference objective: 0 trains on instructions alone, 1 on \
                 preferences alone.{here}"
            ),
        ));
    }
    words
}
