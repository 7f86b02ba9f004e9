#!/usr/bin/env python3
"""Does lm_eval get the numbers of `upright eval mmlu` and the texts of `upright generate` from `upright serve`?

    python check_lm_eval.py --upright PATH --model DIR --mmlu DIR [--subjects NAME,NAME] [--shots 0 1 5] [--limit N]
                            [--batch 1 16] [--concurrent 1 4] [--max-length N] [--hf PYTHON] [--cli]

Starts the server and points stock lm_eval (its `local-completions`, with the server's tokenizer routes and no local tokenizer) at it, for
every number of shots, batch size and number of concurrent requests. Counts of right answers must be equal, subject by subject, and
generated texts must be equal, character by character. If the model has a chat template, lm_eval's `local-chat-completions` generates too.
MMLU is a folder with dev/NAME_dev.csv and test/NAME_test.csv.

--hf names a Python with lm_eval[hf] (requirements-hf.txt). Its `hf` backend then computes the same in float32 by PyTorch, and upright uses
its portable tier. Questions with another answer are listed; they fail the check unless the best two choices are within 1e-4 nats.

--cli runs the command `lm_eval run`, which first indexes 14,000 task files: about 15 s of processor time per run. Without it the same runs
share one process, through lm_eval's Python interface.

Run it by a Python with requirements-clients.txt. The exit code is 1 on a difference.
"""
import argparse, json, os, subprocess, sys, tempfile
from importlib.util import find_spec
from pathlib import Path
import mmlu_for_lm_eval
from serving import Server, greedy, upright_lines

GENERATE = "upright_generate"
PROMPTS = ["Where does Ada live?", "Ada has", "The cat", "Question: What is the capital of France?\nAnswer:", "Once upon a time", "def add(a, b):\n    return",
           "Größe, naïve, 東京, 🙂:", "1, 2, 3, 4,", "Quinn keeps a parrot. Elsa keeps"]
STOPS = [".", "\n\n"]
TOKENS = 24
NEAR = 1e-4

