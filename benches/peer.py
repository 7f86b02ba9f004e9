"""One measurement of PyTorch on the rows that compare.py wrote: transformers + peft, or TRL's trainers. Prints one JSON object in
the form of `upright bench --json`.

  plain      padded batches in random order, the reference's forward in every DPO step, logits at every position
  tuned      the same libraries in the hands of an expert: rows of like length share a batch, reference log-probabilities computed
             beforehand, the head on the scored positions only, and no attention mask. Batches are padded on the right, so that
             causal attention needs none, and PyTorch takes its fastest kernel.
  compiled   tuned, with torch.compile of every block and of the head's loss, for any length. A pass over all batches goes before
             the one that counts. Blocks and not the whole decoder: inside a compiled decoder, transformers builds a mask of every
             pair of positions. compiled_while_timed counts what was compiled in the pass that counts. On the CPU, peak_gb has the
             compiler in it.
  trl        SFTTrainer and DPOTrainer as they are. TRL 1.16 recomputes activations in backward (gradient_checkpointing), and DPO
             runs the reference's forward in every step. The rows are padded, in random order. The head is on scored positions.
  trl-tuned  the same trainers without recompute, reference log-probabilities computed beforehand, rows of like length in a batch.
             padding_free is left out: SFT supports it with the flash-attn package only, and DPOTrainer 1.16 ignores it.

All have LoRA on a base of the same type, PyTorch's own fused attention, AdamW, and a gradient clipped to the same norm.
"""

