#!/usr/bin/env python3
"""The checks against lm_eval, the openai client, llm and alpaca_eval, in their smallest form.

    python3 ci_clients.py UPRIGHT

Installs requirements-clients.txt once, into ${XDG_CACHE_HOME:-~/.cache}/upright-ci/, without PyTorch. The model is the demo's, the MMLU is
made up here. Needs no network after the installation, and two minutes.
"""
import csv, fcntl, hashlib, json, os, shutil, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "crates" / "upright" / "demo"

# A chat template for the demo's model, which has none.
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"

# Subjects of three groups of MMLU: question, four choices, letter. The first five are the shots.
MMLU = {
    "anatomy": [
        ("How many legs has a heron?", "one", "two", "four", "six", "B"), ("What does a hedgehog wear?", "wool", "scales", "spines", "shells", "C"),
        ("Where is the beak of a parrot?", "on its head", "on its back", "on its foot", "on its tail", "A"), ("What covers a cat?", "bark", "slate", "tiles", "fur", "D"),
        ("How many ears has an otter?", "two", "three", "four", "five", "A"), ("What does a fish breathe with?", "fins", "gills", "scales", "eyes", "B"),
        ("What does a wren fly with?", "legs", "claws", "wings", "beak", "C"), ("How many tails has a badger?", "none", "one", "two", "three", "B"),
        ("What does a mole dig with?", "paws", "ears", "tail", "nose", "A"), ("What does an owl see with?", "wings", "feet", "ears", "eyes", "D"),
        ("How many wings has a vole?", "none", "one", "two", "four", "A")],
    "marketing": [
        ("Who sells bread in the village?", "the baker", "the smith", "the shepherd", "the gardener", "A"), ("What does the smith sell?", "soup", "nails", "wool", "eggs", "B"),
        ("What does the shepherd sell?", "ink", "fish", "wool", "clocks", "C"), ("When is the market?", "at night", "in winter", "never", "on Monday", "D"),
        ("What is on a price tag?", "a number", "a bird", "a song", "a smell", "A"), ("Where does Ada buy onions?", "at the bridge", "at the market", "in the mill", "in the well", "B"),
        ("What makes a buyer come back?", "rain", "a lie", "good bread", "a queue", "C"), ("What does a seller call out?", "his wares", "his age", "the time", "nothing", "A"),
        ("What is a \"discount\", in a shop?", "a bag", "a shelf", "a key", "a lower price", "D"), ("Who pays for a gift?", "the giver", "the taker", "the baker", "the cat", "A"),
        ("What does a stall need?", "a roof,\nor shade", "an engine", "a river", "a choir", "A")],
    "philosophy": [
        ("What is a promise?", "a debt of words", "a coin", "a bridge", "a cat", "A"), ("Which one is a virtue?", "a spoon", "courage", "a Tuesday", "a map", "B"),
        ("What can be true?", "a stone", "a cloud", "a sentence", "a shoe", "C"), ("What asks for reasons?", "a wall", "a fish", "a chair", "a question", "D"),
        ("What is the opposite of all?", "none", "most", "some", "each", "A"), ("If all wrens sing and Pip is a wren, then Pip", "sleeps", "sings", "swims", "reads", "B"),
        ("What is said of a good judge?", "he is tall", "he is rich", "he is fair", "he is late", "C"), ("What follows from nothing?", "nothing", "the moon", "bread", "Ada", "A"),
        ("What is a paradox?", "a pair of boots", "a kind of soup", "a long road", "a sentence against itself", "D"), (" What comes before an effect? ", " a cause", "a verse", "a hat", "a tax", "A"),
        ("Which of these is an argument?", "a list of premises, and a conclusion", "a heap", "a colour", "a door", "A")],
}


def main():
    if len(sys.argv) != 2: sys.exit(__doc__)
    upright, python = Path(sys.argv[1]).resolve(), environment()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ci-clients-") as top:
        work = Path(top)
        model, mmlu = copy_model(work / "village"), write_mmlu(work / "mmlu")
        adapter = train_adapter(upright, model, work)
        check(python, "check_lm_eval.py", "--upright", upright, "--model", model, "--mmlu", mmlu, "--shots", 0, "--max-length", 256, "--batch", 16, 1, "--concurrent", 1, 4)
        check(python, "check_alpaca_eval.py", upright, "--rows", 36)
        check(python, "check_openai.py", "--upright", upright, "--model", model, "--adapter", f"tiny={adapter}")
    print(f"OK: lm_eval, openai, llm and alpaca_eval, {time.monotonic() - began:.0f} s")


def environment():
    """The Python with requirements-clients.txt. It is installed if it is not there."""
    requirements = HERE / "requirements-clients.txt"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "upright-ci"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder, done = cache / f"clients-{key}", cache / f"clients-{key}" / "complete"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            print(f"installing {requirements.name} into {folder}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements], check=True)
            done.touch()
    return folder / "bin" / "python"


def copy_model(folder):
    shutil.copytree(DEMO / "model", folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": TEMPLATE}))
    return folder


def write_mmlu(folder):
    for subject, questions in MMLU.items():
        for split, rows in (("dev", questions[:5]), ("test", questions[5:])):
            (folder / split).mkdir(parents=True, exist_ok=True)
            with open(folder / split / f"{subject}_{split}.csv", "w", newline="") as file: csv.writer(file, lineterminator="\n").writerows(rows)
    return folder


def train_adapter(upright, model, work):
    """A few steps at a high learning rate, so that the adapter answers otherwise than the model."""
    words = [upright, "train", "--model", model, "--sft", DEMO / "instructions.jsonl", "--steps", 8, "--lora-rank", 4, "--learning-rate", "0.01", "--held-out", 0, "--no-report", "--out", work / "run"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode: sys.exit(f"FAIL: {' '.join(map(str, words))}\n{done.stderr[-2000:]}")
    return work / "run" / "adapter"


def check(python, script, *words):
    began = time.monotonic()
    code = subprocess.run([str(python), HERE / script, *map(str, words)]).returncode
    print(f"{script}: exit code {code}, {time.monotonic() - began:.0f} s\n", flush=True)
    if code: sys.exit(f"FAIL: {script} {' '.join(map(str, words))}")


if __name__ == "__main__": main()
