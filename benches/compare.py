#!/usr/bin/env python3
"""This program beside PyTorch on the same work: one model shape, the same rows, LoRA on the same linears, run in turn.

    python -m venv peers && peers/bin/pip install -r benches/requirements.txt
    cargo build --release
    peers/bin/python benches/compare.py --binary target/release/upright --tokenizer tokenizer.json \\
        --sft instructions.json --dpo preferences.jsonl --shapes p160,p1b --runs 3 --out results

Every run is a process of its own, followed by the peer it is compared with (A B A B ...). A ratio divides the unique tokens/s
of two neighboring runs. The table has the median over all pairs. Unique tokens count the prompt of a preference pair once and
no padding, whatever a program does with either. Weights are random: speed does not depend on their values.
With `--device cuda` both sides run on the GPU, and memory is that of the GPU's tensors.
Peers are named by `--modes`: transformers + peft is plain, tuned or compiled (torch.compile); TRL's trainers are trl, at their
defaults, or trl-tuned. `peer.py --help` says what each does.
Writes results/comparison.md and results/comparison.json after every pair, and prints the table.
"""

import argparse
import gzip
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version

from tokenizers import Tokenizer


def neox(hidden, layers, heads, intermediate):
    return dict(
        model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"], hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=intermediate, vocab_size=50304, hidden_act="gelu", rotary_pct=0.25,
        rotary_emb_base=10000, max_position_embeddings=2048, layer_norm_eps=1e-5, use_parallel_residual=True,
        tie_word_embeddings=False,
    )  # fmt: skip


def llama(hidden, layers, heads, kv_heads, intermediate, vocabulary, theta, head=64, tied=True):
    return dict(
        model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head, intermediate_size=intermediate,
        vocab_size=vocabulary, hidden_act="silu", rope_theta=theta, max_position_embeddings=8192, rms_norm_eps=1e-5,
        tie_word_embeddings=tied, attention_bias=False, mlp_bias=False,
    )  # fmt: skip


SHAPES = {
    "p70": neox(512, 6, 8, 2048),  # Pythia-70M
    "p160": neox(768, 12, 12, 3072),
    "p410": neox(1024, 24, 16, 4096),
    "p1b": neox(2048, 16, 8, 8192),
    "smollm2-135m": llama(576, 30, 9, 3, 1536, 49152, 1e5),
    "llama-1b": llama(2048, 16, 32, 8, 8192, 128256, 5e5),  # Llama-3.2-1B
    "llama-3-8b": llama(4096, 32, 32, 8, 14336, 128256, 5e5, head=128, tied=False),
}
TARGETS = {"gpt_neox": "query_key_value", "llama": "q_proj,v_proj"}
MODES = ["plain", "tuned", "compiled", "trl", "trl-tuned"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--binary", required=True, help="this program, a release build")
parser.add_argument("--tokenizer", required=True, help="a tokenizer.json whose ids fit every shape")
parser.add_argument("--eos", default="<|endoftext|>", help="its end-of-sequence token [%(default)s]")
parser.add_argument("--sft", required=True, help="instruction, input, output; or prompt, completion: .json or .jsonl, may be gzipped")
parser.add_argument("--dpo", required=True, help="prompt, chosen, rejected; or chosen, rejected as in HH-RLHF")
parser.add_argument("--shapes", default="p160", help=f"of {', '.join(SHAPES)} [%(default)s]")
parser.add_argument("--modes", default="plain,tuned,trl", help=f"peers, of {', '.join(MODES)} [%(default)s]")
parser.add_argument("--runs", type=int, default=3, help="pairs of runs for each shape and mode [%(default)s]")
parser.add_argument("--steps", type=int, default=5, help="steps of a run that count [%(default)s]")
parser.add_argument("--sft-batch", type=int, default=12)
parser.add_argument("--dpo-batch", type=int, default=4)
parser.add_argument("--lora-rank", type=int, default=32)
parser.add_argument("--max-length", type=int, default=2048, help="longer rows are left out [%(default)s]")
parser.add_argument("--token-budget", type=int, default=2048, help="maximum tokens in a pack of this program [%(default)s]")
parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N [%(default)s]")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"], help="of the peers [%(default)s]")
parser.add_argument("--seed", type=int, default=0, help="which rows [%(default)s]")
parser.add_argument("--out", required=True, help="folder of the table")
arguments = parser.parse_args()


