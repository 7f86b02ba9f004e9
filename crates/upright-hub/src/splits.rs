//! Finds the files of a split by their names, as the Hugging Face tools do.

use std::collections::BTreeMap;

/// Endings of file names that may hold rows.
const ROWS: [&str; 7] = [
    ".jsonl",
    ".json",
    ".ndjson",
    ".jsonl.gz",
    ".json.gz",
    ".ndjson.gz",
    ".parquet",
];

/// Words that name a split, and the split that they name.
const WORDS: [(&str, &str); 10] = [
    ("train", "train"),
    ("training", "train"),
    ("test", "test"),
    ("testing", "test"),
    ("eval", "test"),
    ("evaluation", "test"),
    ("validation", "validation"),
    ("valid", "validation"),
    ("val", "validation"),
    ("dev", "validation"),
];

/// Names of files that never hold rows.
const NOT_ROWS: [&str; 5] = [
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
];

/// The name without its ending; `None` for files that cannot hold rows.
fn stem(name: &str) -> Option<&str> {
    let file = name.rsplit('/').next().unwrap_or(name);
    if NOT_ROWS.contains(&file) || name.split('/').any(|part| part.starts_with('.')) {
        return None;
    }
    let ending = ROWS
        .iter()
        .filter(|ending| name.ends_with(**ending))
        .max_by_key(|ending| ending.len())?;
    name.strip_suffix(*ending)
}

/// A numbered file of a split: `train-00000-of-00002`, with or without a hash at the end.
#[derive(Debug, PartialEq, Eq)]
struct Shard<'s> {
    split: &'s str,
    number: usize,
    of: usize,
}

fn of_shard(stem: &str) -> Option<Shard<'_>> {
    let ((split, number), rest) = stem
        .split_once("-of-")
        .and_then(|(left, right)| Some((left.rsplit_once('-')?, right)))?;
    let digits = |text: &str| {
        text.parse()
            .ok()
            .filter(|_| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit()))
    };
    let (number, of) = (digits(number)?, digits(rest.get(..5)?)?);
    (!split.is_empty()).then_some(Shard { split, number, of })
}

/// The folder of a file's split, and the split: `""` and `train` of
/// `data/train-00000-of-00001.parquet`.
fn place(name: &str) -> Option<(String, String)> {
    let stem = stem(name)?;
    let (folder, file) = stem.rsplit_once('/').unwrap_or(("", stem));
    // A folder named `data` says nothing.
    let plain = |folder: &str| {
        if folder == "data" {
            String::new()
        } else {
            folder.to_owned()
        }
    };
    if let Some(shard) = of_shard(file) {
        return Some((plain(folder), shard.split.to_owned()));
    }
    let known = |text: &str| {
        WORDS
            .iter()
            .find(|(word, _)| text == *word)
            .map(|(_, split)| (*split).to_owned())
    };
    // `train/0000.parquet`: the folder is the split.
    let (above, last) = folder.rsplit_once('/').unwrap_or(("", folder));
    if let Some(split) = known(last) {
        return Some((plain(above), split));
    }
    // `test1.jsonl`: a number is not part of a word.
    let words = file.split(|c: char| !c.is_ascii_alphabetic());
    let split = words
        .into_iter()
        .find_map(|word| known(&word.to_lowercase()));
    Some((plain(folder), split.unwrap_or_else(|| "train".to_owned())))
}

/// Why no files were chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unclear {
    /// No file could hold rows.
    NoRows,
    /// No split or file has this name; the existing ones.
    NoSuch(Vec<String>),
    /// Several match.
    Several(Vec<String>),
    /// Some files of a split are missing.
    Incomplete {
        /// The files that are present.
        there: Vec<String>,
        /// How many files the split has, according to their names.
        of: usize,
    },
}

