#!/usr/bin/env python3
"""Tiny models, PEFT adapters and reference numbers from transformers + peft.

    python generate.py OUT_DIR [NAME ...]

One folder per entry of CONFIGS; README.md says what is in it. Everything is seeded, runs on one CPU thread and
takes less than a minute.
"""
import os, sys
if os.environ.get("PYTHONHASHSEED") != "0":  # PEFT writes sets of names to adapter_config.json in their iteration order
    os.execve(sys.executable, [sys.executable, *sys.argv], dict(os.environ, PYTHONHASHSEED="0"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
import copy, json, shutil, warnings
import numpy as np
import torch
import peft, transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

ATTN = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
# config: what config.json says. dialect 4: the file is written by hand, as transformers 4 wrote it and as most published
# models have it; dialect 5: as transformers 5 writes it. dtype: of the weight file. lora: targets, rank, alpha.
# more: other settings of the adapter. std: standard deviation of the blocks' weights, 0.14 without it. seed: the position without it.
# unlike: a change of the config that must move the log-probabilities, or the test would not see the feature.
CONFIGS = {
    "neox_parallel": dict(dialect=4, dtype="bfloat16", lora=(["query_key_value"], 4, 8), unlike=dict(use_parallel_residual=False), config=dict(
        architectures=["GPTNeoXForCausalLM"], model_type="gpt_neox", vocab_size=176, hidden_size=64, num_hidden_layers=3,
        num_attention_heads=4, intermediate_size=160, hidden_act="gelu", max_position_embeddings=128, rotary_pct=0.25,
        rotary_emb_base=10000, use_parallel_residual=True, layer_norm_eps=1e-5, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0, initializer_range=0.02, use_cache=True)),
    "neox_sequential": dict(dialect=5, dtype="bfloat16", lora=(["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], 3, 5),
        unlike=dict(use_parallel_residual=True), config=dict(
        model_type="gpt_neox", vocab_size=161, hidden_size=72, num_hidden_layers=2, num_attention_heads=2, intermediate_size=100,
        hidden_act="gelu", max_position_embeddings=128, rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=1.0),
        use_parallel_residual=False, layer_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0)),
    "llama": dict(dialect=5, dtype="bfloat16", lora=(ATTN + MLP, 4, 4),
        unlike=dict(rope_parameters=dict(rope_type="default", rope_theta=500000.0)), config=dict(
        model_type="llama", vocab_size=200, hidden_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, intermediate_size=88, hidden_act="silu", max_position_embeddings=128, rms_norm_eps=1e-5,
        rope_parameters=dict(rope_type="default", rope_theta=5000.0), tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)),
    "llama3_rope": dict(dialect=4, dtype="bfloat16", lora=(["q_proj", "v_proj"], 4, 8), unlike=dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0)), config=dict(
        architectures=["LlamaForCausalLM"], attention_bias=True, attention_dropout=0.0, bos_token_id=1, eos_token_id=[2, 3],
        hidden_act="silu", hidden_size=64, initializer_range=0.02, intermediate_size=96, max_position_embeddings=256, mlp_bias=True,
        model_type="llama", num_attention_heads=4, num_hidden_layers=2, num_key_value_heads=2, pretraining_tp=1, rms_norm_eps=1e-5,
        rope_scaling=dict(factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=32, rope_type="llama3"),
        rope_theta=10000.0, tie_word_embeddings=False, use_cache=True, vocab_size=192)),
    "llama_linear_rope": dict(dialect=4, dtype="float16", shards=True, lora=(["q_proj", "k_proj", "up_proj"], 4, 8), unlike=dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0)), config=dict(
        architectures=["LlamaForCausalLM"], bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=64, initializer_range=0.02,
        intermediate_size=96, max_position_embeddings=256, model_type="llama", num_attention_heads=4, num_hidden_layers=2,
        num_key_value_heads=4, rms_norm_eps=1e-6, rope_scaling=dict(factor=2.0, type="linear"), rope_theta=10000.0,
        tie_word_embeddings=False, use_cache=True, vocab_size=180)),
    "mistral": dict(dialect=4, dtype="bfloat16", lora=(["q_proj", "v_proj"], 4, 8), unlike=dict(sliding_window=None), config=dict(
        architectures=["MistralForCausalLM"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=64,
        initializer_range=0.02, intermediate_size=96, max_position_embeddings=256, model_type="mistral", num_attention_heads=4,
        num_hidden_layers=2, num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=8, tie_word_embeddings=False,
        use_cache=True, vocab_size=170)),
    "qwen2": dict(dialect=4, dtype="bfloat16", lora=(["k_proj", "o_proj", "down_proj"], 4, 8), unlike=dict(layer_types=["sliding_attention"] * 3), config=dict(
        architectures=["Qwen2ForCausalLM"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=48,
        initializer_range=0.02, intermediate_size=80, max_position_embeddings=256, max_window_layers=1, model_type="qwen2",
        num_attention_heads=4, num_hidden_layers=3, num_key_value_heads=2, rms_norm_eps=1e-6, rope_theta=1000000.0, sliding_window=8,
        tie_word_embeddings=True, use_cache=True, use_sliding_window=True, vocab_size=220)),
    "qwen3": dict(dialect=5, dtype="float32", lora=("all-linear", 2, 6),
        unlike=dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0)), config=dict(
        model_type="qwen3", vocab_size=160, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=32, intermediate_size=64, hidden_act="silu", max_position_embeddings=256, rms_norm_eps=1e-6, attention_bias=False,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0), tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)),
    # Nothing adapted in the first block; ranks and scales that differ; the MLP adapted beside attention, not after it.
    "neox_patterns": dict(dialect=4, dtype="bfloat16", lora=(r".*\.[12]\..*(query_key_value|dense_h_to_4h|dense_4h_to_h)", 2, 3),
        more=dict(use_rslora=True, rank_pattern={"dense_4h_to_h": 5, r"^gpt_neox\.layers\.2\..*query_key_value": 3}, alpha_pattern={"2.mlp.dense_h_to_4h": 7}),
        unlike=dict(use_parallel_residual=False), config=dict(
        architectures=["GPTNeoXForCausalLM"], model_type="gpt_neox", vocab_size=120, hidden_size=48, num_hidden_layers=3,
        num_attention_heads=3, intermediate_size=72, hidden_act="gelu_new", max_position_embeddings=128, rotary_pct=0.5,
        rotary_emb_base=10000, use_parallel_residual=True, layer_norm_eps=1e-5, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0, initializer_range=0.02, use_cache=True)),
    # neox_sequential and qwen2 again, with hidden, head and intermediate sizes that are multiples of 8: a GPU decoder takes no others.
    "neox_sequential_wide": dict(dialect=5, dtype="bfloat16", lora=(["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], 3, 5),
        unlike=dict(use_parallel_residual=True), config=dict(
        model_type="gpt_neox", vocab_size=161, hidden_size=80, num_hidden_layers=2, num_attention_heads=2, intermediate_size=104,
        hidden_act="gelu", max_position_embeddings=128, rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=1.0),
        use_parallel_residual=False, layer_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0)),
    # std: 0.14 over 48 inputs is 0.12 over 64; with 0.14, five of twelve seeds gave upright gradients in bf16 that are off by 3% or more, with 0.12 none.
    # seed: at that of its position one token makes most of a gradient, and bf16 errs there by 4 to 5%, in transformers as in upright.
    "qwen2_wide": dict(dialect=4, dtype="bfloat16", std=0.12, seed=20, lora=(["k_proj", "o_proj", "down_proj"], 4, 8), unlike=dict(layer_types=["sliding_attention"] * 3), config=dict(
        architectures=["Qwen2ForCausalLM"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=64,
        initializer_range=0.02, intermediate_size=80, max_position_embeddings=256, max_window_layers=1, model_type="qwen2",
        num_attention_heads=4, num_hidden_layers=3, num_key_value_heads=2, rms_norm_eps=1e-6, rope_theta=1000000.0, sliding_window=8,
        tie_word_embeddings=True, use_cache=True, use_sliding_window=True, vocab_size=220)),
}
BETA, LR, BETAS, EPS, STEPS, CLIP = 0.1, 1e-3, (0.9, 0.95), 1e-8, 10, 1.0


class Double(TorchFunctionMode):
    """Inside, what asks for f32 gets f64: transformers computes norms, softmax and rotary angles in f32 whatever the model's
    dtype, and model.double() alone would leave those at f32 precision. (The inverse frequencies stay the f32 values.)"""
    def __torch_function__(self, func, types, args=(), kwargs=None):
        swap = lambda v: torch.float64 if v is torch.float32 else v
        if func is torch.Tensor.float: func = torch.Tensor.double
        return func(*[swap(a) for a in args], **{k: swap(v) for k, v in (kwargs or {}).items()})


class Plain:
    def __enter__(self): pass
    def __exit__(self, *_): pass


def randn(gen, shape, std, mean=0.0): return mean + std * torch.randn(shape, generator=gen, dtype=torch.float32)


def build(name, spec, folder, gen):
    """Random weights that make every part count, saved as a Hugging Face folder."""
    config = AutoConfig.for_model(**{k: v for k, v in copy.deepcopy(spec["config"]).items() if k != "architectures"})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    with torch.no_grad():
        for key, p in sorted(model.named_parameters()):
            norm = "norm" in key
            if key.endswith("bias"): new = randn(gen, p.shape, 0.1)
            elif norm: new = randn(gen, p.shape, 0.2, 1.0)
            elif "embed" in key: new = randn(gen, p.shape, 0.25 if config.tie_word_embeddings else 0.5)
            elif "lm_head" in key: new = randn(gen, p.shape, 0.2)
            else: new = randn(gen, p.shape, spec.get("std", 0.14))
            # Values that bf16 holds, whatever the file's type: upright casts f16 and f32 files to bf16 once.
            p.copy_(new.to(torch.bfloat16).float())
    model = model.to(getattr(torch, spec["dtype"]))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(folder, **({"max_shard_size": int(size * 0.6)} if spec.get("shards") else {}))
    os.remove(f"{folder}/generation_config.json")
    if spec["dialect"] == 4:
        with open(f"{folder}/config.json", "w") as f:
            json.dump(dict(spec["config"], torch_dtype=spec["dtype"], transformers_version="4.45.2"), f, indent=2); f.write("\n")


def adapter(name, spec, model_dir, out, gen):
    targets, rank, alpha = spec["lora"]
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")
    model.name_or_path = f"tiny/{name}"  # what adapter_config.json calls the base
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", **spec.get("more", {})))
    with torch.no_grad():
        for key, p in sorted(model.named_parameters()):
            if "lora_" in key: p.copy_(randn(gen, p.shape, 0.12))
    model.save_pretrained(out, save_embedding_layers=False)
    os.remove(f"{out}/README.md")


def load(folder, which, dtype, **change):
    """The model with an adapter (or with none), as a user would load it. bf16: the adapter in bf16 too (PEFT would otherwise keep
    it in f32). f64: the file's values widened."""
    kw = dict(config=AutoConfig.from_pretrained(folder, **change)) if change else {}
    wide = torch.float32 if dtype == torch.float64 else dtype
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=wide, attn_implementation="eager", **kw)
    if which:
        model = PeftModel.from_pretrained(model, f"{folder}/{which}", is_trainable=True, autocast_adapter_dtype=False)
        saved = load_file(f"{folder}/{which}/adapter_model.safetensors")
        mine = get_peft_model_state_dict(model)
        assert saved.keys() == mine.keys() and all(torch.equal(saved[k].to(wide), mine[k]) for k in saved)
    model = model.to(dtype).eval()
    assert {p.dtype for p in model.parameters()} == {dtype}
    return model


