#!/usr/bin/env python3
"""Does `upright serve` answer good clients, byte for byte, while others misbehave? Does its memory stay level?

    python soak_server.py --upright PATH --model DIR [--seconds 60] [--seed 1] [--good 6] [--idle 10000]

Good clients ask what was asked once at the start, alone: log-probabilities of given prompts, greedy and seeded texts, streams. Each answer
must have the bytes of the first one, apart from `id` and `created`. At the same time others leave in the middle of a stream, send half a
request, send a byte per second, send malformed JSON or garbage, announce a body of 1 GiB, and keep connections open without a word.

An answer with status 503 and Retry-After is asked again and is not lost. Needs no package. The exit code is 1 on a wrong or lost answer, or if
the memory of the last third of the time exceeds that of the second third by more than a tenth and 8 MB. The first third is the warm-up.
"""
import argparse, asyncio, collections, json, os, random, resource, statistics, sys, time
from pathlib import Path
from serving import Server

PROMPTS = ["Where does Ada live?", "Ada has a", "What does Quinn keep, and where?", "Größe, 東京, 🙂", "One two three four five six"]
GIB = 1 << 30


class Counts(collections.Counter):
    """What happened, by name, and the first details of what went wrong."""

    def __init__(self):
        super().__init__()
        self.details, self.idle, self.slowest = [], 0, 0.0

    def wrong(self, name, detail):
        self[name] += 1
        if len(self.details) < 10: self.details.append(f"{name}: {detail[:1500]}")