/// The files of `part` of a dataset, sorted. `part` is a file, a split, or a folder with a split;
/// without it, the only split, else `train`.
pub(super) fn choose(names: &[String], part: Option<&str>) -> Result<Vec<String>, Unclear> {
    if let Some(name) = names.iter().find(|name| Some(&name[..]) == part) {
        return Ok(vec![name.clone()]);
    }
    let mut groups: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for name in names {
        if let Some(place) = place(name) {
            groups.entry(place).or_default().push(name.clone());
        }
    }
    if groups.is_empty() {
        return Err(Unclear::NoRows);
    }
    let label = |(folder, split): &(String, String)| match &folder[..] {
        "" => split.clone(),
        folder => format!("{folder}/{split}"),
    };
    let all = || groups.keys().map(label).collect::<Vec<_>>();
    let means =
        |key: &(String, String), part: &str| label(key) == part || key.1 == part || key.0 == part;
    let exact = part.and_then(|part| groups.keys().find(|key| label(key) == part));
    let mut found: Vec<_> = match (exact, part) {
        (Some(key), _) => vec![key],
        (None, Some(part)) => groups.keys().filter(|key| means(key, part)).collect(),
        (None, None) if groups.len() == 1 => groups.keys().collect(),
        (None, None) => groups.keys().filter(|key| key.1 == "train").collect(),
    };
    match (found.len(), part) {
        (1, _) => {}
        (0, Some(_)) => return Err(Unclear::NoSuch(all())),
        (0, None) => return Err(Unclear::Several(all())),
        _ => return Err(Unclear::Several(found.into_iter().map(label).collect())),
    }
    let files = &groups[found.remove(0)];
    // Shards belong together; files that only share a word in their names do not.
    let shard = |name: &String| {
        stem(name).and_then(|stem| {
            of_shard(stem.rsplit('/').next().unwrap_or(stem)).map(|s| (s.number, s.of))
        })
    };
    let shards: Option<Vec<_>> = files.iter().map(shard).collect();
    if let Some(mut shards) = shards {
        shards.sort_unstable();
        let of = shards[0].1;
        if shards
            .iter()
            .enumerate()
            .all(|(index, shard)| *shard == (index, of))
            && shards.len() == of
        {
            return Ok(files.clone());
        }
        let one_of_each = shards.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && shards.iter().all(|shard| shard.1 == of);
        return Err(match one_of_each {
            true => Unclear::Incomplete {
                there: files.clone(),
                of,
            },
            false => Unclear::Several(files.clone()),
        });
    }
    let folder_is_split = |name: &String| {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        WORDS
            .iter()
            .any(|(word, _)| folder.rsplit('/').next() == Some(*word))
    };
    if files.len() == 1 || files.iter().all(folder_is_split) {
        return Ok(files.clone());
    }
    Err(Unclear::Several(files.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], part: Option<&str>) -> Result<Vec<String>, Unclear> {
        choose(
            &names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
            part,
        )
    }

    fn files(names: &[&str]) -> Result<Vec<String>, Unclear> {
        Ok(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn several(names: &[&str]) -> Result<Vec<String>, Unclear> {
        Err(Unclear::Several(
            names.iter().map(|name| (*name).to_owned()).collect(),
        ))
    }

    #[test]
    fn splits_are_found_as_datasets_are_laid_out() {
        // One file; splits with numbered files; splits of other names.
        assert_eq!(
            chosen(&["README.md", "alpaca_data.json"], None),
            files(&["alpaca_data.json"])
        );
        let numbered = [
            "data/test-00000-of-00001.parquet",
            "data/train-00000-of-00002-a1b2.parquet",
            "data/train-00001-of-00002-c3.parquet",
        ];
        assert_eq!(chosen(&numbered, None), files(&numbered[1..]));
        assert_eq!(chosen(&numbered, Some("test")), files(&numbered[..1]));
        let prefs = [
            "data/test_prefs-00000-of-00001.parquet",
            "data/train_prefs-00000-of-00001.parquet",
            "data/train_sft-00000-of-00001.parquet",
        ];
        assert_eq!(chosen(&prefs, Some("train_prefs")), files(&prefs[1..2]));
        assert_eq!(
            chosen(&prefs, None),
            several(&["test_prefs", "train_prefs", "train_sft"])
        );
        assert_eq!(
            chosen(&prefs, Some("trian")),
            Err(Unclear::NoSuch(vec![
                "test_prefs".into(),
                "train_prefs".into(),
                "train_sft".into()
            ]))
        );
        // Folders with splits, and splits that are folders.
        let hh = [
            "harmless-base/test.jsonl.gz",
            "harmless-base/train.jsonl.gz",
            "helpful-base/test.jsonl.gz",
            "helpful-base/train.jsonl.gz",
        ];
        assert_eq!(
            chosen(&hh, None),
            several(&["harmless-base/train", "helpful-base/train"])
        );
        assert_eq!(
            chosen(&hh, Some("train")),
            several(&["harmless-base/train", "helpful-base/train"])
        );
        assert_eq!(
            chosen(&hh, Some("helpful-base")),
            several(&["helpful-base/test", "helpful-base/train"])
        );
        assert_eq!(chosen(&hh, Some("helpful-base/train")), files(&hh[3..]));
        assert_eq!(
            chosen(&hh, Some("helpful-base/test.jsonl.gz")),
            files(&hh[2..3])
        );
        let converted = [
            "default/train/0000.parquet",
            "default/train/0001.parquet",
            "default/validation/0000.parquet",
        ];
        assert_eq!(chosen(&converted, None), files(&converted[..2]));
        assert_eq!(
            chosen(&converted, Some("validation")),
            files(&converted[2..])
        );
        assert_eq!(
            chosen(&["my-dev.jsonl", "my-train.jsonl"], Some("validation")),
            files(&["my-dev.jsonl"])
        );
        // Words with numbers next to them, and words inside other words.
        for (name, split) in [
            ("eval.jsonl", "test"),
            ("my_evaluation.json", "test"),
            ("test1.jsonl", "test"),
            ("v2test.jsonl", "test"),
            ("eval/rows.jsonl", "test"),
            ("val2017.json", "validation"),
            ("train00.jsonl", "train"),
            ("contest.jsonl", "train"),
            ("evaluations.jsonl", "train"),
        ] {
            assert_eq!(place(name).unwrap().1, split, "{name}");
        }
        assert_eq!(
            chosen(&["alpaca_data.json", "alpaca_eval.json"], None),
            files(&["alpaca_data.json"])
        );
        let described = [
            "config.json",
            "data/dataset_info.json",
            "dataset_infos.json",
            "rows.json",
            "state.json",
        ];
        assert_eq!(chosen(&described, None), files(&["rows.json"]));
        // Some files of a split are not the split, and neither are two copies of it.
        assert_eq!(
            chosen(&numbered[..2], None),
            Err(Unclear::Incomplete {
                there: vec![numbered[1].into()],
                of: 2
            })
        );
        assert_eq!(
            chosen(&numbered[..2], Some(numbered[1])),
            files(&numbered[1..2]),
            "unless it is requested"
        );
        let twice = [
            "train-00000-of-00001-a.parquet",
            "train-00000-of-00001-b.parquet",
        ];
        assert_eq!(chosen(&twice, None), several(&twice));
        let both = [
            "train-00000-of-00001.parquet",
            "train-00000-of-00002.parquet",
            "train-00001-of-00002.parquet",
        ];
        assert_eq!(chosen(&both, None), several(&both));
        // Files without a split in their names are not one split.
        assert_eq!(
            chosen(&["a.json", "b.json"], None),
            several(&["a.json", "b.json"])
        );
        assert_eq!(
            chosen(&["README.md", "dataset_infos.json", ".cache/x.json"], None),
            Err(Unclear::NoRows)
        );
    }
}
