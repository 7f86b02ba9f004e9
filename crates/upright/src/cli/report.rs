//! `upright report`: what runs came to, as one page with figures and tables.

use std::{fs, path::PathBuf};

use clap::Args;

use super::{make_out, print, print_json, terminal::Terminal};
use upright_base::{Error, Result, files, observer::Observer};
use upright_report::{PAGE, Report};

/// Writes a page about runs.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Folders of runs, or folders that hold runs somewhere below.
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Folder of the page, its figures and its tables [default: `report` in DIR; of several, `report` here]
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

/// Where a page about several folders goes that was given no place.
fn of_several() -> Result<PathBuf> {
    let here = PathBuf::from("report");
    let foreign = fs::read_dir(&here).is_ok_and(|mut entries| entries.next().is_some())
        && !here.join(PAGE).is_file();
    if foreign {
        return Err(Error::input("report: is there, and is no report")
            .hint("name the folder of the page: --out DIR"));
    }
    Ok(here)
}
