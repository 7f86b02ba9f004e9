"""Renders every template of crates/upright-data/tests/it/templates_data/ with transformers, for crates/upright-data/tests/it/templates.rs.

    python3 -m venv venv && venv/bin/pip install transformers==5.23.0 jinja2==3.1.6
    venv/bin/python tools/templates/generate.py

Writes goldens.json beside the templates: texts, the ranges that `{% generation %}` marks (in characters), and, where a
template refuses a conversation, the message it raises. The templates are written after the public ones of the models they
are named for.
"""

import datetime
import json
import pathlib

import jinja2
import transformers
from transformers.utils import chat_template_utils

assert (transformers.__version__, jinja2.__version__) == ("5.23.0", "3.1.6"), "the versions above are pinned"

FOLDER = pathlib.Path(__file__).parents[2] / "crates/upright-data/tests/it/templates_data"
DAY = datetime.datetime(2026, 1, 31)
TOKENS = {
    "llama-2": ("<s>", "</s>"), "mistral-v1": ("<s>", "</s>"), "mistral-v3": ("<s>", "</s>"), "zephyr": ("<s>", "</s>"),
    "tinyllama": ("<s>", "</s>"), "llama-3": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama-3.2": ("<|begin_of_text|>", "<|eot_id|>"), "phi-3": ("<s>", "<|endoftext|>"), "gemma": ("<bos>", "<eos>"),
    "deepseek-v3": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseek-r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "command-r": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
}
CALL = {"type": "function", "id": "abcdef123", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <here> & there.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "strict": True},
    },
}


def say(role, content, **more):
    return {"role": role, "content": content, **more}


CONVERSATIONS = {
    "one question": ([say("user", " Hi there, é!\nHow are you? ")], None),
    "one answer": ([say("user", "Hi"), say("assistant", " Ho, 'ho' \"ho\". ")], None),
    "a system text": ([say("system", "Be kind."), say("user", "Hi"), say("assistant", "Ho")], None),
    "two turns": ([say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "<think>\nd\n</think>\n\ne")], None),
    "two turns, to be answered": ([say("user", "a"), say("assistant", "<think>x</think>b"), say("user", "c {{ d }}")], None),
    "reasoning apart": ([say("user", "a"), say("assistant", "b", reasoning_content="because")], None),
    "two users": ([say("user", "a"), say("user", "b")], None),
    "a tool called": (
        [say("user", "Rain?"), {"role": "assistant", "tool_calls": [CALL]}, say("tool", "17 degrees", tool_call_id="abcdef123"), say("assistant", "No.")],
        [TOOL],
    ),
}


class Day(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return DAY


chat_template_utils.datetime = Day


def render(template, tokens, messages, tools, generation_prompt):
    bos, eos = tokens
    try:
        texts, spans = chat_template_utils.render_jinja_template(
            [messages], tools=tools, chat_template=template, add_generation_prompt=generation_prompt, bos_token=bos, eos_token=eos,
            return_assistant_tokens_mask="{%- generation" in template,
        )
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error)}
    return {"text": texts[0]} | ({"spans": spans[0]} if spans else {})


goldens = []
for path in sorted(FOLDER.glob("*.jinja")):
    tokens = TOKENS.get(path.stem, ("<|im_start|>", "<|im_end|>"))
    for name, (messages, tools) in CONVERSATIONS.items():
        both = [render(path.read_text(), tokens, messages, tools, prompt) for prompt in (False, True)]
        goldens.append({"template": path.stem, "tokens": tokens, "conversation": name, "whole": both[0], "opened": both[1]})
found = {
    "day": DAY.strftime("%Y-%m-%d"),
    "conversations": {name: {"messages": messages, "tools": tools} for name, (messages, tools) in CONVERSATIONS.items()},
    "goldens": goldens,
}
(FOLDER / "goldens.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
