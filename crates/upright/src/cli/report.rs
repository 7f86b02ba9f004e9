//! `upright report`: what runs came to, as one page with figures and tables.

use std::path::PathBuf;

use clap::Args;

use super::{make_out, print, print_json, terminal::Terminal};
use crate::{Result, observer::Observer, report::Report};

/// Writes a page about runs.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Folders of runs, or folders that hold runs somewhere below.
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Folder of the page, its figures and its tables [default: `report` in the first DIR]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the numbers as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let report = Report::read(&arguments.folders)?;
    let out = arguments.out.clone().unwrap_or_else(|| arguments.folders[0].join("report"));
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
