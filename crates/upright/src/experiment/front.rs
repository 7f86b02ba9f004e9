//! The reference front (Sections D.2 and D.3 of the paper): the ends of ALRIGHT's runs, kept so that other studies can stop
//! at it too, and refused where they differ in anything that it depends on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Experiment;
use super::graph::Setup;
use upright_base::{Error, Result, files};
use upright_train::run::Preflight;

/// A front as other studies read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontFile {
    /// Losses on training rows, by objective.
    points: Vec<BTreeMap<String, f64>>,
}

/// Names of a front's two files in a study's folder: what it stands on, and its points.
fn front_files(out: &Path, ground: &str) -> [PathBuf; 2] {
    [
        out.join(format!("front-{ground}.toml")),
        out.join(format!("front-{ground}.json")),
    ]
}

impl Setup {
    /// The points of a front that another study left in its folder.
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
                        "{}: a point lacks an objective, or there is none",
                        points.display()
                    ))
                });
            }
            refused.push(differences.join("; "));
        }
        Err(match refused.is_empty() {
            true => Error::input(format!("front: {} holds no front", folder.display()))
                .hint("a study writes its front when its ALRIGHT runs are finished: run it first"),
            false => Error::input(format!(
                "front: {} holds the front of another study: {}",
                folder.display(),
                refused.join(", or ")
            ))
            .hint("a front is of one model, data, reference and length; say front = \"own\" to find one here"),
        })
    }
}

impl Experiment {
    /// Where a part is the last of a front that was missing, other studies can read the front from now on: whether it was
    /// done now or found, for a study that was killed or edited in between.
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
