//! `upright train`: trains one run and prints its final table.

use std::fmt::Write;

use clap::{Args, Command};

use super::{
    print, print_json,
    ranks::{RankFlags, check_command},
    terminal,
};
use upright_base::{Result, counted, files, progress::Progress};
use upright_core::methods;
use upright_hub::Hub;
use upright_ranks::World;
use upright_report::Report;
use upright_runs::{
    plan::{Plan, named_trackers},
    plan_record,
    records::PerSet,
    run_dir,
    settings::{Config, ObjectiveConfig, shared::device},
    summary::Summary,
    trackers::Trackers,
};
use upright_train::{fetch::fetched, run};

/// Trains a LoRA adapter on instruction and preference data.
#[derive(Args, Debug)]
pub(super) struct Train {
    /// Print what the run would do and about how long it would take here; train nothing
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    ranks: RankFlags,
}

/// Examples in `--help`.
const EXAMPLES: &str = "\
Examples:
  # SFT and DPO in one run
  upright train --model path/to/model --sft instructions.jsonl \\
      --dpo preferences.jsonl --method alright --out runs/first
  # MAXRIGHT, with optima that two runs on one objective each find first
  upright train --model path/to/model --sft instructions.jsonl \\
      --dpo preferences.jsonl --method maxright --optimum auto \\
      --out runs/maxright
  # Any number of objectives, from a file with [[objective]] tables
  upright train --config three.toml --out runs/three
  # Continue a run that was stopped
  upright train --resume --out runs/first
  # On two machines, with the bytes of a run on one
  mpirun -n 2 -host node1,node2 upright train --model path/to/model \\
      --sft instructions.jsonl --dpo preferences.jsonl --out runs/two
  # Train the reference model first, on the chosen responses
  upright train --model path/to/model --sft instructions.jsonl \\
      --dpo preferences.jsonl --reference train:chosen --out runs/reference";

/// The first sentence of a help text, without its default.
fn brief(help: &str) -> &str {
    let text = help.split(" [default").next().unwrap_or_default();
    for (at, _) in text.match_indices(". ") {
        if text[at + 2..].starts_with(char::is_uppercase) {
            return &text[..at];
        }
    }
    text
}

/// What `--help` shows after the flags: the keys of `[[objective]]`, and examples.
pub(super) fn after_help() -> String {
    let mut text = "Keys of an [[objective]] in the file of --config:\n".to_owned();
    let objective = ObjectiveConfig::augment_args(Command::new("objective"));
    for argument in objective.get_arguments() {
        let key = argument.get_id().as_str().replace('_', "-");
        let help = argument.get_help().map(ToString::to_string);
        let _ = writeln!(text, "  {key:<16} {}", brief(&help.unwrap_or_default()));
    }
    text + "\n" + EXAMPLES
}

/// Runs the command.
pub(super) fn run(arguments: &Train) -> Result<()> {
    terminal::catch_signals()?;
    let resolved = arguments.config.clone().resolve();
    let settings = resolved.as_ref().unwrap_or(&arguments.config);
    let named = device(settings.device.as_deref());
    let world = arguments.ranks.open(named.unwrap_or_default())?;
    check_command(&world)?;
    let config = shared(&world, resolved)?;
    let plan = world.settle(planned(&config, &world))?;
    let mut terminal = terminal::Terminal::new();
    if arguments.dry_run {
        return world.slowly(|_| {
            if !world.is_first() {
                return Ok(());
            }
            let outline = run::outline(&plan, &mut terminal)?;
            if config.json {
                print_json(&outline)
            } else {
                print(&(outline.lines().join("\n") + "\n"))
            }
        });
    }
    let written = config.to_toml()?;
    let mut trackers = Trackers::open(&named_trackers(&config)?, &plan.out);
    run::run_among(
        &plan,
        &written,
        config.resume,
        &world,
        &mut trackers,
        &mut terminal,
    )?;
    world.slowly(|_| match world.is_first() {
        true => tell(&plan, &config, &mut terminal),
        false => Ok(()),
    })
}

/// The settings of rank 0, on every rank: the others may not see the file of `--config`, nor the run that is resumed.
fn shared(world: &World, resolved: Result<Config>) -> Result<Config> {
    if world.size() == 1 {
        return resolved;
    }
    let text = world.first(|| Ok(resolved?.to_toml()?.into_bytes()))?;
    Config::parse(&String::from_utf8_lossy(&text), "the settings of rank 0")
}

/// The plan, with the files of Hub ids. Rank 0 downloads them first, so that ranks with a common cache find them there.
fn planned(config: &Config, world: &World) -> Result<Plan> {
    let hub = Hub::from_environment();
    let mut terminal = terminal::Terminal::new();
    let first = world.slowly(|_| match world.is_first() {
        true => fetched(config, &hub, &mut terminal).map(Some),
        false => Ok(None),
    })?;
    let files = world.slowly(|_| match first {
        Some(files) => Ok(files),
        None => fetched(config, &hub, &mut terminal),
    })?;
    let plan = Plan::from_config(&files)?;
    for note in plan.notes(config) {
        terminal.note(&note);
    }
    Ok(plan)
}

/// Writes the report, and prints the result.
fn tell(plan: &Plan, config: &Config, terminal: &mut terminal::Terminal) -> Result<()> {
    let summary = Summary::read(&plan.out)?;
    let page = if config.no_report {
        String::new()
    } else {
        report(plan, terminal)
    };
    // The record has the optima that were found.
    for warning in untrained(&plan_record::with_recorded(plan), &summary) {
        terminal.note(&warning);
    }
    if config.json {
        print_json(&summary)
    } else {
        print(&(table(&summary) + &optimum(&summary) + &page))
    }
}

