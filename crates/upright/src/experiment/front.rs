//! The reference front (Sections D.2 and D.3 of the paper): the final losses of the ALRIGHT runs.
//! It is saved so that other studies can stop at it too. A study that differs in anything that the
//! front depends on cannot use it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Experiment;
use super::graph::Setup;
use upright_base::{Error, Result, files};
use upright_train::run::Preflight;

/// The file of a front that other studies read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontFile {
    /// Losses on training rows, by objective.
    points: Vec<BTreeMap<String, f64>>,
}

/// Paths of the two files of a front in a study folder: its setup and its points.
fn front_files(out: &Path, ground: &str) -> [PathBuf; 2] {
    [
        out.join(format!("front-{ground}.toml")),
        out.join(format!("front-{ground}.json")),
    ]
}

impl Setup {
    /// Reads the front that another study saved in its folder.
    pub(super) fn read_front(&self, folder: &Path) -> Result<Vec<Vec<f64>>> {
        let entries =
            std::fs::read_dir(folder).map_err(|error| Error::io(folder, "read", error))?;
        let mut refused = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(hash) = name
                .strip_prefix("front-")
                .and_then(|name| name.strip_suffix(".toml"))
            else {
                continue;
            };
            let [ground, points] = front_files(folder, hash);
            let differences = Preflight::read(&ground)?.differences(&self.met);
            if differences.is_empty() {
                let text = files::read_text(&points)?;
                let found: FrontFile = serde_json::from_str(&text)
                    .map_err(|error| Error::input(format!("{}: {error}", points.display())))?;
                let loss = |point: &BTreeMap<String, f64>, name: &str| point.get(name).copied();
                let point = |point| {
                    self.objectives()
                        .map(|name| loss(point, name))
                        .collect::<Option<Vec<f64>>>()
                };
                let points_of: Option<Vec<Vec<f64>>> = found.points.iter().map(point).collect();
                return points_of.filter(|found| !found.is_empty()).ok_or_else(|| {
                    Error::input(format!(
                        "{}: there are no points, or a point lacks an objective",
                        points.display()
                    ))
                });
            }
            refused.push(differences.join("; "));
        }
        Err(match refused.is_empty() {
            true => Error::input(format!("front: {} holds no front", folder.display()))
                .hint("run that study first; it writes its front when its ALRIGHT runs are finished"),
            false => Error::input(format!(
                "front: {} holds the front of a different study: {}",
                folder.display(),
                refused.join(", or ")
            ))
            .hint(
                "a front is valid for one model, data, reference and length; set front = \"own\" to compute one",
            ),
        })
    }
}

impl Experiment {
    /// Writes the front if a job is part of it and all its jobs are finished, so that other studies
    /// can read it. The job may have been finished before: the study may have been killed or edited
    /// since.
    pub(super) fn write_front(&self, part: usize) -> Result<()> {
        let ground = &self.graph.grounds[self.graph.parts[part].ground];
        let is_there = || {
            ground
                .front
                .iter()
                .all(|end| self.is_finished(&self.graph.parts[*end]))
        };
        if !ground.front.contains(&part) || !is_there() {
            return Ok(());
        }
        let [met, points] = front_files(&self.out, &ground.hash()?);
        let mut front = FrontFile { points: Vec::new() };
        for &end in &ground.front {
            let losses = self.end(end)?;
            front.points.push(
                ground
                    .objectives()
                    .map(str::to_owned)
                    .zip(losses)
                    .collect::<BTreeMap<_, _>>(),
            );
        }
        let text = serde_json::to_string_pretty(&front).expect("plain data");
        for (path, text) in [(points, text), (met, ground.met.to_toml()?)] {
            if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                files::write_atomic(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }
}
