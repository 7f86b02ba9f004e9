#!/usr/bin/env python3
"""Writes the benchmarks of experiments/embedded-table-1.toml: questions in MMLU's layout and preference rows, about the demo's village.

    python benchmarks.py OUT_DIR [--seed 11]

OUT_DIR gets questions/{dev,test}/SUBJECT_{dev,test}.csv and pairs.jsonl. The world is that of generate.py. No question of pairs.jsonl is asked in the
demo's rows. The same seed gives the same files.
"""
import argparse, csv, json, random
from pathlib import Path

import generate

ROWS = Path(__file__).resolve().parents[2] / "crates" / "upright" / "demo"
# MMLU's name for a kind of question. Every kind has five rows of dev, which are the shots, and forty of test.
SUBJECTS = {
    "sociology": lambda world: [world.facts[p][0] for p in generate.NAMES] + world.whos,
    "high_school_biology": lambda world: [world.facts[p][1] for p in generate.NAMES] + [world.facts[p][2] for p in generate.NAMES],
    "high_school_geography": lambda world: [world.facts[p][4] for p in generate.NAMES] + [world.facts[p][6] for p in generate.NAMES],
    "elementary_mathematics": lambda world: world.skills["plus"] + world.skills["minus"],
}
DEV, TEST, PAIRS = 5, 40, 60


def question(item, rng):
    """Question, four choices, letter. The wrong choices are answers in the same words; a kind with fewer of them asks none."""
    ask = rng.choice([ask for ask in item.asks if "\n" not in ask])
    form = rng.randrange(len(item.plain))
    wrong = list(dict.fromkeys(other.plain[form] for other in item.wrong))
    choices = [item.plain[form], *rng.sample(wrong, 3)]
    rng.shuffle(choices)
    return [ask, *choices, "ABCD"[choices.index(item.plain[form])]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    world, rng = generate.World(7), random.Random(args.seed)
    for subject, items in SUBJECTS.items():
        # A choice of four needs three wrong answers.
        enough = [item for item in items(world) if len({other.plain[0] for other in item.wrong}) >= 3]
        rows = [question(item, rng) for item in rng.sample(enough, min(len(enough), DEV + TEST))]
        for split, part in (("dev", rows[:DEV]), ("test", rows[DEV:])):
            folder = args.out / "questions" / split
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / f"{subject}_{split}.csv", "w", newline="") as file: csv.writer(file, lineterminator="\n").writerows(part)
    asked = set()
    for line in (ROWS / "instructions.jsonl").read_text().splitlines(): asked.add(json.loads(line)["instruction"])
    for line in (ROWS / "preferences.jsonl").read_text().splitlines(): asked.add(json.loads(line)["prompt"].split("User: ")[-1].removesuffix("\nAssistant:"))
    # Greetings stand before some questions.
    asked |= {text.removeprefix(greeting + " ") for text in asked for greeting in generate.GREET}
    rows, _ = generate.preference_rows(world, rng, PAIRS, asked)
    (args.out / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__": main()
