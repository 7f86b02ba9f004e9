//! A report is read from run folders, and written to a folder of its own.

use std::path::{Path, PathBuf};

use crate::{
    compare::{self, Report},
    draw, page, read,
    say::{claims, tables},
};
use upright_base::{Result, files, parallel, progress::Progress};

/// File name of the page in a report folder.
pub const PAGE: &str = "report.html";

impl Report {
    /// Reads every run in or below the folders. A folder is a run folder itself, or contains run
    /// folders at some depth.
    ///
    /// # Errors
    /// A folder contains no run, or none that can be read. A file beside the runs is damaged.
    pub fn read(folders: &[PathBuf]) -> Result<Self> {
        let (runs, damaged) = read::runs(folders)?;
        let mut report = compare::compare(runs, damaged, folders)?;
        report.claims = claims::claims(&report);
        Ok(report)
    }

    /// Writes the page, its figures and its tables into a folder. Returns the path of the page.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, out: &Path, observer: &mut dyn Progress) -> Result<PathBuf> {
        let (figures, tables) = (out.join("figures"), out.join("tables"));
        files::create_dir(&figures)?;
        files::create_dir(&tables)?;
        for folder in [&figures, &tables] {
            files::check_inside(out, folder)?;
        }
        let shown = draw::figures(self);
        let mut all = tables::shown(self);
        all.extend(tables::behind_figures(self));
        for table in &all {
            files::write_atomic(
                &tables.join(format!("{}.csv", table.name)),
                table.csv().as_bytes(),
            )?;
            files::write_atomic(
                &tables.join(format!("{}.md", table.name)),
                table.markdown().as_bytes(),
            )?;
        }
        observer.begin("figures", shown.len());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let draw = |i: usize| shown[i].figure.save(&figures, shown[i].name);
        let drawn = parallel::map(shown.len(), threads, draw, &mut |done| {
            observer.advance(done, "");
        });
        observer.end();
        drawn?;
        // Remove files of an earlier report of these runs that this report does not have.
        let stale =
            |names: &[&str], current: &dyn Fn(&str) -> bool, folder: &Path, endings: &[&str]| {
                for name in names.iter().filter(|name| !current(name)) {
                    endings.iter().for_each(|ending| {
                        drop(std::fs::remove_file(folder.join(format!("{name}{ending}"))));
                    });
                }
            };
        stale(
            &draw::NAMES,
            &|name| shown.iter().any(|f| f.name == name),
            &figures,
            &[".svg", ".png", "-dark.png"],
        );
        stale(
            &tables::NAMES,
            &|name| all.iter().any(|t| t.name == name),
            &tables,
            &[".csv", ".md"],
        );
        let path = out.join(PAGE);
        files::write_atomic(&path, page::page(self, &shown).as_bytes())?;
        Ok(path)
    }
}
