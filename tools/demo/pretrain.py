#!/usr/bin/env python3
"""Trains the demo's tokenizer and base model on the text of generate.py.

    python pretrain.py TEXT_FILE MODEL_DIR [--seed 7] [--steps 1200]

MODEL_DIR gets config.json, model.safetensors (bf16), tokenizer.json and tokenizer_config.json.
"""
import argparse, json, math, random, time
from pathlib import Path

import numpy, torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

EOS = "<|endoftext|>"
WINDOW = 128

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("text", type=Path)
p.add_argument("model", type=Path)
p.add_argument("--seed", type=int, default=7)
p.add_argument("--steps", type=int, default=1200)
p.add_argument("--batch", type=int, default=16)
p.add_argument("--learning-rate", type=float, default=4e-3)
p.add_argument("--vocabulary", type=int, default=768)
args = p.parse_args()
torch.set_num_threads(1)  # a sum has one order, whatever the machine
random.seed(args.seed), numpy.random.seed(args.seed), torch.manual_seed(args.seed)

texts = [json.loads(line) for line in open(args.text)]
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=args.vocabulary, special_tokens=[EOS], show_progress=False,
                                                         initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
args.model.mkdir(parents=True, exist_ok=True)
tokenizer.save(str(args.model / "tokenizer.json"))
(args.model / "tokenizer_config.json").write_text(json.dumps(
    {"eos_token": EOS, "model_max_length": 256, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
eos = tokenizer.token_to_id(EOS)

# Windows start with a document, as a prompt will; the last document of a window is cut.
windows, held = [], []
window = []
for encoding in tokenizer.encode_batch(texts):
    window += encoding.ids + [eos]
    if len(window) >= WINDOW:
        windows.append(window[:WINDOW])
        window = []
windows = torch.tensor(windows)
held, windows = windows[:200], windows[200:]
print(f"{len(texts)} documents, {windows.numel()} tokens in {len(windows)} windows")

config = LlamaConfig(vocab_size=args.vocabulary, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=32, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=True,
                     bos_token_id=None, eos_token_id=eos, pad_token_id=None)
model = LlamaForCausalLM(config)
count = sum(w.numel() for w in model.parameters())
print(f"{count} parameters")


def loss_of(batch):
    return torch.nn.functional.cross_entropy(model(batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())


optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
start = time.time()
order = torch.randperm(len(windows)).repeat(1 + args.steps * args.batch // len(windows))
for step in range(args.steps):
    rate = min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
    for group in optimizer.param_groups: group["lr"] = args.learning_rate * rate
    loss = loss_of(windows[order[step * args.batch:(step + 1) * args.batch]])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 100 == 0 or step == args.steps - 1:
        with torch.no_grad(): print(f"step {step}  loss {loss:.3f}  held-out {loss_of(held):.3f}  {time.time() - start:.0f} s", flush=True)

model.to(torch.bfloat16).save_pretrained(args.model)
(args.model / "generation_config.json").unlink(missing_ok=True)
# The tied head is the embedding; it must be stored once.
tensors = load_file(args.model / "model.safetensors")
tensors.pop("lm_head.weight", None)
save_file(tensors, args.model / "model.safetensors", metadata={"format": "pt"})
print(f"{(args.model / 'model.safetensors').stat().st_size} bytes, {time.time() - start:.0f} s")
