#!/usr/bin/env python3
"""Do adapters and merged models go both ways between upright and transformers + peft, for every family?

    python check_families.py UPRIGHT [FAMILY ...] [--tokenizer FOLDER] [--keep DIR]

UPRIGHT is the program. For each family a tiny random model is made, with a tokenizer that is trained here on the rows (or copied from
FOLDER), and asked for per-response log-probabilities on the same token ids by both sides:

    chat        a conversation's token ids by the model's chat template, prompt and response, against transformers' own
    trained     20 steps of upright; its adapter in peft, in f32                            (portable tier: 1e-4 relative)
    merged f32  `upright export --merge --dtype f32` in transformers, against base + adapter there
    merged      `upright export --merge` in bf16: by both sides, and its weights against peft's merge_and_unload
    continued   another 10 steps of upright upon the merged model; the chain merged by upright, in transformers
    tier ...    each bf16 tier of this machine against f32: no worse than transformers in bf16
    peft ...    adapters that peft makes and saves, in other ways for every family: names, a regular expression, layers, exclusions,
                rank_pattern, alpha_pattern, rsLoRA; scored by upright
    combined    `upright export --combine` against peft's add_weighted_adapter(combination_type="cat")

The versions are those of requirements.txt. Takes about a minute.
"""
import os
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
import argparse, contextlib, json, random, shutil, subprocess, sys, tempfile, warnings
from importlib.metadata import version
from pathlib import Path
import torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("upright")
p.add_argument("families", nargs="*")
p.add_argument("--tokenizer", help="folder with tokenizer.json, instead of one that is trained here")
p.add_argument("--keep", help="work in this folder and keep what was made")
args = p.parse_args()

TOLERANCE = 1e-4
SMALL = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=112, max_position_embeddings=512, bos_token_id=None, eos_token_id=0)
GQA = dict(SMALL, num_key_value_heads=2, hidden_act="silu", rms_norm_eps=1e-5)
REGEX = r"^(?!.*lm_head).*layers\.[02]\..*(q_proj|down_proj)"
FAMILIES = {
    "llama": dict(config=dict(GQA, tie_word_embeddings=True), peft=dict(target_modules=REGEX, rank_pattern={r"^model\.layers\.0\..*q_proj": 7}, alpha_pattern={"down_proj": 3})),
    "mistral": dict(config=dict(GQA, sliding_window=12, tie_word_embeddings=False), peft=dict(target_modules=["q_proj", "v_proj", "o_proj"], layers_to_transform=[1, 2], layers_pattern="layers")),
    "qwen2": dict(config=dict(GQA, tie_word_embeddings=True), peft=dict(target_modules="all-linear", exclude_modules=["k_proj", "0.mlp.up_proj"], use_rslora=True, rank_pattern={"gate_proj": 2})),
    "qwen3": dict(config=dict(GQA, head_dim=32, tie_word_embeddings=False), peft=dict(target_modules=["2.self_attn.k_proj", "up_proj"], use_rslora=True, alpha_pattern={"1.mlp.up_proj": 40, "up_proj": 5})),
    "gpt_neox": dict(config=dict(SMALL, hidden_act="gelu", use_parallel_residual=True), peft=dict(target_modules=["query_key_value", "dense_4h_to_h"], rank_pattern={"dense_4h_to_h": 9})),
}
TEMPLATE = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
NAMES = ["wren", "otter", "heron", "badger", "newt", "marten", "plover", "vole"]
failures = []


def report(family, what, figure, good, detail=""):
    print(f"{family:9} {what:22} {figure:>10} {'ok' if good else 'FAIL':4} {detail}", flush=True)
    if not good: failures.append(f"{family}: {what}")


def upright(*words, tier="portable", cwd):
    done = subprocess.run([str(Path(args.upright).resolve()), *map(str, words)], cwd=cwd, capture_output=True, text=True,
                          env=dict(os.environ, UPRIGHT_CPU=tier, UPRIGHT_CACHE=str(cwd / "cache")))
    if done.returncode: sys.exit(f"upright {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def score(model, adapter, cwd, tier="portable"):
    """[(prompt ids, response ids, log-probability)] of all responses, as upright has them."""
    out = []
    for kind in ("sft", "dpo"):
        words = ["eval", "loss", "--model", model, f"--{kind}", f"{kind}.jsonl", "--limit", 12, "--per-row", "--ids"]
        for line in upright(*words, *(["--adapter", adapter] if adapter else []), tier=tier, cwd=cwd).splitlines():
            row = json.loads(line)
            out += [(row["ids"]["prompt"], row["ids"][name], logp) for name, logp in row["logp"].items()]
    return out


@torch.no_grad()
def truth(model, scored):
    out = []
    for prompt, response, _ in scored:
        logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0, len(prompt) - 1:-1]
        out.append(torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(response)[:, None]).sum())
    return torch.stack(out)