def chosen_from(text, known, flag):
    names = text.split(",")
    for name in names:
        if name not in known:
            parser.error(f"{flag}: there is no {name!r}; there are {', '.join(known)}")
    return names


def read(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        text = file.read()
    return json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line]


def instruction(row):
    if "completion" in row:
        return {"prompt": row["prompt"], "completion": row["completion"]}
    asked = row["instruction"] + ("\n" + row["input"] if row.get("input") else "")
    return {"prompt": f"User: {asked}\nAssistant:", "completion": " " + row["output"]}


def preference(row):
    prompt, chosen, rejected = row.get("prompt", ""), row["chosen"], row["rejected"]
    if not prompt:
        cut = chosen.rfind("\n\nAssistant:") + len("\n\nAssistant:")
        if rejected[:cut] != chosen[:cut]:
            return None
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def drawn(path, form, count, tokenizer):
    """Rows for all steps, each used once; none of them is cut or dropped by either side."""
    rows = [row for row in map(form, read(path)) if row]

    def length(row):
        responses = [text for key, text in row.items() if key != "prompt"]
        lengths = [len(tokenizer.encode(text).ids) for text in [row["prompt"], *responses]]
        return lengths[0] + max(lengths[1:]) + 2

    def fits(row):
        texts = list(row.values())
        return all(text.strip() for text in texts) and len(set(texts)) == len(texts) and length(row) <= arguments.max_length

    random.Random(arguments.seed).shuffle(rows)
    found = []
    for row in rows:
        if len(found) < count and fits(row):
            found.append(row)
    if len(found) < count:
        parser.error(f"{path}: {len(found)} usable rows, {count} are needed; lower --steps")
    return found


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def measured(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}\nexit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def machine():
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{name}, {arguments.threads} threads, {memory:.0f} GB"