# Runs in a Python with lm_eval. Reads a job from a file and writes, per run and task, what lm_eval logged of every question.
RUNNER = """
import json, sys
from pathlib import Path
import lm_eval, lm_eval.tasks
job = json.loads(Path(sys.argv[1]).read_text())
mmlu = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=[str(mmlu), *job["include"]])
answers = {}
for run in job["runs"]:
    print("RUN", run["name"], file=sys.stderr, flush=True)
    result = lm_eval.simple_evaluate(model=run["model"], model_args=run["model_args"], tasks=run["tasks"], num_fewshot=run["shots"], limit=run["limit"],
                                     batch_size=run["batch"], device="cpu", log_samples=True, bootstrap_iters=0, task_manager=manager,
                                     apply_chat_template=run["chat"])
    answers[run["name"]] = result["samples"]
Path(sys.argv[2]).write_text(json.dumps(answers, default=str))
"""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--upright", required=True, type=Path)
    p.add_argument("--model", required=True, type=Path)
    p.add_argument("--mmlu", required=True, type=Path)
    p.add_argument("--subjects", help="names with commas between them [default: all]")
    p.add_argument("--shots", nargs="+", type=int, default=[0, 1, 5])
    p.add_argument("--limit", type=int, help="only the first N questions of a subject")
    p.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    p.add_argument("--concurrent", nargs="+", type=int, default=[1, 4])
    p.add_argument("--max-length", type=int, help="lm_eval's max_length [default: the context of the model]")
    p.add_argument("--hf", metavar="PYTHON", help="a Python with lm_eval[hf]")
    p.add_argument("--cli", action="store_true", help="run the command lm_eval instead of its Python interface")
    args = p.parse_args()
    upright, model, mmlu = args.upright.resolve(), args.model.resolve(), args.mmlu.resolve()
    if find_spec("lm_eval") is None: sys.exit(f"{sys.executable} has no lm_eval: install requirements-clients.txt")
    if args.hf: os.environ.setdefault("UPRIGHT_CPU", "portable")
    subjects = args.subjects.split(",") if args.subjects else mmlu_for_lm_eval.subjects_of(mmlu)
    tasks = [f"mmlu_{subject}" for subject in subjects]

    with tempfile.TemporaryDirectory(prefix="check-lm-eval-") as top:
        work = Path(top)
        mmlu_for_lm_eval.convert(mmlu, work, subjects)
        expected = shortened(greedy(upright, model, PROMPTS, TOKENS))
        generation_task(work, expected)
        with Server(upright, model) as server:
            refuse_bos(server)
            max_length = args.max_length or server.max_length
            has_chat = bool(json.loads(server.get("/tokenizer_info")[1])["chat_template"])
            runs = []
            for shots in args.shots:
                for batch in args.batch:
                    for concurrent in args.concurrent:
                        model_args = {"model": server.model, "base_url": f"{server.url}/v1/completions", "num_concurrent": concurrent, "max_length": max_length}
                        # Generation has no shots, so the first number of shots covers it.
                        extra = [GENERATE] if shots == args.shots[0] else []
                        runs.append(run_of(f"{shots} shots, batch {batch}, {concurrent} concurrent", "local-completions", model_args, tasks + extra, shots, args.limit, batch))
            if has_chat:
                model_args = {"model": server.model, "base_url": f"{server.url}/v1/chat/completions", "num_concurrent": args.concurrent[-1], "max_length": max_length}
                runs.append(run_of("chat", "local-chat-completions", model_args, [GENERATE], 0, None, 1, chat=True))
            served, problems = lm_eval(work, sys.executable, runs, args.cli)
            long = too_long(server, served, max_length)
        torch = {}
        if args.hf:
            hf_runs = [run_of(f"{shots} shots, hf", "hf", {"pretrained": str(model), "dtype": "float32", "max_length": max_length}, tasks, shots, args.limit, 1) for shots in args.shots]
            torch, _ = lm_eval(work, args.hf, hf_runs, args.cli)

        if has_chat: chat_expected = shortened(greedy(upright, model, PROMPTS, TOKENS, template="chat"))
        ours = {shots: eval_mmlu(upright, model, mmlu, subjects, shots, args.limit) for shots in args.shots}

    for shots in args.shots:
        names = [name for name in served if name.startswith(f"{shots} shots,")]
        problems += table(shots, tasks, ours[shots], {name: served[name] for name in names}, torch.get(f"{shots} shots, hf"), long)
    for name, samples in served.items(): problems += generated(name, samples.get(GENERATE), chat_expected if name == "chat" else expected[:args.limit])
    for problem in problems: print(problem)
    print("FAIL" if problems else "OK")
    sys.exit(bool(problems))


def run_of(name, model, model_args, tasks, shots, limit, batch, chat=False):
    return {"name": name, "model": model, "model_args": model_args, "tasks": tasks, "shots": shots, "limit": limit, "batch": batch, "chat": chat}


def shortened(texts):
    """The texts as they are before the first stop text."""
    found = []
    for text in texts:
        ends = [text.find(stop) for stop in STOPS if stop in text]
        found.append(text[:min(ends)] if ends else text)
    return found


def generation_task(work, expected):
    """Writes a task of lm_eval that generates."""
    (work / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt, "target": target}) + "\n" for prompt, target in zip(PROMPTS, expected)))
    (work / "tasks").mkdir()
    # JSON is YAML.
    (work / "tasks" / f"{GENERATE}.yaml").write_text(json.dumps({
        "task": GENERATE, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(work / "prompts.jsonl")}}, "test_split": "test",
        "output_type": "generate_until", "doc_to_text": "{{prompt}}", "doc_to_target": "{{target}}", "num_fewshot": 0,
        "generation_kwargs": {"until": STOPS, "max_gen_toks": TOKENS, "temperature": 0.0, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]}, indent=1))


