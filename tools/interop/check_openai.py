#!/usr/bin/env python3
"""Does `upright serve` answer the openai client, the llm program and curl as they expect?

    python check_openai.py --upright PATH --model DIR [--adapter NAME=DIR ...] [--tolerance 1e-12]

Texts must be those of `upright generate`, and log-probabilities of given tokens those of `upright eval loss --per-row`, whatever else the
server does at the time. Streams must join to the answer without a stream. Errors must arrive as the client's exceptions and name the field.

Run it by a Python with requirements-clients.txt. Every check prints a line; the exit code is 1 if one fails.
"""
import argparse, json, os, random, re, shutil, socket, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import openai
from serving import Server, greedy, upright_lines

KEY = "a-key-for-the-check"
PROMPTS = ["Where does Ada live?", "Ada has a", "Größe, naïve, 東京, 🙂: Quinn"]
ROWS = [("Where does Ada live?", " By the old bridge."), ("What does Quinn keep?", " A parrot called Radish."), ("Where does Ada work?", " At the mill, I think, or in the garden."),
        ("Where does Ada live?", " In Größe."), ("Hi", " Ho"), ("One two three four five six seven eight nine ten", " eleven twelve")]
failed = []


def check(name, holds, detail=""):
    """Prints a line. The detail is printed of a failed check only."""
    print(f"{'ok  ' if holds else 'FAIL'} {name}" + ("" if holds or detail == "" else f": {str(detail)[:1500]}"), flush=True)
    if not holds: failed.append(name)


def section(function, *arguments):
    """A section that ends by an exception is a failed check; the next one goes on."""
    try:
        function(*arguments)
    except Exception as error:
        check(f"{function.__name__} runs to its end", False, f"{type(error).__name__}: {error}")


def raises(name, kind, call, field=None, code=None):
    """The call raises this exception of the client, which names the field in `param`."""
    try:
        answer = call()
    except kind as error:
        body = error.body if isinstance(error.body, dict) else {}
        check(f"{name}: {kind.__name__}", (field is None or error.param == field) and (code is None or error.code == code) and bool(body.get("message")),
              f"expected the field {field} and the code {code}, got param {error.param}, code {error.code}, {error.message}")
    except Exception as error:
        check(f"{name}: {kind.__name__}", False, f"got {type(error).__name__}: {error}")
    else: check(f"{name}: {kind.__name__}", False, f"no error, but {answer}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--upright", required=True, type=Path)
    p.add_argument("--model", required=True, type=Path)
    p.add_argument("--adapter", action="append", default=[], metavar="NAME=DIR")
    p.add_argument("--tolerance", type=float, default=1e-12, help="largest relative difference of a response's log-probability to upright eval loss")
    args = p.parse_args()
    upright, model = args.upright.resolve(), args.model.resolve()
    adapters = {}
    for adapter in args.adapter:
        name, folder = adapter.split("=", 1)
        adapters[name] = Path(folder).resolve()
    flags = [f"{name}={folder}" for name, folder in adapters.items()]
    with Server(upright, model, flags) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120)
        section(models, client, server, adapters)
        section(tokenizer_routes, server)
        for name, adapter in {server.model: None, **adapters}.items():
            section(completions, client, name, upright, model, adapter)
            section(sums, client, name, upright, model, adapter, args.tolerance)
        section(log_probabilities, client, server.model)
        section(echo, client, server.model, server)
        section(sampling, client, server.model, upright, model)
        section(stops, client, server.model)
        section(lists, client, server.model)
        section(errors, client, server)
        section(chat, client, server, upright, model)
        section(raw, server)
        section(llm, server)
        section(other_routes, server)
        check("the server still answers", client.completions.create(model=server.model, prompt="Hi", max_tokens=1).usage.completion_tokens == 1)
        code = server.stop()
        check("Ctrl-C ends the server", code in (0, 130), f"exit code {code}")
    if adapters:
        folder = next(iter(adapters.values()))
        with Server(upright, model, words=["--allow-adapters", str(folder.parent)]) as server: section(loading, server, folder)
    with Server(upright, model, words=["--api-key-env", "CHECK_KEY"], env={"CHECK_KEY": KEY}) as server: section(keys, server)
    print(f"FAIL: {len(failed)} checks: " + ", ".join(failed) if failed else "OK")
    sys.exit(bool(failed))