/// Warnings about objectives that have a weight but that no step trained on.
fn untrained(plan: &Plan, summary: &Summary) -> Vec<String> {
    let mut warnings = Vec::new();
    for (objective, planned) in summary.objectives.iter().zip(&plan.objectives) {
        let is_meant = plan.stages.is_empty() && objective.weight > 0.0;
        if objective.steps > 0 || !is_meant || summary.steps == 0 {
            continue;
        }
        let name = &objective.name;
        let mut warning = format!(
            "warning: {name} was never trained on: none of {} chose it",
            counted(summary.steps, "step")
        );
        let lacks_optima = plan.objectives.iter().any(|o| o.optimum.is_none());
        match planned.optimum {
            _ if !plan.method.needs_optima => {
                warning += "; more --steps or a larger weight would";
            }
            _ if lacks_optima => {
                warning += &format!(
                    ". Without optima, {} trains on the largest weighted loss; give --optimum auto, which trains each objective \
                     alone first",
                    plan.method
                );
            }
            Some(optimum) => {
                warning +=
                    &format!("; its weighted gap to the optimum {optimum} was never the largest");
            }
            None => {}
        }
        warnings.push(warning);
    }
    warnings
}

/// The optimum that a run of a single objective found, as the flags of a run that needs it.
fn optimum(summary: &Summary) -> String {
    let mut weighted = summary.objectives.iter().filter(|o| o.weight > 0.0);
    let (Some(alone), None) = (weighted.next(), weighted.next()) else {
        return String::new();
    };
    let PerSet { held_out, training } = alone.end;
    let mut text = String::new();
    if let Some(fit) = training.filter(|_| alone.steps > 0) {
        let users = methods::all().iter().filter(|method| method.needs_optima);
        let users: Vec<&str> = users.map(|method| method.name).collect();
        text += &format!(
            "for {}: --optimum {}={fit:.4}",
            users.join(" and "),
            alone.name
        );
        if let Some(held_out) = held_out {
            text += &format!(" --optimum-eval {}={held_out:.4}", alone.name);
        }
        text.push('\n');
    }
    text
}

/// Writes the report page to the run folder. Returns a line with its path. A failure is only a
/// warning, so that the run is not lost.
fn report(plan: &Plan, terminal: &mut terminal::Terminal) -> String {
    let out = plan.out.join("report");
    let page = files::check_inside(&plan.out, &out)
        .and_then(|()| Report::read(std::slice::from_ref(&plan.out)));
    match page.and_then(|report| report.write(&out, terminal)) {
        Ok(page) => format!("report: {}\n", page.display()),
        Err(error) => {
            terminal.note(&format!("warning: the report was not written: {error}"));
            String::new()
        }
    }
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.4}"))
}

/// Start, end and gap in their columns.
fn cells(values: [Option<f64>; 3]) -> String {
    values.map(|value| format!("{:>9}", cell(value))).join("")
}

/// The final table of a run.
fn table(summary: &Summary) -> String {
    let mut text = String::new();
    let name = summary
        .objectives
        .iter()
        .map(|o| o.name.len())
        .max()
        .unwrap_or(0)
        .max(14);
    let columns = ["start", "end", "gap"].map(|c| format!("{c:>9}")).join("");
    let _ = writeln!(
        text,
        "{:name$}  {:>6} {:>6}  {:^27}  {:^27}",
        "", "", "", "held-out rows", "training rows (fit)"
    );
    let _ = writeln!(
        text,
        "{:name$}  {:>6} {:>6}  {columns}  {columns}",
        "objective", "weight", "steps"
    );
    for o in &summary.objectives {
        let last = PerSet::each(|set| cells([o.start[set], o.end[set], o.gap[set]]));
        let _ = writeln!(
            text,
            "{:name$}  {:>6} {:>6}  {}  {}",
            o.name,
            format!("{:.3}", o.weight),
            o.steps,
            last.held_out,
            last.training
        );
        if o.average_end != PerSet::default() {
            let average = PerSet::each(|set| cells([None, o.average_end[set], o.average_gap[set]]));
            let _ = writeln!(
                text,
                "{:name$}  {:>6} {:>6}  {}  {}",
                "  averaged", "", "", average.held_out, average.training
            );
        }
    }
    let mut row = |label: &str, values: PerSet<Option<f64>>| {
        if values != PerSet::default() {
            let held_out = cell(values.held_out);
            let training = cell(values.training);
            let _ = writeln!(
                text,
                "{label:name$}  {:>6} {:>6}  {held_out:>27}  {training:>27}",
                "", ""
            );
        }
    };
    row("ideal distance", summary.ideal_distance);
    row("  averaged", summary.average_ideal_distance);
    for o in &summary.objectives {
        row(&format!("{} accuracy", o.name), o.rewards_accuracy);
    }
    let probed = match summary.probed_tokens {
        0 => String::new(),
        tokens => format!(" and {tokens} only probed"),
    };
    let peak = summary
        .peak_memory_gb
        .map_or_else(String::new, |gb| format!(", peak memory {gb:.2} GB"));
    let _ = writeln!(
        text,
        "\n{} of {} in {:.1} s, {} tokens{probed}, {:.0} tokens/s{peak}, arithmetic {}",
        counted(summary.steps, "step"),
        summary.method.name,
        summary.seconds,
        summary.tokens,
        summary.tokens_per_second,
        summary.arithmetic
    );
    let _ = writeln!(
        text,
        "adapter: {}",
        run_dir::adapter_dir(&summary.run).display()
    );
    let (average, last) = (
        run_dir::average_dir(&summary.run),
        run_dir::last_dir(&summary.run),
    );
    for (name, folder) in [("averaged adapter", average), ("last adapter", last)] {
        if folder.is_dir() {
            let _ = writeln!(text, "{name}: {}", folder.display());
        }
    }
    text
}