def refuse_bos(server):
    """lm_eval's remote tokenizer never adds a BOS token. `upright eval mmlu` does where the tokenizer does."""
    plain = server.post("/tokenize", {"prompt": "Hello", "add_special_tokens": False})["tokens"]
    marked = server.post("/tokenize", {"prompt": "Hello", "add_special_tokens": True})["tokens"]
    if plain != marked: sys.exit(f"The tokenizer adds special tokens ({marked} instead of {plain}), which lm_eval's remote tokenizer leaves out: counts cannot be compared.")


def lm_eval(work, python, runs, cli):
    """Runs lm_eval offline. Returns its samples by run and task, and a list of problems that it met and retried."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "OPENAI_"))}
    env |= {"HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    samples, logs = {}, ""
    if cli:
        for number, run in enumerate(runs):
            out = work / f"out-{number}-{run['model']}"
            words = [python, "-m", "lm_eval", "run", "--model", run["model"], "--model_args", ",".join(f"{name}={value}" for name, value in run["model_args"].items()),
                     "--tasks", ",".join(run["tasks"]), "--num_fewshot", run["shots"], "--batch_size", run["batch"], "--device", "cpu", "--include_path", work / "tasks",
                     "--output_path", out, "--log_samples", *(["--limit", run["limit"]] if run["limit"] else []), *(["--apply_chat_template"] if run["chat"] else [])]
            logs += f"RUN {run['name']}\n" + execute(words, work, env)
            samples[run["name"]] = {}
            for task in run["tasks"]:
                file, = out.rglob(f"samples_{task}_2*.jsonl")
                samples[run["name"]][task] = [json.loads(line) for line in file.read_text().splitlines()]
    else:
        (work / "job.json").write_text(json.dumps({"runs": runs, "include": [str(work / "tasks")]}))
        logs = execute([python, "-c", RUNNER, work / "job.json", work / "answers.json"], work, env)
        samples = json.loads((work / "answers.json").read_text())
    problems, name = [], ""
    for line in logs.splitlines():
        if line.startswith("RUN "): name = line[4:]
        elif any(word in line for word in ("API request failed", "retrying", "Retry attempt", "null content")): problems.append(f"{name}: lm_eval says: {line[-600:]}")
    return samples, problems


def execute(words, work, env):
    """Runs a command and returns what it logged."""
    done = subprocess.run(list(map(str, words)), cwd=work, env=env, capture_output=True, text=True)
    if done.returncode: sys.exit(f"FAIL: {' '.join(map(str, words))[:1500]}\nexit code {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-6000:]}")
    return done.stderr


def eval_mmlu(upright, model, mmlu, subjects, shots, limit):
    """Tasks by name: right answers, questions and near ties, by `upright eval mmlu`."""
    words = ["eval", "mmlu", "--model", model, "--data", mmlu, "--shots", shots, "--subjects", ",".join(subjects), "--json"]
    result = upright_lines(upright, *words, *(["--limit", limit] if limit else []))
    return result[-1]["tasks"]


def too_long(server, served, max_length):
    """Tasks with a prompt that lm_eval's API backend shortens. It keeps max_length - 1 tokens, and everybody else max_length + 1."""
    found = set()
    for name, samples in served.items():
        for task, rows in samples.items():
            if task == GENERATE: continue
            longest = max((row["arguments"] for row in rows), key=lambda arguments: len(context(arguments)))
            # Four characters per token is rare: a text below that bound is not worth a request.
            if len(context(longest)) < max_length: continue
            for row in rows:
                if len(server.post("/tokenize", {"prompt": context(row["arguments"]), "add_special_tokens": False})["tokens"]) + 2 > max_length:
                    found.add((name, task))
                    break
    return found


def context(arguments):
    """The prompt of a question. lm_eval's log names the arguments, its Python interface lists them."""
    first = arguments["gen_args_0"]["arg_0"] if isinstance(arguments, dict) else arguments[0][0]
    return first


def scores(row): return [float(choice[0]) for choice in row["filtered_resps"]]


def best(values): return values.index(max(values))


def gap(values):
    first, second = sorted(values, reverse=True)[:2]
    return first - second