def models(client, server, adapters):
    listed = list(client.models.list())
    base = [entry for entry in listed if entry.model_extra.get("parent") is None]
    check("models: one base", len(base) == 1, listed)
    check("models: the adapters, with the base as parent", {entry.id for entry in listed if entry.model_extra.get("parent") == base[0].id} == set(adapters), listed)
    check("models: object, owner and max_model_len", all(entry.object == "model" and entry.owned_by and entry.model_extra["max_model_len"] > 0 for entry in listed), listed)
    for entry in listed: check(f"models: {entry.id} by its name", client.models.retrieve(entry.id) == entry)
    raises("models: an unknown name", openai.NotFoundError, lambda: client.models.retrieve("nobody"), code="model_not_found")


def tokenizer_routes(server):
    info = json.loads(server.get("/tokenizer_info")[1])
    check("tokenizer_info: its keys", {"bos_token", "eos_token", "pad_token", "chat_template"} <= info.keys(), info)
    for prompt in PROMPTS:
        answer = server.post("/tokenize", {"prompt": prompt, "add_special_tokens": False})
        check(f"tokenize {prompt!r}: count and max_model_len", answer["count"] == len(answer["tokens"]) and answer["max_model_len"] == server.max_length, answer)
        back = server.post("/detokenize", {"tokens": answer["tokens"]})
        check(f"detokenize {prompt!r}", back["prompt"] == prompt, back)
    eos = server.post("/tokenize", {"prompt": info["eos_token"], "add_special_tokens": False})["tokens"]
    check("tokenize: the EOS token is one token", len(eos) == 1, eos)
    for path, body in (("/tokenize", {}), ("/detokenize", {"tokens": [10**9]}), ("/detokenize", {"tokens": "x"})):
        status, text = server.ask("POST", path, body)
        check(f"{path} {body}: status 400", status == 400 and json.loads(text)["error"]["message"], f"{status} {text}")


def completions(client, name, upright, model, adapter):
    """Greedy texts, without and with a stream, are those of `upright generate`."""
    wanted = greedy(upright, model, PROMPTS, 24, adapter=adapter)
    for prompt, want in zip(PROMPTS, wanted):
        answer = client.completions.create(model=name, prompt=prompt, max_tokens=24, temperature=0)
        choice, usage = answer.choices[0], answer.usage
        check(f"{name}: {prompt!r}: upright generate's text", choice.text == want, f"{choice.text!r}, not {want!r}")
        check(f"{name}: {prompt!r}: names, reason and usage", answer.object == "text_completion" and answer.model == name and choice.index == 0 and choice.logprobs is None
              and choice.finish_reason == ("length" if usage.completion_tokens == 24 else "stop") and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, answer)
        chunks = list(client.completions.create(model=name, prompt=prompt, max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}))
        pieces = [chunk.choices[0] for chunk in chunks if chunk.choices]
        check(f"{name}: {prompt!r}: the stream joins to the text", "".join(piece.text for piece in pieces) == want, [piece.text for piece in pieces])
        check(f"{name}: {prompt!r}: more than one piece", len(pieces) > 2, len(pieces))
        check(f"{name}: {prompt!r}: the reason comes last", [piece.finish_reason for piece in pieces if piece.finish_reason] == [choice.finish_reason] and pieces[-1].finish_reason == choice.finish_reason, pieces)
        check(f"{name}: {prompt!r}: the last chunk has the usage", chunks[-1].choices == [] and chunks[-1].usage == usage and all(chunk.usage is None for chunk in chunks[:-1]), chunks[-1])
        silent = list(client.completions.create(model=name, prompt=prompt, max_tokens=3, temperature=0, stream=True))
        check(f"{name}: {prompt!r}: no usage unless asked", all(chunk.choices and chunk.usage is None for chunk in silent), silent)


def parts(logprobs):
    """What a choice says of its tokens."""
    return (logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, logprobs.text_offset)


