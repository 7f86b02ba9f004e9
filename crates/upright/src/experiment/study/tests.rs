//! What a study file says, and which of the shipped ones are understood.

use super::*;

/// Reads the files as shipped; the models and data of most are not available here.
#[test]
fn shipped_studies_are_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut read: Vec<(String, usize)> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let study = Study::read(&path).unwrap_or_else(|error| panic!("{error}: {}", error.hint));
        assert!(
            !study.title.is_empty() && !study.about.is_empty(),
            "{}",
            path.display()
        );
        let points = study.sweeps.iter().map(|sweep| sweep.weights.len()).sum();
        read.push((
            path.file_stem().unwrap().to_str().unwrap().to_owned(),
            points,
        ));
    }
    read.sort();
    let expected = [
        ("embedded", 3),
        ("embedded-table-1", 3),
        ("figure-3", 5),
        ("figure-4", 1),
        ("figure-7", 5),
        ("figure-8-table-1", 3),
        ("own-evaluation-files", 1),
        ("smollm2", 4),
        ("smollm2-equal-compute", 3),
        ("three-objectives", 2),
    ];
    assert_eq!(
        read,
        expected.map(|(name, points)| (name.to_owned(), points))
    );
}

#[test]
fn shipped_examples_show_what_their_names_promise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let three = Study::read(&folder.join("three-objectives.toml")).unwrap();
    let [sweep] = &three.sweeps[..] else {
        panic!("one sweep")
    };
    let root = folder.join("..");
    for objective in &sweep.settings.objective {
        let [data] = &objective.data[..] else {
            panic!("one file")
        };
        assert!(root.join(data).is_file(), "{data} is not shipped");
    }
    assert_eq!(sweep.settings.objective.len(), 3);
    assert_eq!(sweep.weights, [vec![0.4, 0.3, 0.3], vec![0.5, 0.25, 0.25]]);
    let own = Study::read(&folder.join("own-evaluation-files.toml")).unwrap();
    for objective in &own.sweeps[0].settings.objective {
        assert!(objective.eval.is_some());
    }
    assert_eq!(own.sweeps[0].settings.objective.len(), 2);
}

/// Serde lists the known fields in the error for an unknown field.
#[test]
fn every_key_that_is_read_is_listed() {
    fn fields<T: for<'de> Deserialize<'de>>() -> Vec<String> {
        let error = toml::from_str::<T>("zebra = 1")
            .err()
            .expect("a zebra is no field");
        error
            .message()
            .split('`')
            .skip(1)
            .step_by(2)
            .skip(1)
            .map(str::to_owned)
            .collect()
    }
    assert_eq!(fields::<WrittenStudy>(), keys::STUDY.map(|(key, _)| key));
    let sweep = keys::sweep();
    let mut written: Vec<&str> = sweep.iter().map(|(key, _)| *key).collect();
    for setting in keys::listed_settings() {
        assert!(written.contains(&setting.name), "{}", setting.name);
        written.retain(|key| *key != setting.name);
    }
    assert_eq!(fields::<WrittenSweep>(), written);
    assert_eq!(
        fields::<WrittenQuestions>(),
        keys::ANSWERS.map(|(key, _)| key)
    );
    let (settings, objective) = (Config::keys(), ObjectiveConfig::keys());
    assert!(
        keys::decided()
            .iter()
            .all(|(key, _)| settings.iter().any(|known| known == key))
    );
    assert!(
        keys::baseline()
            .iter()
            .all(|(key, _)| objective.iter().any(|known| known == key))
    );
}