def load(folder, adapter=None, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    if adapter: model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False)
    return model.to(dtype).eval()


ours = lambda scored: torch.tensor([logp for _, _, logp in scored], dtype=torch.double)
relative = lambda a, b: float(((a - b).abs() / b.abs().clamp_min(1e-9)).max())
rms = lambda a, b: float((a - b).pow(2).mean().sqrt())


def rows(work):
    rng = random.Random(0)
    sentence = lambda: f"The {rng.choice(NAMES)} and {rng.randint(2, 99)} {rng.choice(NAMES)}s went {rng.choice(['up', 'down', 'along'])} the river."
    sft = [dict(instruction=f"Count {i} of the {rng.choice(NAMES)}s.", input="", output=" ".join(sentence() for _ in range(rng.randint(1, 3)))) for i in range(60)]
    dpo = [dict(prompt=f"Where does {rng.choice(NAMES)} {i} live?", chosen=sentence(), rejected=f"Ask someone else, {rng.choice(NAMES)}.") for i in range(40)]
    say = lambda role, content: dict(role=role, content=content)
    talk = [dict(messages=[say("system", "Be brief."), say("user", f" {sentence()}\n"), say("assistant", sentence()), say("user", f"And {i}?"), say("assistant", f"\n{sentence()} ")]) for i in range(12)]
    for name, data in (("sft", sft), ("dpo", dpo), ("talk", talk)): (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    return [value for row in sft + dpo for value in row.values()]


def tokenizer(folder, texts):
    if args.tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
            with contextlib.suppress(FileNotFoundError): shutil.copy(Path(args.tokenizer) / name, folder)
        return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(with_added_tokens=True)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=["<|end|>", "<|start|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="PreTrainedTokenizerFast", eos_token="<|end|>", chat_template=TEMPLATE)))
    return made.get_vocab_size()


def build(family, spec, folder, texts):
    folder.mkdir()
    vocab = tokenizer(folder, texts)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=vocab, **spec["config"]), attn_implementation="eager")
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn_like(parameter) * (0.2 if "norm" in name else 0.14) + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    model.to(torch.bfloat16).save_pretrained(folder)