def log_probabilities(client, name):
    ask = dict(model=name, prompt=PROMPTS[0], max_tokens=12, temperature=0)
    choice = client.completions.create(**ask, logprobs=3).choices[0]
    tokens, own, top, offsets = parts(choice.logprobs)
    check("logprobs: one entry per token", len(tokens) == len(own) == len(top) == len(offsets), choice.logprobs)
    check("logprobs: the tokens join to the text", "".join(tokens) == choice.text, tokens)
    check("logprobs: the chosen token is the likeliest", all(value <= 0 and value == max(entry.values()) for value, entry in zip(own, top)), choice.logprobs)
    check("logprobs: three entries, in order", all(len(entry) == 3 and list(entry.values()) == sorted(entry.values(), reverse=True) for entry in top), top)
    check("logprobs: offsets point at tokens", all(choice.text[offset - offsets[0]:].startswith(token) for token, offset in zip(tokens, offsets)), offsets)
    streamed = [chunk.choices[0].logprobs for chunk in client.completions.create(**ask, logprobs=3, stream=True) if chunk.choices]
    joined = [sum((list(parts(piece)[i] or []) for piece in streamed if piece), []) for i in range(4)]
    for part, one, other in zip(("tokens", "token_logprobs", "top_logprobs", "text_offset"), joined, (tokens, own, top, offsets)):
        check(f"logprobs: the stream's {part} are the same", one == other, f"{one} in the stream, {other} without")
    plain = client.completions.create(**ask, logprobs=0).choices[0].logprobs
    check("logprobs=0: the chosen tokens alone", plain is not None and plain.token_logprobs == own, plain)
    sampled = client.completions.create(**(ask | {"temperature": 1.5, "seed": 5}), logprobs=2).choices[0].logprobs
    check("logprobs: of a sampled token too", all(token in entry and entry[token] == value and len(entry) <= 3 for token, value, entry in zip(sampled.tokens, sampled.token_logprobs, sampled.top_logprobs)), sampled)


def echo(client, name, server):
    for prompt in PROMPTS:
        count = server.post("/tokenize", {"prompt": prompt, "add_special_tokens": True})["count"]
        for tokens in (0, 1, 3):
            choice = client.completions.create(model=name, prompt=prompt, max_tokens=tokens, temperature=0, echo=True, logprobs=1).choices[0]
            said, own, top, offsets = parts(choice.logprobs)
            about = f"echo {prompt!r}, {tokens} new tokens"
            check(f"{about}: one entry per token", len(said) == len(own) == len(top) == len(offsets) == count + tokens, choice.logprobs)
            check(f"{about}: the first has no value", own[0] is None and not top[0] and all(value is not None for value in own[1:]), own)
            check(f"{about}: the text begins with the prompt", choice.text.startswith(prompt) and (tokens > 0 or choice.text == prompt), choice.text)
            # Bytes of an unfinished character are several tokens with one text. The likeliest of them is listed under it.
            check(f"{about}: the token's own value is among the top", all(entry and value <= entry[text] and (value == entry[text] or "\ufffd" in text)
                                                                          for text, value, entry in zip(said[1:], own[1:], top[1:])), top)
            check(f"{about}: offsets count characters", offsets[0] == 0 and offsets == sorted(offsets) and offsets[-1] <= len(choice.text)
                  and all(choice.text[offset:].startswith(token) for token, offset in zip(said, offsets) if token.isascii() and not token.startswith("bytes:")), (said, offsets))
    whole = client.completions.create(model=name, prompt=PROMPTS[0], max_tokens=0, temperature=0, echo=True)
    check("echo without logprobs", whole.choices[0].text == PROMPTS[0] and whole.choices[0].logprobs is None and whole.usage.completion_tokens == 0, whole)


