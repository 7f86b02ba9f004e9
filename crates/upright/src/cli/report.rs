//! `upright report`: summarizes runs as one HTML page with figures and tables.

use std::{fs, path::PathBuf};

use clap::Args;

use super::{make_out, print, print_json, terminal::Terminal};
use upright_base::{Error, Result, files, progress::Progress};
use upright_report::{PAGE, Report};

/// Examples in `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  upright report runs
  upright report runs/first runs/second --out comparison
  upright report study --json";

/// Summarizes runs as one HTML page with figures and tables.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Run folders, or folders that contain run folders at any depth.
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Folder for the page, its figures and its tables [default: report in DIR; for several DIRs,
    /// report in the current directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the numbers as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let report = Report::read(&arguments.folders)?;
    let out = match (&arguments.out, &arguments.folders[..]) {
        (Some(out), _) => out.clone(),
        (None, [folder]) => {
            let out = folder.join("report");
            files::check_inside(folder, &out)?;
            out
        }
        (None, _) => of_several()?,
    };
    make_out(&out)?;
    let mut terminal = Terminal::new();
    for damaged in &report.damaged {
        terminal.note(&format!("{} is left out: {}", damaged.place, damaged.why));
    }
    let page = report.write(&out, &mut terminal)?;
    if arguments.json {
        return print_json(&report);
    }
    print(&format!("report: {}\n", page.display()))
}

/// Default output folder of a report on several folders.
fn of_several() -> Result<PathBuf> {
    let here = PathBuf::from("report");
    let foreign = fs::read_dir(&here).is_ok_and(|mut entries| entries.next().is_some())
        && !here.join(PAGE).is_file();
    if foreign {
        return Err(
            Error::input("report: the folder exists and holds no report")
                .hint("give the folder of the page: --out DIR"),
        );
    }
    Ok(here)
}