def peft_adapter(base, settings, folder, seed, steps=3):
    torch.manual_seed(seed)
    model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **{**dict(r=4, lora_alpha=6), **settings}))
    for name, parameter in model.named_parameters():
        if "lora_B" in name: parameter.data.normal_(std=0.1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        ids = torch.randint(1, 250, (2, 24))
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    model.save_pretrained(folder)


def chat(family, work):
    """Whether both sides make the same tokens of a conversation; what a template writes after the last end of a turn nobody is trained on."""
    # AutoTokenizer would take Qwen2's own class, which splits words by a rule of its own and not by that of tokenizer.json.
    theirs = PreTrainedTokenizerFast.from_pretrained(work / "base")
    if not theirs.chat_template: return report(family, "chat", "-", True, "the tokenizer has no template")
    ids = lambda messages, opened: theirs.apply_chat_template(messages, add_generation_prompt=opened, return_dict=False)
    talks = [json.loads(line)["messages"] for line in (work / "talk.jsonl").read_text().splitlines()]
    lines = upright("eval", "loss", "--model", "base", "--sft", "talk.jsonl", "--template", "chat", "--per-row", "--ids", cwd=work).splitlines()
    mine = [json.loads(line)["ids"] for line in lines]
    whole = [ids(talk, False) for talk in talks]
    for tokens in whole:
        while tokens[-1] != mine[0]["response"][-1]: tokens.pop()
    same = [a["prompt"] == ids(talk[:-1], True) and a["prompt"] + a["response"] == b for a, talk, b in zip(mine, talks, whole, strict=True)]
    report(family, "chat", f"{sum(same)}/{len(same)}", all(same), f"conversations of {sum(map(len, whole))} tokens")


def check(family, spec, work):
    base = work / "base"
    build(family, spec, base, rows(work))
    chat(family, work)
    data = ["--sft", "sft.jsonl", "--dpo", "dpo.jsonl", "--lora-rank", 4, "--lora-targets", "all-linear", "--learning-rate", 0.01, "--eval-rows", 4]
    upright("train", "--model", "base", *data, "--steps", 20, "--out", "run", cwd=work)
    scored = score("base", "run/adapter", work)
    adapted, plain = truth(load(base, work / "run/adapter"), scored), truth(load(base), scored)
    figure = relative(ours(scored), adapted)
    report(family, "trained", f"{figure:.1e}", figure <= TOLERANCE, f"{len(scored)} responses; the adapter moves them by {rms(adapted, plain):.2f} (rms)")
    if rms(adapted, plain) < 0.5: report(family, "trained", "-", False, "the adapter does too little to tell")

    upright("export", "run", "--merge", "--dtype", "f32", "--out", "merged-f32", cwd=work)
    figure = relative(truth(load(work / "merged-f32"), scored), adapted)
    report(family, "merged f32", f"{figure:.1e}", figure <= TOLERANCE)
    upright("export", "run", "--merge", "--max-shard-size", "1MB", "--out", "merged", cwd=work)
    again = score("merged", None, work)
    merged = truth(load(work / "merged"), again)
    figure = relative(ours(again), merged)
    report(family, "merged", f"{figure:.1e}", figure <= TOLERANCE, f"bf16 rounding: {rms(merged, adapted):.3f} (rms)")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), work / "run/adapter").merge_and_unload().state_dict()
    mine = AutoModelForCausalLM.from_pretrained(work / "merged", dtype=torch.bfloat16).state_dict()
    assert mine.keys() == theirs.keys()
    ulps = max(int((mine[k].view(torch.int16).int() - theirs[k].view(torch.int16).int()).abs()[(mine[k] * theirs[k]) > 0].max()) for k in mine)
    other = sum(int((mine[k] != theirs[k]).sum()) for k in mine) / sum(v.numel() for v in mine.values())
    report(family, "merged = peft's", f"{other:.1e}", ulps <= 1 and other < 1e-3, f"of the weights differ, by {ulps} unit in the last place at most")

    upright("train", "--model", "merged", *data, "--steps", 10, "--out", "next", cwd=work)
    upright("export", "next", "--merge", "--dtype", "f32", "--out", "chain", cwd=work)
    again = score("merged", "next/adapter", work)
    figure = relative(ours(again), truth(load(work / "chain"), again))
    lineage = json.loads((work / "chain/upright_merge.json").read_text())
    report(family, "continued", f"{figure:.1e}", figure <= TOLERANCE and len(lineage["merged"]) == 2)

    half = rms(truth(load(base, work / "run/adapter", torch.bfloat16), scored), adapted)
    for tier in json.loads(upright("doctor", "--json", cwd=work))["tiers"]:
        if tier == "portable": continue
        mine = rms(ours(score("base", "run/adapter", work, tier=tier)), adapted)
        report(family, f"tier {tier}", f"{mine:.3f}", mine <= half, f"transformers in bf16: {half:.3f} (rms of sums)")

    variants = {"names": dict(target_modules=spec["peft"]["target_modules"] if isinstance(spec["peft"]["target_modules"], list) else "all-linear"), "patterns": spec["peft"]}
    for seed, (name, settings) in enumerate(variants.items()):
        peft_adapter(base, settings, work / name, seed)
        again = score("base", name, work)
        theirs = truth(load(base, work / name), again)
        figure = relative(ours(again), theirs)
        report(family, f"peft {name}", f"{figure:.1e}", figure <= TOLERANCE and rms(theirs, plain) > 0.5, f"moves them by {rms(theirs, plain):.2f}; {json.dumps({k: v for k, v in settings.items() if k != 'target_modules'})}")
        upright("export", name, "--out", f"{name}-rewritten", cwd=work)
        figure = relative(truth(load(base, work / f"{name}-rewritten"), again), theirs)
        report(family, f"  and back", f"{figure:.1e}", figure <= 1e-6)

    upright("export", "--combine", "run", "names", "--weights", "0.7,-0.4", "--model", "base", "--out", "sum", cwd=work)
    model = PeftModel.from_pretrained(load(base), work / "run/adapter", adapter_name="a")
    model.load_adapter(work / "names", adapter_name="b")
    model.add_weighted_adapter(["a", "b"], [0.7, -0.4], "both", combination_type="cat")
    model.set_adapter("both")
    again = score("base", "sum", work)
    theirs = truth(model.eval(), again)
    figures = relative(ours(again), theirs), relative(truth(load(base, work / "sum"), again), theirs)
    report(family, "combined", f"{max(figures):.1e}", max(figures) <= TOLERANCE)


for line in (Path(__file__).parent / "requirements.txt").read_text().split():
    name, wanted = line.split("==")
    if version(name).split("+")[0] != wanted: print(f"note: {name} is {version(name)}, not {wanted}")
if unknown := set(args.families) - FAMILIES.keys(): sys.exit(f"no such family: {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
with tempfile.TemporaryDirectory() if not args.keep else contextlib.nullcontext(args.keep) as top:
    for family in args.families or FAMILIES:
        work = Path(top).resolve() / family
        work.mkdir(parents=True)
        check(family, FAMILIES[family], work)
print("FAIL: " + "; ".join(failures) if failures else "OK")
sys.exit(bool(failures))
