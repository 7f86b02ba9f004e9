#!/usr/bin/env python3
"""Is anything silently reused for another base, or read otherwise than transformers reads it?

    python check_identity.py UPRIGHT --model DIR --tokenizer TOKENIZER_JSON

UPRIGHT is the binary. DIR is a Llama-architecture model with a chat template, such as SmolLM2-135M-Instruct. TOKENIZER_JSON
is a byte-level tokenizer without chat tokens, such as Pythia's; a small random model is made for it. Needs numpy,
safetensors and transformers, and no PyTorch. Every check prints a line; the exit code is 1 if one fails.
"""
import os
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
import argparse, json, math, re, shutil, subprocess, sys, tempfile
import numpy as np
from safetensors.numpy import save_file
from transformers import AutoTokenizer

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("upright")
p.add_argument("--model", required=True)
p.add_argument("--tokenizer", required=True)
args = p.parse_args()
upright = os.path.abspath(args.upright)
work = tempfile.mkdtemp(prefix="check-identity-")
os.chdir(os.path.dirname(os.path.abspath(__file__)))
tokenizer_file, given = os.path.abspath(args.tokenizer), os.path.abspath(args.model)
os.chdir(work)
env = dict(os.environ, UPRIGHT_CACHE=os.path.join(work, "cache"))
failed = []


def check(name, holds, detail=""):
    print(f"{'ok  ' if holds else 'FAIL'} {name}" + (f": {detail}" if detail else ""), flush=True)
    if not holds: failed.append(name)