def sums(client, name, upright, model, adapter, tolerance):
    """Sums of echoed log-probabilities are those of `upright eval loss`: alone, in a list, and beside other requests."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in ROWS))
        lines = upright_lines(upright, "eval", "loss", "--model", model, "--sft", file, "--template", "raw", "--per-row", "--ids", *(["--adapter", adapter] if adapter else []))
    rows = [(line["ids"]["prompt"], line["ids"]["response"], line["logp"]["response"]) for line in lines]

    def ask(indices, tokens=1):
        prompts = [rows[i][0] + rows[i][1] for i in indices]
        answer = client.completions.create(model=name, prompt=prompts if len(prompts) > 1 else prompts[0], max_tokens=tokens, temperature=0, echo=True, logprobs=1)
        choices = sorted(answer.choices, key=lambda choice: choice.index)
        return {i: choice.logprobs.token_logprobs[:len(prompt)] for i, choice, prompt in zip(indices, choices, prompts, strict=True)}

    alone, worst = {}, 0.0
    for i, (prompt, response, want) in enumerate(rows):
        alone |= ask([i])
        total = 0.0
        for value in alone[i][len(prompt):]: total += value
        worst = max(worst, abs(total / want - 1))
    check(f"{name}: sums of {len(rows)} echoed rows are those of upright eval loss", len(rows) == len(ROWS) and worst <= tolerance, f"relative difference {worst:.1e}")
    check(f"{name}: the same without a new token", all(ask([i], tokens=0)[i] == alone[i] for i in alone))
    check(f"{name}: the same bits in a list", ask(list(alone)) == alone)
    check(f"{name}: the same bits in a list in reverse order", ask(list(alone)[::-1]) == alone)
    picks = random.Random(1)
    jobs = [picks.sample(list(alone), picks.randint(1, len(alone))) for _ in range(24)]
    with ThreadPoolExecutor(8) as pool: answers = list(pool.map(ask, jobs))
    check(f"{name}: the same bits in 24 concurrent requests", all(answer[i] == alone[i] for answer in answers for i in answer))


def sampling(client, name, upright, model):
    ask = dict(model=name, prompt=PROMPTS[1], max_tokens=16, temperature=1)
    texts = lambda **more: [choice.text for choice in sorted(client.completions.create(**ask, **more).choices, key=lambda choice: choice.index)]
    three = texts(n=3, seed=7)
    check("n=3: three texts", len(three) == 3 and len(set(three)) > 1, three)
    check("n=3: the same seed gives the same texts", texts(n=3, seed=7) == three)
    check("seed: another seed gives another text", texts(seed=8) != texts(seed=7))
    check("seed: without one, texts differ", len({texts()[0] for _ in range(4)}) > 1)
    want = greedy(upright, model, [PROMPTS[1]], 16, words=["--temperature", "1", "--seed", "7"])
    check("seed: upright generate's text", texts(seed=7) == want, f"{texts(seed=7)}, not {want}")
    want = greedy(upright, model, [PROMPTS[1]], 16, words=["--temperature", "0.7", "--top-p", "0.6", "--seed", "7"])
    got = client.completions.create(**(ask | {"temperature": 0.7}), top_p=0.6, seed=7).choices[0].text
    check("top_p: upright generate's text", [got] == want, f"{got}, not {want}")
    with ThreadPoolExecutor(8) as pool: crowd = list(pool.map(lambda seed: texts(seed=seed)[0], [7] * 8 + list(range(8))))
    check("seed: the same text beside other requests", set(crowd[:8]) == {texts(seed=7)[0]}, crowd[:8])
    streams = {0: "", 1: "", 2: ""}
    for chunk in client.completions.create(**ask, n=3, seed=7, stream=True):
        for choice in chunk.choices: streams[choice.index] += choice.text
    check("n=3: streams join to the texts", list(streams.values()) == three, streams)
    default = client.completions.create(model=name, prompt=PROMPTS[0], seed=1)
    check("max_tokens is 16 unless given", default.usage.completion_tokens == 16 or default.choices[0].finish_reason == "stop", default.usage)
    neutral = client.completions.create(model=name, prompt=PROMPTS[0], max_tokens=4, temperature=0, frequency_penalty=0, presence_penalty=0, user="somebody", suffix=None, logit_bias=None)
    check("fields without an effect are allowed", neutral.choices[0].text == client.completions.create(model=name, prompt=PROMPTS[0], max_tokens=4, temperature=0).choices[0].text)
    ids = client.completions.create(model=name, prompt=PROMPTS[0], max_tokens=4, temperature=0, extra_body={"return_token_ids": True}).choices[0]
    check("return_token_ids", len(ids.model_extra.get("token_ids", [])) == 4, ids)


def stops(client, name):
    ask = dict(model=name, prompt=PROMPTS[0], max_tokens=24, temperature=0)
    text = client.completions.create(**ask).choices[0].text
    for stop in (text[6:9], [text[10:12], "never said"], [text[12:17], text[8:10]], text[:1]):
        ends = [text.find(one) for one in ([stop] if isinstance(stop, str) else stop) if one in text]
        choice = client.completions.create(**ask, stop=stop).choices[0]
        check(f"stop {stop!r}: the text before it", choice.text == text[:min(ends)] and choice.finish_reason == "stop", f"{choice.text!r} of {text!r}, {choice.finish_reason}")
        pieces = [chunk.choices[0] for chunk in client.completions.create(**ask, stop=stop, stream=True) if chunk.choices]
        check(f"stop {stop!r}: the stream stops there too", "".join(piece.text for piece in pieces) == choice.text and pieces[-1].finish_reason == "stop", [piece.text for piece in pieces])
    held = "".join(chunk.choices[0].text for chunk in client.completions.create(**ask, stop=text[5:9] + "~", stream=True) if chunk.choices)
    check("stop: text that only begins like a stop comes out", held == text, held)


def lists(client, name):
    single = [client.completions.create(model=name, prompt=prompt, max_tokens=8, temperature=0).choices[0].text for prompt in PROMPTS]
    many = client.completions.create(model=name, prompt=PROMPTS, max_tokens=8, temperature=0)
    check("a list of prompts", [choice.text for choice in sorted(many.choices, key=lambda choice: choice.index)] == single, many.choices)
    pairs = client.completions.create(model=name, prompt=PROMPTS, max_tokens=4, temperature=1, seed=3, n=2)
    check("a list of prompts with n=2", sorted(choice.index for choice in pairs.choices) == list(range(6)), pairs.choices)
    streams = {}
    for chunk in client.completions.create(model=name, prompt=PROMPTS, max_tokens=8, temperature=0, stream=True):
        for choice in chunk.choices: streams[choice.index] = streams.get(choice.index, "") + choice.text
    check("a list of prompts, streamed", [streams[i] for i in sorted(streams)] == single, streams)


def errors(client, server):
    name = server.model
    ask = lambda **more: client.completions.create(**({"model": name, "prompt": "Hi", "max_tokens": 2} | more))
    raises("an unknown model", openai.NotFoundError, lambda: ask(model="nobody"), code="model_not_found")
    for field, value in {"suffix": "x", "logit_bias": {"1": 5}, "frequency_penalty": 0.5, "presence_penalty": -0.5, "best_of": 3}.items():
        raises(f"unsupported {field}={value}", openai.BadRequestError, lambda: ask(**{field: value}), field)
    for field, value in {"guided_json": {}, "temprature": 1, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1}.items():
        raises(f"unknown {field}={value}", openai.BadRequestError, lambda: ask(extra_body={field: value}), field)
    for field, value in {"temperature": -1, "top_p": 1.5, "logprobs": 21, "n": 0, "max_tokens": -1, "stop": 5, "seed": "x", "stream": "yes", "echo": "yes", "prompt": 5}.items():
        raises(f"bad {field}={value}", openai.BadRequestError, lambda: ask(**{field: value}), field)
    raises("no prompts", openai.BadRequestError, lambda: ask(prompt=[]), "prompt")
    for ids in ([10**6], [-1], [2**40], [1.5], [[1], [10**6]], [1, "x"], [[1], "x"]):
        raises(f"token ids {ids}", openai.BadRequestError, lambda: ask(prompt=ids), "prompt")
    long = [server.post("/tokenize", {"prompt": "a", "add_special_tokens": False})["tokens"][0]] * server.max_length
    raises("a prompt beyond the context", openai.BadRequestError, lambda: ask(prompt=long + long), code="context_length_exceeded")
    raises("a prompt that leaves no room", openai.BadRequestError, lambda: ask(prompt=long, max_tokens=2), code="context_length_exceeded")
    raises("an unknown adapter in a chat", openai.NotFoundError, lambda: client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hi"}]), code="model_not_found")


def chat(client, server, upright, model):
    name, message = server.model, [{"role": "user", "content": "Where does Ada live?"}]
    ask = dict(model=name, messages=message, max_tokens=16, temperature=0)
    if not json.loads(server.get("/tokenizer_info")[1])["chat_template"]: return print("--   the model has no chat template: chats are not checked")
    answer = client.chat.completions.create(**ask)
    choice = answer.choices[0]
    want, = greedy(upright, model, [message[0]["content"]], 16, template="chat")
    check("chat: upright generate's text", choice.message.content == want and choice.message.role == "assistant", f"{choice.message}, not {want!r}")
    check("chat: names, reason and usage", answer.object == "chat.completion" and answer.model == name and choice.finish_reason in ("stop", "length") and answer.usage.completion_tokens <= 16, answer)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    check("chat: the stream's first delta has the role", deltas[0].delta.role == "assistant" and chunks[0].object == "chat.completion.chunk", deltas[0])
    check("chat: the stream joins to the text", "".join(delta.delta.content or "" for delta in deltas) == want, deltas)
    check("chat: the reason comes last", [delta.finish_reason for delta in deltas if delta.finish_reason] == [deltas[-1].finish_reason] == [choice.finish_reason], deltas[-1])
    check("chat: the last chunk has the usage", chunks[-1].choices == [] and chunks[-1].usage == answer.usage, chunks[-1])
    parted = client.chat.completions.create(**(ask | {"messages": [{"role": "user", "content": [{"type": "text", "text": "Where does "}, {"type": "text", "text": "Ada live?"}]}]}))
    check("chat: content in text parts", parted.choices[0].message.content is not None and parted.usage.prompt_tokens >= answer.usage.prompt_tokens, parted)
    seen = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2).choices[0]
    eos = json.loads(server.get("/tokenizer_info")[1])["eos_token"]
    # The last token may be the EOS token, which is not a part of the text.
    check("chat: logprobs join to the text", "".join(entry.token for entry in seen.logprobs.content) in (want, want + eos) and all(len(entry.top_logprobs) == 2 and entry.logprob == entry.top_logprobs[0].logprob for entry in seen.logprobs.content), seen.logprobs)
    check("chat: their bytes too", b"".join(bytes(entry.bytes) for entry in seen.logprobs.content).decode() in (want, want + eos))
    streamed = [chunk.choices[0].logprobs for chunk in client.chat.completions.create(**ask, logprobs=True, top_logprobs=2, stream=True) if chunk.choices]
    check("chat: the stream's logprobs are the same", [entry for piece in streamed if piece and piece.content for entry in piece.content] == seen.logprobs.content)
    both = client.chat.completions.create(**(ask | {"temperature": 1}), n=2, seed=7)
    check("chat: n=2 and a seed", [choice.index for choice in both.choices] == [0, 1] and [c.message.content for c in both.choices] == [c.message.content for c in client.chat.completions.create(**(ask | {"temperature": 1}), n=2, seed=7).choices], both)
    stopped = client.chat.completions.create(**ask, stop=[want[4:7]]).choices[0]
    check("chat: stop", stopped.message.content == want[:want.find(want[4:7])] and stopped.finish_reason == "stop", stopped)
    short = client.chat.completions.create(model=name, messages=message, max_completion_tokens=2, temperature=0)
    check("chat: max_completion_tokens", short.usage.completion_tokens <= 2, short.usage)
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, *message]
    check("chat: earlier turns are read", client.chat.completions.create(**(ask | {"messages": talk})).usage.prompt_tokens > answer.usage.prompt_tokens)
    for field, value in {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "response_format": {"type": "json_object"}, "logit_bias": {"1": 5}, "frequency_penalty": 1, "reasoning_effort": "low"}.items():
        raises(f"chat: unsupported {field}", openai.BadRequestError, lambda: client.chat.completions.create(**ask, **{field: value}), field)
    raises("chat: an image", openai.BadRequestError, lambda: client.chat.completions.create(**(ask | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]})))
    raises("chat: no messages", openai.BadRequestError, lambda: client.chat.completions.create(**(ask | {"messages": []})), "messages")
    raises("chat: top_logprobs without logprobs", openai.BadRequestError, lambda: client.chat.completions.create(**ask, top_logprobs=2), "top_logprobs")


def curl(server, path, *words, data=None):
    """Status and text of what curl gets. Data is declared as JSON, unless the words declare it otherwise."""
    if data is not None: words = (*(() if any("Content-Type" in word for word in words) else ("-H", "Content-Type: application/json")), "--data-binary", "@-", *words)
    done = subprocess.run(["curl", "-s", "-S", "-m", "60", "-w", "\n%{http_code}", *words, server.url + path], input=data, capture_output=True)
    text, _, status = done.stdout.decode(errors="replace").rpartition("\n")
    return int(status or 0), text or done.stderr.decode()


def is_error(status, text, *wanted):
    """The status is one of those, and the body is an error in OpenAI's form."""
    try:
        return status in wanted and bool(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError): return False


