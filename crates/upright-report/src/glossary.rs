//! What a person who has not read the paper needs to know to read the page.

use super::{Report, Role, labels, matching};
use upright_core::objectives::LossKind;
use upright_runs::plan::ObjectivePlan;

/// The words a reader needs, each with what it means here.
pub(super) fn how_to_read(report: &Report) -> Vec<(String, String)> {
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
            "The model learns to give the answers it is shown (supervised fine-tuning, SFT). The loss is how much the tokens \
             of a good answer surprise it: 0 would be certainty."
                .into(),
        );
    }
    if let Some(name) = &preference {
        say(
            &format!("Preferences ({name})"),
            format!(
                "The model learns from pairs which of two answers is preferred. {}",
                losses.join(" ")
            ),
        );
    }
    if report.objectives.len() > 1 {
        say(
            "Forgetting",
            "Training on one of them alone makes the model worse at the other. Trained one after the other, it forgets what \
             came first. The question of this page is which way of training keeps both, and what it costs."
                .into(),
        );
        say(
            "Down and left is good",
            "Every loss is better when it is smaller. In a plane of two losses the best corner is the lower left. An arm that \
             no other arm beats in all losses at once is on the front."
                .into(),
        );
    }
    say(
        "Ideal point, gap, distance",
        "The ideal point has every loss as small as training that objective alone made it: no single model need reach it. The \
         gap is how far a loss ends above its optimum, the distance takes all gaps together (root of the sum of squares)."
            .into(),
    );
    say(
        "Held-out and training rows",
        "Held-out rows (eval) were never trained on: believe these about a model you want to use. Training rows (fit) are a \
         fixed sample of what was trained on: they show what the optimization reached, and the paper's own curves are of this \
         kind."
            .into(),
    );
    say(
        "Mean ± error",
        "Numbers are means over the runs of an arm, which differ in their seed, with the standard error of the mean; a single run has no error.".into(),
    );
    for (name, text) in methods(report) {
        say(name, text);
    }
    words
}

/// What a preference loss asks for, and what it is where nothing has been learnt, as far as that is a number.
fn preference(objective: &ObjectivePlan) -> String {
    let margin = 0.5 / objective.beta;
    match objective.loss {
        LossKind::Dpo | LossKind::Sft => "The loss of direct preference optimization (DPO) falls as the model makes the better \
                                          answer more likely than the worse one, compared with a frozen reference; 0.693 is \
                                          no preference."
            .into(),
        LossKind::Ipo => format!(
            "The loss of IPO is the squared distance to a margin, {}, by which the better answer should have become more likely \
             than the worse one, compared with a frozen reference; {} is no preference, and too much of it costs as well as \
             too little.",
            labels::short(margin),
            labels::short(margin * margin)
        ),
        LossKind::Rpo => "The loss of RPO is that of DPO, which falls as the model makes the better answer more likely than the \
                          worse one, compared with a frozen reference, and beside it how much the better answer surprises the \
                          model; no number stands for no preference."
            .into(),
        LossKind::Orpo => "The loss of ORPO is how much the better answer surprises the model, and beside it a part that falls \
                           as its odds rise above those of the worse one; there is no reference, and no number stands for no \
                           preference."
            .into(),
        LossKind::Simpo => {
            // log(1 + e^gamma), the other way round for the share that label smoothing takes to be mislabelled.
            let (gamma, wrong) = (objective.gamma.unwrap_or(0.0), objective.label_smoothing);
            let even = (1.0 - wrong) * gamma.exp().ln_1p() + wrong * (-gamma).exp().ln_1p();
            format!(
                "The loss of SimPO falls as a token of the better answer becomes likelier than one of the worse answer; there \
                 is no reference, and {even:.3} is no preference."
            )
        }
    }
}

/// The methods that are there.
fn methods(report: &Report) -> Vec<(&'static str, String)> {
    let any = |of: fn(&Role) -> bool| report.arms.iter().any(|arm| of(&arm.role));
    let mut words = Vec::new();
    if any(|role| matches!(role, Role::Sequential(_))) {
        words.push((
            "Sequential",
            "Trains one objective, then the other: what most people do. ".to_owned(),
        ));
    }
    if any(|role| *role == Role::Mix) {
        words.push((
            "Mix",
            "Trains all objectives in every step, weighted: keeps all, and pays for all.".into(),
        ));
    }
    if any(|role| *role == Role::Alright) {
        words.push((
            "ALRIGHT",
            "Trains one objective a step and draws which, by its weight.".into(),
        ));
    }
    if any(|role| *role == Role::Maxright) {
        let k = "Trains one objective a step: the one whose weighted gap is larger. It looks at all losses every k steps.";
        words.push(("MAXRIGHT", k.into()));
    }
    if any(|role| *role == Role::Sum) {
        let sum = "Adapters that were trained apart and then added, without another step. Its cost is that of the runs that \
                   trained them; where these are not here, it is unknown.";
        words.push(("Sum of adapters", sum.into()));
    }
    if any(|role| matches!(role, Role::Measured(_))) {
        words.push((
            "Adapter",
            "An adapter that was there already, measured as it is, without a step.".into(),
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
                "The weight of preferences: 0 is instructions alone, 1 is preferences alone.{here}"
            ),
        ));
    }
    words
}
