#!/usr/bin/env python3
"""Makes MMLU's CSV files readable for lm_eval's own tasks, without network.

    python mmlu_for_lm_eval.py MMLU OUT [--subjects NAME,NAME]
    cd OUT && HF_HUB_OFFLINE=1 lm_eval run --tasks mmlu_anatomy ...

MMLU is a folder with dev/NAME_dev.csv and test/NAME_test.csv, as in https://github.com/hendrycks/test. lm_eval loads its data set
`cais/mmlu` from the folder OUT/cais/mmlu if it is started in OUT. Needs no package.
"""
import argparse, csv, json, sys
from pathlib import Path

SPLITS = ("dev", "test")


def subjects_of(mmlu):
    """Names of all subjects in the folder, sorted."""
    return sorted(file.name.removesuffix("_test.csv") for file in (Path(mmlu) / "test").glob("*_test.csv"))


def rows(mmlu, subject, split):
    """The rows of a CSV file as `cais/mmlu` has them: the answer is the index of its letter."""
    file = Path(mmlu) / split / f"{subject}_{split}.csv"
    with open(file, newline="", encoding="utf-8") as lines:
        for number, fields in enumerate(csv.reader(lines, strict=True), 1):
            if len(fields) != 6 or fields[5] not in ("A", "B", "C", "D"): raise SystemExit(f"{file}: row {number} is not a question, four choices and a letter: {fields}")
            yield {"question": fields[0], "subject": subject, "choices": fields[1:5], "answer": "ABCD".index(fields[5])}


def convert(mmlu, out, subjects):
    """Writes OUT/cais/mmlu. Returns the number of test rows of each subject."""
    folder, counts = Path(out) / "cais" / "mmlu", {}
    card = ["---", "configs:"]
    for subject in subjects:
        (folder / subject).mkdir(parents=True, exist_ok=True)
        card += [f"- config_name: {subject}", "  data_files:"]
        for split in SPLITS:
            lines = [json.dumps(row) + "\n" for row in rows(mmlu, subject, split)]
            (folder / subject / f"{split}.jsonl").write_text("".join(lines))
            card += [f"  - split: {split}", f"    path: {subject}/{split}.jsonl"]
        counts[subject] = len(lines)
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return counts


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mmlu")
    p.add_argument("out")
    p.add_argument("--subjects", help="names with commas between them [default: all]")
    args = p.parse_args()
    counts = convert(args.mmlu, args.out, args.subjects.split(",") if args.subjects else subjects_of(args.mmlu))
    if not counts: sys.exit(f"{args.mmlu} has no test/NAME_test.csv")
    print(f"{args.out}/cais/mmlu: {sum(counts.values())} questions of {len(counts)} subjects")