def right(rows): return sum(row["acc"] > 0.5 for row in rows)


def table(shots, tasks, ours, served, torch, long):
    """Prints counts of right answers. Returns the differences."""
    problems = []
    columns = [name.split(", ", 1)[1] for name in served] + (["hf"] if torch else [])
    width = max([len(task) for task in tasks])
    print(f"\n{shots} shots: right answers")
    print(f"{'':{width}}  questions  near ties  eval mmlu  " + "  ".join(columns))
    for task in tasks:
        mine, cells = ours.get(task), []
        if mine is None:
            problems.append(f"{shots} shots: upright eval mmlu has no {task}, only {', '.join(ours)}")
            continue
        for name, samples in served.items():
            count, total, note = right(samples[task]), len(samples[task]), ""
            if (name, task) in long: note = " (shortened)"
            elif (count, total) != (mine["correct"], mine["total"]): problems.append(f"{name}: {task}: {count} of {total} right, upright eval mmlu says {mine['correct']} of {mine['total']}")
            cells.append(f"{count}{note}")
        if torch:
            count, ties = right(torch[task]), sum(gap(scores(row)) < NEAR for row in torch[task])
            cells.append(str(count))
            if abs(count - mine["correct"]) > ties: problems.append(f"{shots} shots: {task}: {mine['correct']} of {mine['total']} right by upright eval mmlu, {count} by PyTorch, {ties} near ties")
        print(f"{task:{width}}  {mine['total']:9}  {mine.get('near_ties', 0):9}  {mine['correct']:9}  " + "  ".join(f"{cell:>{len(column)}}" for cell, column in zip(cells, columns)))
    names = list(served)
    for name in names[1:]:
        for task in tasks: problems += same_scores(names[0], served[names[0]][task], name, served[name][task])
    if torch: problems += against_torch(shots, tasks, names[0], served[names[0]], torch, long)
    return problems


def same_scores(first, one, name, other):
    """The server's log-probabilities have the same bits in every batch."""
    for a, b in zip(sorted(one, key=lambda row: row["doc_id"]), sorted(other, key=lambda row: row["doc_id"]), strict=True):
        if a["filtered_resps"] != b["filtered_resps"]: return [f"question {a['doc_id']}, \"{a['doc']['question'][:60]}\": {scores(a)} in {first}, {scores(b)} in {name}"]
    return []


def against_torch(shots, tasks, name, served, torch, long):
    """Prints how far the log-probabilities are from PyTorch's, and near ties. Returns the questions with another answer."""
    problems, worst, ties = [], 0.0, 0
    for task in tasks:
        if (name, task) in long: continue
        theirs = {row["doc_id"]: row for row in torch[task]}
        for row in served[task]:
            a, b = scores(row), scores(theirs[row["doc_id"]])
            worst = max(worst, max(abs(x - y) for x, y in zip(a, b)))
            near = min(gap(a), gap(b)) < NEAR
            ties += near
            if best(a) != best(b) and not near: problems.append(f"{shots} shots: {task}: question {row['doc_id']}: {a} by upright, {b} by PyTorch")
            elif near: print(f"near tie: {task}: question {row['doc_id']}: choice {'ABCD'[best(a)]}, gap {gap(a):.1e} by upright; {'ABCD'[best(b)]}, gap {gap(b):.1e} by PyTorch")
    print(f"largest difference to PyTorch {worst:.1e} nats; {ties} near ties")
    return problems


def generated(name, rows, expected):
    """Texts that differ from `upright generate`'s."""
    if rows is None: return []
    texts = {row["doc_id"]: row["filtered_resps"][0] for row in rows}
    problems = [f"{name}: {PROMPTS[i]!r} is answered {texts.get(i)!r}, upright generate says {want!r}" for i, want in enumerate(expected) if texts.get(i) != want]
    print(f"{name}: {len(expected) - len(problems)} of {len(expected)} generated texts are those of upright generate")
    return problems


if __name__ == "__main__": main()