def logps(model, rows):
    """Per row, per response: the log-probabilities of its tokens. Each response is a sequence of its own, unpadded."""
    out = []
    for row in rows:
        out.append([])
        for response in row["responses"]:
            ids = row["prompt"] + response
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
            if logits.dtype == torch.bfloat16: logits = logits.float()
            n = len(row["prompt"])
            lp = torch.log_softmax(logits[n - 1:-1], -1)
            out[-1].append(lp.gather(1, torch.tensor(response)[:, None])[:, 0])
    return out


flat = lambda per_row: torch.cat([t for row in per_row for t in row])


def base_key(name): return name.removeprefix("base_model.model.").replace(".default.", ".")


def trainable(model): return {base_key(k): p for k, p in model.named_parameters() if p.requires_grad}


def golden(folder, rows, slopes, dtype):
    """All exact goldens at one precision."""
    out = {}
    base, fixed, model = (load(folder, which, dtype) for which in (None, "reference", "adapter"))
    with Double() if dtype == torch.float64 else Plain():
        with torch.no_grad():
            out["base_logp"] = flat(logps(base, rows))
            reference = logps(fixed, rows)
        out["reference_logp"] = flat(reference)
        params = trainable(model)
        lp = flat(logps(model, rows))
        (lp * slopes.to(dtype)).sum().backward()
        out["logp"] = lp.detach()
        out |= {f"grad.{k}": p.grad.clone() for k, p in params.items()}
        assert all(p.grad.abs().max() > 0 for p in params.values())

        opt = torch.optim.AdamW(params.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=0.0)
        losses, norms = [], []
        for step in range(STEPS):
            opt.zero_grad()
            if step % 2 == 0:
                loss = -flat(logps(model, rows[3:])).mean()
            else:
                terms = []
                for (pc, pr), (rc, rr) in zip(logps(model, rows[:3]), reference):
                    terms.append(-torch.nn.functional.logsigmoid(BETA * ((pc.sum() - rc.sum()) - (pr.sum() - rr.sum()))))
                loss = torch.stack(terms).mean()
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(params.values(), CLIP).detach())
            losses.append(loss.detach())
            opt.step()
        out["steps_loss"], out["steps_grad_norm"] = torch.stack(losses), torch.stack(norms)
        out |= {f"adapter10.{k}": p.detach().clone() for k, p in params.items()}
    assert all(v.dtype == dtype for v in out.values())
    return out