import argparse
import gc
import json
import os
import random
import resource
import statistics
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", required=True, help="folder with config.json and tokenizer.json; the weights are random")
parser.add_argument("--sft", required=True, help="rows with prompt and completion, .jsonl")
parser.add_argument("--dpo", required=True, help="rows with prompt, chosen and rejected, .jsonl")
parser.add_argument("--mode", required=True, choices=["plain", "tuned", "compiled", "trl", "trl-tuned"])
parser.add_argument("--steps", type=int, required=True, help="steps that count; one of each objective goes before")
parser.add_argument("--sft-batch", type=int, required=True)
parser.add_argument("--dpo-batch", type=int, required=True)
parser.add_argument("--lora-rank", type=int, required=True)
parser.add_argument("--lora-targets", required=True, help="names with commas between")
parser.add_argument("--max-length", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
arguments = parser.parse_args()

if arguments.device == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # both sides on the processor
else:
    # TRL's trainers want to see one card only.
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    index = int(arguments.device.partition(":")[2] or 0)
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[index] if visible else str(index)
    arguments.device = "cuda"

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
random.seed(0)

BETA, RATE, BETAS, CLIP = 0.1, 5e-5, (0.9, 0.95), 1.0
IS_TUNED = arguments.mode in ("tuned", "compiled", "trl-tuned")


def rows_of(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


config = AutoConfig.from_pretrained(arguments.model)
config.use_cache = False  # as in Trainer; else training copies all keys and values
eos = config.eos_token_id
tokenizer = PreTrainedTokenizerFast(tokenizer_file=os.path.join(arguments.model, "tokenizer.json"))
tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(eos)


def new_model():
    """The base with fresh weights; speed does not depend on their values."""
    torch.manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    with torch.device(arguments.device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype)
    return model.to(arguments.device)


def now():
    """The time when all work of the device is done."""
    if arguments.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def lora():
    rank = arguments.lora_rank
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=arguments.lora_targets.split(","), task_type="CAUSAL_LM")


def encode(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def sequences(row):
    """The prompt's tokens, and those of each response with its end."""
    responses = [row["completion"]] if "completion" in row else [row["chosen"], row["rejected"]]
    return tokenizer(row["prompt"])["input_ids"], [encode(response) + [eos] for response in responses]


def unique(row):
    """Tokens with the prompt counted once, without padding."""
    prompt, responses = row
    return len(prompt) + sum(map(len, responses))


def cost(steps):
    """`steps` are pairs of seconds and unique tokens."""
    seconds, tokens = sum(s for s, _ in steps), sum(t for _, t in steps)
    return {
        "seconds_per_step": round(seconds / len(steps), 4),
        "median_seconds_per_step": round(statistics.median(s for s, _ in steps), 4),
        "unique_tokens_per_second": round(tokens / seconds, 1),
        "unique_tokens_per_step": round(tokens / len(steps), 1),
    }


def width(row):
    prompt, responses = sequences(row)
    return len(prompt) + max(map(len, responses))


def batches(rows, size):
    """Batches in random order; tuned, each has rows of like length."""
    if IS_TUNED:
        rows = sorted(rows, key=width)
    cut = [rows[start : start + size] for start in range(0, len(rows), size)]
    random.shuffle(cut)
    return cut


def padded(token_lists):
    width = max(map(len, token_lists))
    ids = torch.zeros(len(token_lists), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(token_lists):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids.to(arguments.device), mask.to(arguments.device)


def log_probabilities(model, prompts, responses):
    """Of every response token, in order, with the row each belongs to."""
    ids, mask = padded([prompt + response for prompt, response in zip(prompts, responses)])
    scored = mask.bool()
    for row, prompt in enumerate(prompts):
        scored[row, : len(prompt)] = False
    scored, targets = scored[:, 1:], ids[:, 1:]
    rows = torch.arange(len(prompts), device=ids.device).unsqueeze(1).expand_as(scored)[scored]
    if arguments.mode == "plain":
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        every = logits.float().log_softmax(-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        return every[scored], rows
    base = model.get_base_model()
    hidden = base.base_model(input_ids=ids).last_hidden_state[:, :-1][scored]
    return head(base.get_output_embeddings(), hidden, targets[scored]), rows


def head(linear, hidden, targets):
    return -F.cross_entropy(linear(hidden).float(), targets, reduction="none")


def loops(sft_rows, dpo_rows):
    model = get_peft_model(new_model(), lora(), autocast_adapter_dtype=False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, betas=BETAS)

    def descend(loss):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimiser.step()
        optimiser.zero_grad()

    def sums(batch):
        prompts = [prompt for prompt, _ in batch] * 2
        responses = [responses[side] for side in (0, 1) for _, responses in batch]
        values, rows = log_probabilities(model, prompts, responses)
        return torch.zeros(len(prompts), device=values.device).index_add(0, rows, values).view(2, -1)

    def sft(batch):
        values, _ = log_probabilities(model, [prompt for prompt, _ in batch], [r[0] for _, r in batch])
        descend(-values.mean())

    def dpo(batch, reference):
        if reference is None:
            with torch.no_grad(), model.disable_adapter():
                reference = sums(batch)
        rewards = BETA * (sums(batch) - reference)
        descend(-F.logsigmoid(rewards[0] - rewards[1]).mean())

    sft_batches = [[sequences(row) for row in batch] for batch in batches(sft_rows, arguments.sft_batch)]
    dpo_batches = [[sequences(row) for row in batch] for batch in batches(dpo_rows, arguments.dpo_batch)]
    references = [None] * len(dpo_batches)
    if IS_TUNED:
        with torch.no_grad(), model.disable_adapter():
            references = [sums(batch) for batch in dpo_batches]

    def timed():
        steps = {"sft": [], "dpo": []}
        for pair, reference, instructions in zip(dpo_batches, references, sft_batches):
            for name, step, batch in (
                ("sft", lambda: sft(instructions), instructions),
                ("dpo", lambda: dpo(pair, reference), pair),
            ):
                began = now()
                step()
                steps[name].append((now() - began, sum(map(unique, batch))))
        return {name: cost(each[1:]) for name, each in steps.items()}

    if arguments.mode != "compiled":
        return timed()
    compile_parts(model.get_base_model())
    timed()
    before = graphs()
    result = timed()
    return result | {"compiled_while_timed": graphs() - before}


def compile_parts(base):
    global head
    head = torch.compile(head, dynamic=True)
    for block in base.base_model.layers:
        block.compile(dynamic=True)


def graphs():
    """How many graphs were compiled yet."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def trainers(sft_rows, dpo_rows):
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    # Columns with a row's tokens: of SFT, and of DPO with the prompt by itself.
    TOKENS = ("input_ids", "prompt_ids", "chosen_ids", "rejected_ids")

    class Clock(TrainerCallback):
        def __init__(self):
            self.seconds = []

        def on_step_begin(self, *_, **__):
            self.began = now()

        def on_step_end(self, *_, **__):
            self.seconds.append(now() - self.began)

    def train(trainer, settings, rows, size, **options):
        clock, counted = Clock(), []
        if IS_TUNED:
            rows = [row for batch in batches(rows, size) for row in batch]
            options |= dict(gradient_checkpointing=False, train_sampling_strategy="sequential")
        with tempfile.TemporaryDirectory() as folder:
            common = dict(
                output_dir=folder, per_device_train_batch_size=size, max_steps=arguments.steps + 1,
                max_length=arguments.max_length, learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=CLIP,
                adam_beta1=BETAS[0], adam_beta2=BETAS[1], bf16=arguments.dtype == "bfloat16", use_cpu=arguments.device == "cpu",
                save_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no",
            )  # fmt: skip
            made = trainer(
                model=new_model(), args=settings(**common, **options), train_dataset=Dataset.from_list(rows), peft_config=lora(),
                processing_class=tokenizer, callbacks=[clock],
            )  # fmt: skip
            collate = made.data_collator

            def counting(rows):
                counted.append(sum(len(row[key]) for row in rows for key in TOKENS if key in row))
                return collate(rows)

            made.data_collator = counting
            made.train()
        # Reference log-probabilities are computed beforehand from the same batches.
        steps = list(zip(clock.seconds, counted[-len(clock.seconds) :], strict=True))
        # A trainer has cycles; without this its model stays while the next one trains.
        del made, collate, counting
        gc.collect()
        return cost(steps[1:])

    ahead = {"precompute_ref_log_probs": True} if IS_TUNED else {}
    return {
        "sft": train(SFTTrainer, SFTConfig, sft_rows, arguments.sft_batch),
        "dpo": train(DPOTrainer, DPOConfig, dpo_rows, arguments.dpo_batch, beta=BETA, **ahead),
    }


measure = trainers if arguments.mode.startswith("trl") else loops
result = measure(rows_of(arguments.sft), rows_of(arguments.dpo))
if arguments.device == "cpu":
    peak = 1000 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
else:
    peak = torch.cuda.max_memory_allocated()
result["peak_gb"] = round(peak / 1e9, 2)
print(json.dumps(result))
