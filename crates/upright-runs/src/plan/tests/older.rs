//! Plans that the build of 2026-11-30 wrote, before methods and losses declared their settings.

use std::fs;
use std::path::Path;

use crate::plan_record::PlanRecord;

/// The text of a plan names cached references, found optima and the runs of studies. So its keys and their order stay.
#[test]
fn plans_of_older_builds_are_written_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/tests/plans");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let record = PlanRecord::read_file(&path).unwrap();
        assert_eq!(record.to_toml().unwrap(), text, "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 8);
}

/// The hashes that the build of 2026-11-30 gave to these plans.
#[test]
fn plans_of_older_builds_have_their_hashes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/tests/plans");
    for (name, hash) in HASHES {
        let record = PlanRecord::read_file(&folder.join(name)).unwrap();
        assert_eq!(record.hash().unwrap(), hash, "{name}");
    }
}

const HASHES: [(&str, &str); 8] = [
    ("balanced.toml", "84d834686e96e8a3f168605247faf11c"),
    ("compromise.toml", "7c446698a2228bc9b0a272927e1c274b"),
    ("half.toml", "d846b6218a27fed7aa70a7be5d0ef1bd"),
    ("maxright.toml", "1285858c7ed75a4d313cffb4d2bfdf50"),
    ("ref.toml", "fdadec2c57e3b718961a77fa2b3ff064"),
    ("rpo.toml", "bc0b5ebfc70d1998732bb36ed206f3ab"),
    ("seq.toml", "ef6d0136f66eac8a3981dd08cccb1ba5"),
    ("simpo.toml", "4680e008fc413a1316780c97c2e2e0b9"),
];