def make_rows(rng, vocab):
    ids = lambda n: [int(i) for i in rng.integers(4, vocab, n)]
    n = lambda lo, hi: int(rng.integers(lo, hi + 1))
    rows = [dict(prompt=ids(n(8, 14)), responses=[ids(n(5, 9)), ids(n(10, 14))]),
            dict(prompt=ids(24), responses=[ids(20), ids(1)]),
            dict(prompt=ids(5), responses=[ids(n(3, 6)), ids(n(7, 11))]),  # and these two start alike
            dict(prompt=ids(n(15, 20)), responses=[ids(n(9, 13))]),
            dict(prompt=ids(n(6, 9)), responses=[ids(n(14, 19))])]
    rows[2]["responses"][1][0] = rows[2]["responses"][0][0]
    return rows


def relative(a, b): return float((a.double() - b.double()).norm() / b.double().norm())


def main():
    out_dir, only = sys.argv[1], sys.argv[2:]
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")
    print(f"{'folder':20} {'tokens':>6} {'max|logp f32-f64|':>18} {'rel':>8} {'worst grad rel':>15} {'loss rel':>9} {'norm rel':>9} "
          f"{'adapter10 max abs':>18} {'bf16 rms':>9} {'bf16 max':>9} {'mean logp':>9} {'adapter rms':>11} {'unlike rms':>10} {'KiB':>5}")
    for index, (name, spec) in enumerate(CONFIGS.items()):
        if only and name not in only: continue
        folder = os.path.join(out_dir, name)
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(0)
        seed = spec.get("seed", index)
        gen = torch.Generator().manual_seed(1000 + seed)
        rng = np.random.default_rng(2000 + seed)
        build(name, spec, folder, gen)
        for which in ("adapter", "reference"): adapter(name, spec, folder, f"{folder}/{which}", gen)
        rows = make_rows(rng, spec["config"]["vocab_size"])
        with open(f"{folder}/rows.json", "w") as f: f.write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
        count = sum(len(r) for row in rows for r in row["responses"])
        slopes = torch.tensor(rng.standard_normal(count) * 0.3, dtype=torch.float32)

        exact, single = golden(folder, rows, slopes, torch.float64), golden(folder, rows, slopes, torch.float32)
        changed = load(folder, None, torch.float64, **copy.deepcopy(spec["unlike"]))
        with torch.no_grad():
            bf16 = flat(logps(load(folder, "adapter", torch.bfloat16), rows))
            with Double(): unlike = flat(logps(changed, rows))
        save = {k: v.float().contiguous() for k, v in exact.items()} | {"logp_bf16": bf16.contiguous(), "slopes": slopes}
        save_file(save, f"{folder}/golden.safetensors")

        pick = lambda prefix: [k for k in exact if k.startswith(prefix)]
        lps = ("base_logp", "logp", "reference_logp")
        rel_logp = max(relative(single[k], exact[k]) for k in lps)
        rel_grad = max(relative(single[k], exact[k]) for k in pick("grad."))
        rms = lambda a, b: float((a.double() - b.double()).pow(2).mean().sqrt())
        size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(folder) for f in fs)
        most = lambda a, b: float((a.double() - b.double()).abs().max())
        print(f"{name:20} {count:6d} {max(most(single[k], exact[k]) for k in lps):18.2e} {rel_logp:8.1e} {rel_grad:15.1e} "
              f"{relative(single['steps_loss'], exact['steps_loss']):9.1e} {relative(single['steps_grad_norm'], exact['steps_grad_norm']):9.1e} "
              f"{max(most(single[k], exact[k]) for k in pick('adapter10.')):18.1e} {rms(bf16, exact['logp']):9.4f} "
              f"{most(bf16, exact['logp']):9.4f} {float(exact['logp'].mean()):9.3f} "
              f"{rms(exact['logp'], exact['base_logp']):11.3f} {rms(unlike, exact['base_logp']):10.3f} {size / 1024:5.0f}", flush=True)
        assert rel_logp < 1e-5 and rel_grad < 1e-5, "f32 and f64 disagree"
        assert rms(unlike, exact["base_logp"]) > 0.01, "the feature this folder is for does not show"


if __name__ == "__main__": main()