def run(*words, code=0):
    done = subprocess.run([upright, *words], capture_output=True, text=True, env=env)
    if done.returncode != code: sys.exit(f"upright {' '.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def write(path, value): open(path, "w").write(value if isinstance(value, str) else json.dumps(value))


def rows(path, values): write(path, "".join(json.dumps(value) + "\n" for value in values))


def random_model(folder):
    """Two layers of a Llama, in f32, with the given tokenizer."""
    os.makedirs(folder)
    vocab, hidden, wide = 50304, 64, 128
    rng = np.random.default_rng(0)
    normal = lambda *shape: (0.05 * rng.standard_normal(shape)).astype(np.float32)
    tensors = {"model.embed_tokens.weight": normal(vocab, hidden), "lm_head.weight": normal(vocab, hidden), "model.norm.weight": np.ones(hidden, np.float32)}
    for layer in range(2):
        block = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"): tensors[f"{block}{name}.weight"] = np.ones(hidden, np.float32)
        for name in "qkvo": tensors[f"{block}self_attn.{name}_proj.weight"] = normal(hidden, hidden)
        for name, shape in (("gate", (wide, hidden)), ("up", (wide, hidden)), ("down", (hidden, wide))): tensors[f"{block}mlp.{name}_proj.weight"] = normal(*shape)
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    write(f"{folder}/config.json", {"model_type": "llama", "hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
        "intermediate_size": wide, "vocab_size": vocab, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "eos_token_id": 0, "bos_token_id": 0})
    shutil.copy(tokenizer_file, f"{folder}/tokenizer.json")
    write(f"{folder}/tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})


def redraw(folder, tokens):
    """Changes the rows of some tokens in the embedding, in place."""
    path = f"{folder}/model.safetensors"
    with open(path, "r+b") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(size))
        tensor = header["model.embed_tokens.weight"]
        start = 8 + size + tensor["data_offsets"][0]
        row = (tensor["data_offsets"][1] - tensor["data_offsets"][0]) // tensor["shape"][0]
        for token in tokens:
            f.seek(start + token * row); values = f.read(row)
            f.seek(start + token * row); f.write(values[row // 2:] + values[:row // 2])


questions = [f"What is {n} plus {n}?" for n in range(24)]
rows("sft.jsonl", [{"instruction": q, "input": "", "output": f"It is {2 * n}."} for n, q in enumerate(questions)])
rows("dpo.jsonl", [{"prompt": q, "chosen": f" It is {2 * n}.", "rejected": " No idea."} for n, q in enumerate(questions)])
random_model("random")
models = {"random": "random", "given": "given"}
shutil.copytree(given, "given")

for name, model in models.items():
    # 1. A changed base.
    def train(out, *words): return run("train", "--model", model, "--dpo", "dpo.jsonl", "--dpo-template", "raw", "--held-out", "0", "--eval-rows", "8", "--dpo-batch", "2",
                                       "--lora-rank", "2", "--out", f"{name}-{out}", "--no-report", *words).stderr
    def first_loss(out): return json.loads(open(f"{name}-{out}/evals.jsonl").readline())["fit/loss/dpo"]
    train("before", "--reference", "none", "--steps", "1")
    again = train("again", "--reference", "none", "--steps", "1")
    check(f"{name}: an unchanged base finds its reference values", " 0 responses scored" in again)
    train("trained", "--reference", "train:chosen", "--steps", "1")
    check(f"{name}: and its trained reference", "trained before" in train("found", "--reference", "train:chosen", "--steps", "1"))
    train("stopped", "--reference", "none", "--steps", "2", "--checkpoint-every", "1")
    shutil.rmtree(f"{name}-stopped/adapter"); shutil.rmtree(f"{name}-stopped/checkpoints/step-2")
    ids = AutoTokenizer.from_pretrained(model)("What is the plus, and why? It.", add_special_tokens=False)["input_ids"]
    redraw(model, sorted(set(ids))[:6])
    train("after", "--reference", "none", "--steps", "1")
    check(f"{name}: step-0 DPO loss of the changed base is ln 2", abs(first_loss("after") - math.log(2)) < 1e-12, str(first_loss("after")))
    check(f"{name}: a reference is trained anew", "training it in" in train("retrained", "--reference", "train:chosen", "--steps", "1"))
    resumed = run("train", "--resume", "--out", f"{name}-stopped", code=2).stderr
    check(f"{name}: --resume refuses the changed base", "the base model's weights: v2-" in resumed, next(line for line in resumed.splitlines() if line.startswith("error"))[-120:])

    # 3. eval loss reads rows as the run did.
    run("train", "--model", model, "--sft", "sft.jsonl", "--sft-template", "alpaca", "--steps", "1", "--lora-rank", "2", "--sft-batch", "2", "--held-out", "0.3", "--eval-rows", "99",
        "--max-length", "256", "--out", f"{name}-alpaca", "--no-report")
    def loss(*words): return json.loads(run("eval", "loss", "--model", model, "--adapter", f"{name}-alpaca/adapter", "--sft", "sft.jsonl", "--json", *words).stdout)["loss"]
    check(f"{name}: eval loss takes the run's template", loss() == loss("--template", "alpaca", "--max-length", "256"), f"{loss():.4f}, with another template {loss('--template', 'raw'):.4f}")
    last = json.loads(open(f"{name}-alpaca/evals.jsonl").read().splitlines()[-1])
    check(f"{name}: --split held-out is the run's number", abs(loss("--split", "held-out") / last["eval/loss/sft"] - 1) < 1e-12, f"{last['eval/loss/sft']:.6f}")

    # 4. The held-out rows.
    def held(*words): return [json.loads(line)["row"] for line in run("eval", "loss", "--model", model, "--split", "held-out", "--held-out", "0.3", "--per-row", *words).stdout.splitlines()]
    sides = [held("--sft", "sft.jsonl", "--template", t) for t in ("user-assistant", "alpaca", "raw")] + [held("--dpo", "dpo.jsonl", "--template", "raw")]
    check(f"{name}: one split in every template and objective", all(side == sides[0] for side in sides), f"{len(sides[0])} of {len(questions)} rows")

# 2. Added tokens of the other files.
flags = {"special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
rows("talk.jsonl", [{"messages": talk}])


def variant(folder, config, edit=None, **files):
    os.makedirs(folder)
    for f in ("config.json", "model.safetensors"): os.symlink(os.path.abspath(f"random/{f}"), f"{folder}/{f}")
    tokenizer = json.load(open("random/tokenizer.json"))
    if edit: edit(tokenizer)
    write(f"{folder}/tokenizer.json", tokenizer)
    write(f"{folder}/tokenizer_config.json", config)
    for f, value in files.items(): write(f"{folder}/{f}.json", value)
    return folder


def ids_of(model, file, template):
    out = run("eval", "loss", "--model", model, "--sft", file, "--template", template, "--per-row", "--ids").stdout
    return [json.loads(line)["ids"] for line in out.splitlines()]


base = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "chat_template": template}
listed = {"0": dict(flags, content="<|endoftext|>"), "50277": dict(flags, content="<|im_start|>"), "50278": dict(flags, content="<|im_end|>")}
for case, folder in (("added_tokens_decoder", variant("chatml", dict(base, added_tokens_decoder=listed))),
                     ("added_tokens.json", variant("chatml-old", base, added_tokens={"<|im_start|>": 50277, "<|im_end|>": 50278}))):
    theirs = AutoTokenizer.from_pretrained(folder)
    want = theirs.apply_chat_template(talk, tokenize=True, return_dict=False)
    ours = ids_of(folder, "talk.jsonl", "chat")[0]
    # The line break after the last turn is left out.
    check(f"ChatML tokens of {case}", ours["prompt"] + ours["response"] == want[:-1] and theirs.eos_token_id == 50278, str(ours["prompt"]))
shown = run("inspect", "talk.jsonl", "--model", variant("chatml-none", dict(base, eos_token="<|endoftext|>")), "--template", "chat", "--held-out", "0").stdout
check("inspect shows that a mark is split", "looks like a special token, but the tokenizer splits it: <|im_start|> = " in shown, shown.strip().splitlines()[-1][:100])
far = run("inspect", "talk.jsonl", "--model", variant("far", dict(base, eos_token="<|endoftext|>", added_tokens_decoder={"50300": dict(flags, content="<new>")})), code=2).stderr
check("a listed id that does not come out is refused", "lists the token `<new>` with the id 50300" in far, far.strip().splitlines()[0][-110:])
unknown = run("inspect", "talk.jsonl", "--model", variant("unknown", dict(base)), code=2).stderr
check("a named EOS that does not exist is refused", "its eos_token `<|im_end|>` is not a token" in unknown, unknown.strip().splitlines()[0][-90:])

# 5. add_prefix_space, and the special tokens of transformers, in both files.
texts = [("Hello there, what is it?", " It is Zoë's 12 cats."), (" leading space", "Yes"), ("line\n\n  two", "A\n B"), ("Write code:", "\ndef f(): pass"), ("Write code:", "x")]
rows("texts.jsonl", [{"prompt": prompt, "completion": completion} for prompt, completion in texts])
plain = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "model_max_length": 2048}
spaced = lambda tokenizer: tokenizer["pre_tokenizer"].update(add_prefix_space=True)
for case, config, edit in (
        ("plain", dict(plain, tokenizer_class="PreTrainedTokenizerFast"), None),
        ("GPTNeoXTokenizer, config true", dict(plain, tokenizer_class="GPTNeoXTokenizer", add_prefix_space=True), None),
        ("GPT2Tokenizer, config true", dict(plain, tokenizer_class="GPT2Tokenizer", add_prefix_space=True), None),
        ("GPTNeoXTokenizer, file true", dict(plain, tokenizer_class="GPTNeoXTokenizer"), spaced),
        ("PreTrainedTokenizerFast, file true", dict(plain, tokenizer_class="PreTrainedTokenizerFast"), spaced),
        ("PreTrainedTokenizerFast, config true", dict(plain, tokenizer_class="PreTrainedTokenizerFast", add_prefix_space=True), None),
        ("additional_special_tokens", dict(plain, tokenizer_class="PreTrainedTokenizerFast", additional_special_tokens=["cats"]), None)):
    folder = variant("space-" + re.sub(r"\W+", "-", case), config, edit)
    theirs = AutoTokenizer.from_pretrained(folder)
    same = True
    for (prompt, completion), ours in zip(texts, ids_of(folder, "texts.jsonl", "raw")):
        # A response follows the prompt, so it begins without the space that the tokenizer puts before texts.
        whole = theirs(prompt + completion, add_special_tokens=False)["input_ids"]
        start = theirs(prompt, add_special_tokens=False)["input_ids"]
        same &= ours["prompt"] == theirs(prompt)["input_ids"]
        if whole[:len(start)] == start: same &= ours["response"] == whole[len(start):] + [theirs.eos_token_id]
    check(f"tokens of {case}", same)

shutil.rmtree(work)
print("FAIL: " + ", ".join(failed) if failed else "OK")
sys.exit(bool(failed))