def compare(shape, tokenizer, folder, pairs, each):
    """Adds the runs of one shape to the pairs of every mode; calls `each` after every pair."""
    config = dict(SHAPES[shape], bos_token_id=tokenizer.token_to_id(arguments.eos), eos_token_id=tokenizer.token_to_id(arguments.eos))
    model = os.path.join(folder, shape)
    os.mkdir(model)
    with open(os.path.join(model, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    shutil.copy(arguments.tokenizer, os.path.join(model, "tokenizer.json"))
    common = ["--model", model]
    for flag in ["steps", "sft-batch", "dpo-batch", "lora-rank", "max-length", "threads", "device"]:
        common += [f"--{flag}", str(getattr(arguments, flag.replace("-", "_")))]
    for flag in ["sft", "dpo"]:
        common += [f"--{flag}", os.path.join(folder, f"{flag}.jsonl")]
    common += ["--lora-targets", TARGETS[config["model_type"]]]
    ours = [arguments.binary, "bench", *common, "--random-weights", "--sft-template", "raw", "--dpo-template", "raw", "--json"]
    ours += ["--token-budget", str(arguments.token_budget)]
    peer = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer.py"), *common, "--dtype", arguments.dtype]
    for run in range(arguments.runs):
        for mode in modes:
            print(f"{shape}, {mode}, run {run + 1} of {arguments.runs}", file=sys.stderr)
            pairs[mode].append({"upright": measured(ours), "peer": measured([*peer, "--mode", mode])})
            each()


def line(shape, mode, objective, pairs):
    def middle(side, key):
        return statistics.median(pair[side][objective][key] for pair in pairs)

    rate = "unique_tokens_per_second"
    ratios = [pair["upright"][objective][rate] / pair["peer"][objective][rate] for pair in pairs]
    peaks = [max(pair[side]["peak_gb"] for pair in pairs) for side in ("upright", "peer")]
    return {
        "shape": shape, "peer": mode, "objective": objective, "pairs": len(pairs),
        "upright_tokens_per_second": middle("upright", rate), "peer_tokens_per_second": middle("peer", rate),
        "upright_seconds_per_step": middle("upright", "seconds_per_step"),
        "peer_seconds_per_step": middle("peer", "seconds_per_step"),
        "ratio": statistics.median(ratios), "ratio_lowest": min(ratios), "ratio_highest": max(ratios),
        "upright_peak_gb": peaks[0], "peer_peak_gb": peaks[1],
    }  # fmt: skip


def table(lines, heading):
    head = ["shape", "peer", "steps", "s/step", "peer s/step", "tokens/s", "peer tokens/s", "times as fast", "peak GB", "peer peak GB"]
    rows = [head, ["---"] * 3 + ["---:"] * 7]
    for x in lines:
        spread = f"{x['ratio']:.2f} ({x['ratio_lowest']:.2f} to {x['ratio_highest']:.2f})"
        cells = [x["shape"], x["peer"], x["objective"], f"{x['upright_seconds_per_step']:.2f}", f"{x['peer_seconds_per_step']:.2f}"]
        cells += [f"{x['upright_tokens_per_second']:.0f}", f"{x['peer_tokens_per_second']:.0f}", spread]
        rows.append(cells + [f"{x['upright_peak_gb']:.2f}", f"{x['peer_peak_gb']:.2f}"])
    return heading + "\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def text(results):
    """The table of the pairs that there are, and its lines."""
    measured_yet = [(shape, mode) for shape in shapes for mode in modes if results[shape][mode]]
    lines = [line(shape, mode, which, results[shape][mode]) for shape, mode in measured_yet for which in ("sft", "dpo")]
    tier = next(results[shape][mode][0]["upright"]["tier"] for shape, mode in measured_yet)
    heading = (
        f"{machine()}, device {arguments.device}; {tier} products against {arguments.dtype} in PyTorch "
        f"({', '.join(f'{n} {v}' for n, v in versions.items())}); "
        f"{arguments.sft_batch} SFT rows and {arguments.dpo_batch} pairs per step, LoRA rank {arguments.lora_rank}; "
        f"medians of {min(x['pairs'] for x in lines)} runs of {arguments.steps} steps"
    )
    return table(lines, heading), lines


def write(results):
    """What is measured yet: a series takes long, and may be stopped."""
    page, lines = text(results)
    with open(os.path.join(arguments.out, "comparison.md"), "w", encoding="utf-8") as file:
        file.write(page)
    whole = {"machine": machine(), "versions": versions, "settings": vars(arguments), "table": lines, "runs": results}
    with open(os.path.join(arguments.out, "comparison.json"), "w", encoding="utf-8") as file:
        json.dump(whole, file, indent=1)


shapes = chosen_from(arguments.shapes, SHAPES, "--shapes")
modes = chosen_from(arguments.modes, MODES, "--modes")
if arguments.runs < 1 or arguments.steps < 1:
    parser.error("--runs and --steps are at least 1")
tokenizer = Tokenizer.from_file(arguments.tokenizer)
largest = max(tokenizer.get_vocab().values())
if tokenizer.token_to_id(arguments.eos) is None:
    parser.error(f"--eos: the tokenizer has no {arguments.eos!r}")
for shape in shapes:
    if largest >= SHAPES[shape]["vocab_size"]:
        parser.error(f"--tokenizer: has id {largest}, {shape} has {SHAPES[shape]['vocab_size']} embeddings")
os.makedirs(arguments.out, exist_ok=True)
versions = {name: version(name) for name in ("torch", "transformers", "peft", *(["trl"] if {"trl", "trl-tuned"} & set(modes) else []))}

with tempfile.TemporaryDirectory() as folder:
    draws = arguments.steps + 1
    write_rows(os.path.join(folder, "sft.jsonl"), drawn(arguments.sft, instruction, draws * arguments.sft_batch, tokenizer))
    write_rows(os.path.join(folder, "dpo.jsonl"), drawn(arguments.dpo, preference, draws * arguments.dpo_batch, tokenizer))
    results = {shape: {mode: [] for mode in modes} for shape in shapes}
    for shape in shapes:
        compare(shape, tokenizer, folder, results[shape], lambda: write(results))
print(text(results)[0])