def raw(server):
    path, good = "/v1/completions", json.dumps({"model": server.model, "prompt": "Hi", "max_tokens": 1}).encode()
    for name, data in {"malformed JSON": b'{"model": ', "an empty body": b"", "a list": b"[]", "not UTF-8": b'{"model": "\xff"}', "deep nesting": b"[" * 100_000, "text after the object": good + b"x"}.items():
        status, text = curl(server, path, data=data)
        check(f"curl: {name}: status 400", is_error(status, text, 400), f"{status} {text}")
    status, text = curl(server, path, "-H", "Expect:", data=b'{"prompt": "' + b"a" * (256 << 20) + b'"}')
    # curl may see the connection end before it reads the answer.
    check("curl: a body of 256 MiB: status 413, or the connection ends", status in (413, 0), f"{status} {text}")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as stream:
        stream.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\nContent-Length: {1 << 30}\r\n\r\n{{".encode())
        began, answer = time.monotonic(), stream.recv(4096)
        check("a Content-Length of 1 GiB is answered by status 413 before the body", b" 413 " in answer.split(b"\r\n")[0] and time.monotonic() - began < 5, answer)
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example"):
        status, text = curl(server, "/v1/models", "-H", f"Host: {host}")
        check(f"curl: Host: {host}: status 403", status == 403, f"{status} {text}")
    for host in ("localhost", "127.0.0.1"): check(f"curl: Host: {host} is allowed", curl(server, "/v1/models", "-H", f"Host: {host}:{server.port}")[0] == 200)
    status, text = curl(server, "/v1/nothing")
    check("curl: an unknown route: status 404", is_error(status, text, 404), f"{status} {text}")
    status, text = curl(server, path)
    check("curl: GET of a POST route: status 405", status == 405, f"{status} {text}")
    status, text = curl(server, path, "-H", "Content-Type: text/plain", data=good)
    check("curl: any content type, or status 415", status in (200, 415), f"{status} {text}")
    status, text = curl(server, path, "-H", "Transfer-Encoding: chunked", data=good)
    check("curl: a chunked body", status == 200, f"{status} {text}")
    status, text = curl(server, path, "-N", data=good.replace(b'"max_tokens": 1', b'"max_tokens": 2, "stream": true'))
    check("curl: a stream ends with [DONE]", status == 200 and text.rstrip().endswith("data: [DONE]") and all(line == "" or line.startswith(("data: ", ":")) for line in text.splitlines()), text)
    status, text = curl(server, path, data=b'{"model": "%s", "prompt": [[999999999]]}' % server.model.encode())
    check("curl: a token id out of range: status 400, which names it", is_error(status, text, 400) and "999999999" in text, f"{status} {text}")


def llm(server):
    program = shutil.which("llm", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None: return check("llm is installed", False, "requirements-clients.txt has it")
    with tempfile.TemporaryDirectory() as folder:
        entries = [{"model_id": f"{kind}-check", "model_name": server.model, "api_base": f"{server.url}/v1", **({"completion": True} if kind == "plain" else {})} for kind in ("plain", "chat")]
        # JSON is YAML.
        (Path(folder) / "extra-openai-models.yaml").write_text(json.dumps(entries))
        kinds = ["plain"] + (["chat"] if json.loads(server.get("/tokenizer_info")[1])["chat_template"] else [])
        for kind in kinds:
            for flag in ([], ["--no-stream"]):
                words = [program, "-m", f"{kind}-check", "--key", "none", "--no-log", "-o", "max_tokens", "8", "-o", "temperature", "0", *flag, PROMPTS[0]]
                done = subprocess.run(words, env=os.environ | {"LLM_USER_PATH": folder}, capture_output=True, text=True, stdin=subprocess.DEVNULL)
                check(f"llm: {kind}{' '.join(['', *flag])}", done.returncode == 0 and done.stdout.strip() != "", done.stdout + done.stderr)


def other_routes(server):
    status, text = server.get("/version")
    check("version", status == 200 and "version" in json.loads(text), text)
    status, text = server.get("/metrics")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    # A value in quotes may hold a brace: the route of a model is "/v1/models/{*name}".
    label = r'\w+="(?:[^"\\]|\\.)*"'
    sample = re.compile(rf"[a-zA-Z_:][\w:]*(?:\{{{label}(?:,{label})*\}})? [-+.\deEinfNa]+")
    unread = [line for line in lines if not sample.fullmatch(line)]
    check("metrics: Prometheus text", status == 200 and lines and not unread, "\n".join(unread) or text)
    check("metrics: requests were counted", any("request" in line and float(line.rsplit(" ", 1)[1]) > 0 for line in lines), text)


def loading(server, folder):
    """An adapter is loaded by curl and by the client, is listed and answers, and is unloaded."""
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    body = {"lora_name": "loaded", "lora_path": folder.name}
    status, text = curl(server, "/v1/load_lora_adapter", data=json.dumps(body).encode())
    check("load by curl: vLLM's answer", status == 200 and text == "Success: LoRA adapter 'loaded' added successfully.", f"{status} {text}")
    text = client.post("/load_lora_adapter", body={"lora_name": "again", "lora_path": str(folder)}, cast_to=str)
    check("load by the client", text == "Success: LoRA adapter 'again' added successfully.", text)
    listed = {entry.id: entry.model_extra["parent"] for entry in client.models.list()}
    check("load: both are listed with their parent", listed == {server.model: None, "loaded": server.model, "again": server.model}, listed)
    texts = [client.completions.create(model=name, prompt=PROMPTS[0], max_tokens=12, temperature=0, logprobs=1).choices[0] for name in ("loaded", "again")]
    check("load: one folder, one answer", texts[0] == texts[1], texts)
    raises("load: a name in use", openai.BadRequestError, lambda: client.post("/load_lora_adapter", body=body, cast_to=str), "lora_name")
    raises("load: a path elsewhere", openai.PermissionDeniedError, lambda: client.post("/load_lora_adapter", body=body | {"lora_name": "x", "lora_path": "/etc"}, cast_to=str), "lora_path")
    status, text = curl(server, "/v1/unload_lora_adapter", data=b'{"lora_name": "loaded"}')
    check("unload by curl: vLLM's answer", status == 200 and text == "Success: LoRA adapter 'loaded' removed successfully.", f"{status} {text}")
    raises("unload: the name is gone", openai.NotFoundError, lambda: client.completions.create(model="loaded", prompt="Hi"), code="model_not_found")
    raises("unload: twice", openai.NotFoundError, lambda: client.post("/unload_lora_adapter", body={"lora_name": "loaded"}, cast_to=str), "lora_name")
    raises("unload: the base", openai.BadRequestError, lambda: client.post("/unload_lora_adapter", body={"lora_name": server.model}, cast_to=str), "lora_name")


def keys(server):
    for key in ("wrong", "none", KEY + "x"):
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
        raises(f"the API key {key!r}", openai.AuthenticationError, lambda: client.models.list(), code="invalid_api_key")
        raises(f"the API key {key!r} in a completion", openai.AuthenticationError, lambda: client.completions.create(model="any", prompt="Hi"))
    status, text = server.ask("POST", "/tokenize", {"prompt": "Hi"})
    check("no API key: the tokenizer routes answer 401 too", is_error(status, text, 401), f"{status} {text}")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    name = next(iter(client.models.list())).id
    check("the right API key", client.completions.create(model=name, prompt="Hi", max_tokens=1).choices[0] is not None)
    check("the key is not printed", KEY not in server.output())


if __name__ == "__main__": main()
