"""Prompts of lm-eval for the invented questions of crates/upright-data/tests/it/mmlu_data/.

    python3 -m venv venv && venv/bin/pip install lm_eval==0.4.13
    venv/bin/python tools/mmlu/prompts.py

Writes goldens.json beside the questions: for every task, number of shots and test row, the SHA-256 of the context, of the
continuations, and of the conversation that a chat template gets. lm-eval's own task objects build them. The stock tasks
load `cais/mmlu`, so the script runs in a temporary folder that holds a dataset of this name.
"""

import csv
import hashlib
import json
import os
import pathlib
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates/upright-data/tests/it/mmlu_data"
SUBJECTS = ["anatomy", "sociology", "world_religions"]


def write_dataset(folder):
    lines = ["---", "configs:"]
    for subject in SUBJECTS:
        lines += [f"- config_name: {subject}", "  data_files:"]
        (folder / subject).mkdir(parents=True)
        for split in ("dev", "test"):
            with open(FOLDER / split / f"{subject}_{split}.csv", newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))
            with open(folder / subject / f"{split}.jsonl", "w", encoding="utf-8") as file:
                for question, *choices, letter in rows:
                    row = {"question": question, "subject": subject, "choices": choices, "answer": "ABCD".index(letter)}
                    file.write(json.dumps(row) + "\n")
            lines += [f"  - split: {split}", f"    path: {subject}/{split}.jsonl"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def sha256(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def conversation(messages, add_generation_prompt):
    """What the Jinja template of the test writes."""
    text = "".join(f"[{message['role']}]{message['content']}" for message in messages)
    return text + ("[assistant]" if add_generation_prompt else "")


def prompts(task, shots):
    found = []
    task.set_config(key="num_fewshot", value=shots)
    for document in task.test_docs():
        context = task.fewshot_context(document, shots)
        requests = task.construct_requests(document, context, metadata=("", 0, 1))
        chat = task.fewshot_context(
            document, shots, apply_chat_template=True, fewshot_as_multiturn=True, chat_template=conversation
        )
        chat_requests = task.construct_requests(
            document, chat, metadata=("", 0, 1), apply_chat_template=True, chat_template=conversation
        )
        found.append({
            "context": sha256(context),
            "continuations": sha256("\0".join(request.args[1] for request in requests)),
            "chat": sha256(chat),
            "chat_continuations": sha256("\0".join(request.args[1] for request in chat_requests)),
        })
    return found


def main():
    import lm_eval
    from lm_eval.tasks import TaskManager

    assert lm_eval.__version__ == "0.4.13", "the version above is pinned"
    names = [f"mmlu_{subject}" for subject in SUBJECTS] + [f"mmlu_{subject}_continuation" for subject in SUBJECTS]
    tasks = TaskManager().load(names)["tasks"]
    goldens = {name: {str(shots): prompts(tasks[name], shots) for shots in (0, 1, 5)} for name in names}
    (FOLDER / "goldens.json").write_text(json.dumps(goldens, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(pathlib.Path(folder) / "cais/mmlu")
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
        os.chdir(folder)
        main()