class Connection:
    """A connection that sends requests and reads answers."""

    def __init__(self, port): self.port, self.reader, self.writer = port, None, None

    async def open(self, address="127.0.0.1"):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        return self

    def close(self):
        if self.writer: self.writer.transport.abort()
        self.reader = self.writer = None

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self):
        """Status, headers and body of the next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        if "content-length" in headers: body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                parts.append(await self.reader.readexactly(size))
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            body = b"".join(parts)
        else: body = await self.reader.read()
        return int(first.split()[1]), headers, body


def request(port, body, path="/v1/completions"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def essence(body):
    """The bytes of an answer, apart from `id` and `created`."""
    def strip(text):
        value = json.loads(text)
        value.pop("id", None)
        value.pop("created", None)
        return json.dumps(value)
    text = body.decode()
    if text.startswith("{"): return strip(text)
    # A line that begins with a colon only keeps the connection alive.
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event and not event.startswith(":")]
    # How a stream is divided into events depends on time: what its events join to does not.
    joined, tail = {}, []
    for event in events:
        if event == "[DONE]": tail.append(event); continue
        for choice in json.loads(event)["choices"]:
            entry = joined.setdefault(choice["index"], {"text": "", "reason": None, "values": []})
            entry["text"] += choice["text"]
            entry["reason"] = choice["finish_reason"] or entry["reason"]
            entry["values"] += (choice.get("logprobs") or {}).get("token_logprobs") or []
        if json.loads(event).get("usage"): tail.append(json.loads(event)["usage"])
    return json.dumps([joined, tail])


def questions(model):
    """What good clients ask."""
    score = {"model": model, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    greedy = {"model": model, "temperature": 0, "max_tokens": 24}
    found = [{**score, "prompt": prompt} for prompt in PROMPTS]
    found += [{**score, "prompt": PROMPTS}, {**score, "prompt": PROMPTS[::-1], "max_tokens": 0}]
    found += [{**greedy, "prompt": prompt} for prompt in PROMPTS[:3]]
    found += [{**greedy, "prompt": PROMPTS[1], "logprobs": 3}, {**greedy, "prompt": PROMPTS[0], "temperature": 1, "seed": 7, "n": 2}]
    found += [{**greedy, "prompt": prompt, "stream": True, "stream_options": {"include_usage": True}} for prompt in PROMPTS[:3]]
    found += [{**greedy, "prompt": PROMPTS[2], "temperature": 0.8, "seed": 9, "stream": True, "logprobs": 1}]
    return found


async def ask(connection, body, counts):
    """The answer to a question. Asks again as long as the server says that it is busy."""
    while True:
        if connection.writer is None: await connection.open()
        await connection.send(request(connection.port, body))
        status, headers, answer = await connection.answer()
        if headers.get("connection", "").lower() == "close": connection.close()
        if status != 503 or "retry-after" not in headers: return status, answer
        counts["asked again after a 503"] += 1
        await asyncio.sleep(float(headers["retry-after"]))


async def good(port, bodies, wanted, counts, seed, end):
    """Asks one question after the other, on new connections and on kept ones."""
    picks, connection = random.Random(seed), Connection(port)
    while time.monotonic() < end:
        number = picks.randrange(len(bodies))
        if picks.random() < 0.3: connection.close()
        began = time.monotonic()
        try:
            # A kept connection may end between two requests. Only a new one must not.
            kept = connection.writer is not None
            try:
                status, answer = await asyncio.wait_for(ask(connection, bodies[number], counts), 120)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                connection.close()
                if not kept or getattr(error, "partial", b""): raise
                counts["kept connections that the server had closed"] += 1
                status, answer = await asyncio.wait_for(ask(connection, bodies[number], counts), 120)
            if status == 200 and essence(answer) == wanted[number]: counts["answered"] += 1
            else: counts.wrong("wrong", f"{json.dumps(bodies[number])}: status {status}: {answer.decode(errors='replace')}; expected {wanted[number]}")
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as error:
            connection.close()
            counts.wrong("lost", f"{json.dumps(bodies[number])}: {type(error).__name__} {error} after {time.monotonic() - began:.1f} s")
        counts.slowest = max(counts.slowest, time.monotonic() - began)
    connection.close()


async def leaves(port, model, picks):
    """Leaves in the middle of a stream, or before any byte of an answer."""
    connection = await Connection(port).open("127.0.0.3")
    await connection.send(request(port, {"model": model, "prompt": picks.choice(PROMPTS), "max_tokens": 100, "temperature": 1, "stream": picks.random() < 0.7}))
    await asyncio.sleep(picks.uniform(0, 0.2))
    connection.close()


async def half(port, model, picks):
    """Half a request, then silence until the server closes the connection."""
    whole = request(port, {"model": model, "prompt": "Hi", "max_tokens": 1})
    connection = await Connection(port).open("127.0.0.3")
    await connection.send(whole[:picks.randrange(1, len(whole))])
    await asyncio.wait_for(connection.reader.read(), 90)
    connection.close()


async def slow(port, model, picks):
    """One byte per second."""
    connection = await Connection(port).open("127.0.0.3")
    try:
        for byte in request(port, {"model": model, "prompt": "Hi", "max_tokens": 1}):
            await connection.send(bytes([byte]))
            await asyncio.sleep(1)
    finally: connection.close()


async def expect_error(port, data, statuses):
    """Sends bytes. Returns a complaint, unless the server answers with one of these statuses or closes the connection."""
    connection = await Connection(port).open("127.0.0.3")
    try:
        await connection.send(data)
        status, _, body = await asyncio.wait_for(connection.answer(), 60)
        return None if status in statuses else f"{data[:100]} is answered by status {status}: {body[:300]}"
    except (asyncio.IncompleteReadError, ConnectionError): return None
    finally: connection.close()


async def malformed(port, model, picks):
    """JSON that is none, or not a request."""
    body = picks.choice([b'{"model": ', b"[" * 10_000, b"null", b'{"model": 5, "prompt": "x"}', b'{"prompt": "\xff"}', b'{"model": "nobody", "prompt": "x"}', b'{"a": 1e999}'])
    return await expect_error(port, request(port, body), (400, 404))


async def enormous(port, model, picks):
    """Announces a body of 1 GiB, and begins to send it."""
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {GIB}\r\n\r\n".encode()
    return await expect_error(port, head + b" " * picks.choice([0, 1, 100_000]), (413,))


async def garbage(port, model, picks):
    """Bytes that are not HTTP, and headers without end."""
    data = picks.choice([picks.randbytes(picks.randrange(1, 4096)) + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00" + picks.randbytes(512) + b"\r\n\r\n",
                         b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
                         b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
                         b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"])
    return await expect_error(port, data, (400, 403, 404, 405, 408, 411, 413, 414, 415, 431, 501, 505))


async def bad(act, port, model, counts, seed, end):
    """Does the same again and again."""
    picks, name = random.Random(seed), act.__name__
    while (left := end - time.monotonic()) > 0:
        try:
            complaint = await asyncio.wait_for(act(port, model, picks), left)
            counts[name] += 1
            if complaint: counts.wrong(f"{name}: unexpected answers", complaint)
        except asyncio.TimeoutError: counts[f"{name}: until the end"] += 1
        except (OSError, asyncio.IncompleteReadError): counts[f"{name}: cut off"] += 1
        await asyncio.sleep(picks.uniform(0.02, 0.2))


async def idle(port, opening, counts, end):
    """Keeps a connection open without a word. Opens another one when the server closes it."""
    while (left := end - time.monotonic()) > 0:
        connection = Connection(port)
        try:
            async with opening: await asyncio.wait_for(connection.open("127.0.0.2"), 10)
            counts["idle connections opened"] += 1
            counts.idle += 1
            counts["idle connections at most"] = max(counts["idle connections at most"], counts.idle)
            try:
                await asyncio.wait_for(connection.reader.read(), left)
            except asyncio.TimeoutError: pass
            counts.idle -= 1
        except (OSError, asyncio.TimeoutError): counts["idle connections refused"] += 1
        connection.close()
        await asyncio.sleep(1)


def status_of(pid, key):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"): return int(line.split()[1])
    return 0


async def watch(pid, series, counts, end):
    """Memory in MB, threads and open files of the server, every half second."""
    began = time.monotonic()
    while time.monotonic() < end:
        try:
            series.append((time.monotonic() - began, status_of(pid, "VmRSS") / 1024, status_of(pid, "Threads"), len(os.listdir(f"/proc/{pid}/fd")), counts.idle))
        except OSError: return
        await asyncio.sleep(0.5)


async def soak(server, args, bodies, wanted, counts, series):
    end, port, model = time.monotonic() + args.seconds, server.port, server.model
    acts = [leaves] * 3 + [half] * 20 + [slow] * 20 + [malformed] * 2 + [enormous] * 2 + [garbage] * 2
    jobs = [good(port, bodies, wanted, counts, args.seed * 1000 + i, end) for i in range(args.good)]
    jobs += [bad(act, port, model, counts, args.seed * 1000 + 500 + i, end) for i, act in enumerate(acts)]
    opening = asyncio.Semaphore(200)
    jobs += [idle(port, opening, counts, end) for _ in range(args.idle)]
    await asyncio.gather(*jobs, watch(server.process.pid, series, counts, end))


async def first_answers(port, bodies):
    """Each question alone."""
    found, counts = [], Counts()
    for body in bodies:
        connection = Connection(port)
        status, answer = await ask(connection, body, counts)
        connection.close()
        if status != 200: sys.exit(f"FAIL: {json.dumps(body)}: status {status}: {answer.decode(errors='replace')[:1000]}")
        found.append(essence(answer))
    return found


def level(series, seconds):
    """Memory after the warm-up, early and late, in MB."""
    middle = [entry[1] for entry in series if seconds / 3 <= entry[0] < seconds * 2 / 3]
    late = [entry[1] for entry in series if entry[0] >= seconds * 2 / 3]
    return statistics.median(middle), statistics.median(late)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--upright", required=True, type=Path)
    p.add_argument("--model", required=True, type=Path)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--good", type=int, default=6, help="number of good clients")
    p.add_argument("--idle", type=int, default=10_000, help="number of idle connections, as far as the limit of open files allows")
    args = p.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The server inherits the limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY: args.idle = min(args.idle, hard - 500)
    counts, series, problems = Counts(), [], []
    # Idle connections are closed after 10 s and opened again, so that every third of a minute sees it happen.
    with Server(args.upright.resolve(), args.model.resolve(), words=("--receive-timeout", "10")) as server:
        bodies = questions(server.model)
        wanted = asyncio.run(first_answers(server.port, bodies))
        asyncio.run(soak(server, args, bodies, wanted, counts, series))
        if server.process.poll() is not None: problems.append(f"the server ended with exit code {server.process.returncode}: {server.output()}")
        else:
            again = asyncio.run(first_answers(server.port, bodies))
            for body, one, other in zip(bodies, wanted, again):
                if one != other: problems.append(f"after the soak, {json.dumps(body)} is answered {other}, before it {one}")
            began, code = time.monotonic(), server.stop()
            print(f"Ctrl-C: exit code {code} after {time.monotonic() - began:.1f} s")
            if code not in (0, 130): problems.append(f"Ctrl-C: exit code {code}: {server.output()}")
    for name in sorted(counts): print(f"{name}: {counts[name]}")
    print(f"slowest answer: {counts.slowest:.1f} s")
    print("seconds, MB, threads, open files, idle connections:")
    for entry in series[::max(1, len(series) // 12)]: print("  " + "  ".join(f"{value:8.1f}" if isinstance(value, float) else f"{value:6}" for value in entry))
    if counts["answered"] == 0: problems.append("nothing was answered")
    for name in counts:
        if name in ("wrong", "lost") or "unexpected" in name: problems.append(f"{name}: {counts[name]}")
    if len(series) > 6:
        early, late = level(series, args.seconds)
        print(f"memory: {early:.1f} MB in the second third, {late:.1f} MB in the last")
        if late > early * 1.1 + 8: problems.append(f"the memory grew from {early:.1f} to {late:.1f} MB")
    for text in counts.details + problems: print(text)
    print("FAIL" if problems else "OK")
    sys.exit(bool(problems))


if __name__ == "__main__": main()
