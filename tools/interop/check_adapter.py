#!/usr/bin/env python3
"""Does transformers + peft compute the same log-probabilities for a trained adapter?

    python check_adapter.py MODEL ADAPTER PER_ROW_JSONL ROWS_JSON [--tolerance 1e-4]

MODEL and ADAPTER are folders (ADAPTER "-": the bare model). A line of PER_ROW_JSONL reads
{"row":0,"tokens":{"prompt":138,"response":59},"logp":{"response":-80.1}}, or has "chosen" and "rejected"; a line of ROWS_JSON
{"row":0,"prompt":[ids],"responses":[[ids],...]}, chosen first. Rows present in only one file are an error.
"""
import os
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import argparse, json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ("model", "adapter", "per_row", "rows"): p.add_argument(name)
p.add_argument("--tolerance", type=float, default=1e-4, help="largest relative difference of a response's summed log-probability")
args = p.parse_args()


def lines(path):
    out = {}
    with open(path) as f:
        for line in f:
            if not line.strip(): continue
            row = json.loads(line)
            if row["row"] in out: sys.exit(f"{path}: row {row['row']} twice")
            out[row["row"]] = row
    return out


ours, rows = lines(args.per_row), lines(args.rows)
if not rows or ours.keys() != rows.keys(): sys.exit(f"rows differ, or there are none: {sorted(ours.keys() ^ rows.keys())}")
model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager")
if args.adapter != "-": model = PeftModel.from_pretrained(model, args.adapter)
model = model.float().eval()

worst_abs = worst_rel = 0.0
where, scored, bad = None, 0, False
for index in sorted(rows):
    mine, row = ours[index], rows[index]
    names = ["response"] if len(row["responses"]) == 1 else ["chosen", "rejected"]
    if mine["logp"].keys() != set(names): sys.exit(f"row {index}: expected {names}, found {list(mine['logp'])}")
    for name, ids in [("prompt", row["prompt"]), *zip(names, row["responses"])]:
        if mine["tokens"].get(name) != len(ids): print(f"row {index}: {name} has {len(ids)} tokens, not {mine['tokens'].get(name)}"); bad = True
    for name, response in zip(names, row["responses"]):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["prompt"] + response]), use_cache=False).logits[0, len(row["prompt"]) - 1:-1]
        truth = torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(response)[:, None]).sum().item()
        diff = abs(mine["logp"][name] - truth)
        rel = diff / max(abs(truth), 1e-9)
        scored += 1
        bad |= not rel <= args.tolerance  # a NaN is bad too
        worst_abs = max(worst_abs, diff)
        if not rel <= worst_rel: worst_rel, where = rel, f"row {index} {name}: {mine['logp'][name]:.6f}, transformers {truth:.6f}"
print(f"{scored} responses of {len(rows)} rows: max abs difference {worst_abs:.3e}, max relative {worst_rel:.3e} ({where}), tolerance {args.tolerance:g}")
print("FAIL" if bad else "OK")
sys.exit(bad)
