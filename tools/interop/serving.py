"""Starts `upright serve` for the checks of this folder, and talks to it without any client library."""
import contextlib, json, os, signal, socket, subprocess, sys, tempfile, time, urllib.error, urllib.request
from pathlib import Path

# A check that is terminated still ends its server.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Server:
    """A running server. `url` has no trailing slash; `model` is the id of the base model; `max_length` is its context in tokens."""

    def __init__(self, upright, model, adapters=(), words=(), env=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        command = [str(upright), "serve", "--model", str(model), "--host", "127.0.0.1", "--port", str(self.port)]
        for adapter in adapters: command += ["--adapter", adapter]
        self.process = subprocess.Popen(command + list(words), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=os.environ | (env or {}))

    def __enter__(self):
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None: self.stop()

    def wait(self, seconds=120):
        """Waits until /health answers."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if self.get("/health")[0] == 200: return
            if self.process.poll() is not None: raise SystemExit(f"FAIL: upright serve ended with exit code {self.process.returncode}:\n{self.output()}")
            if time.monotonic() > end: raise SystemExit(f"FAIL: /health did not answer within {seconds} s:\n{self.output()}")
            time.sleep(0.05)

    def stop(self, seconds=20):
        """Asks the server to stop as Ctrl-C does. Returns its exit code, or None if it had to be killed."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def output(self):
        """What the server printed so far."""
        self.log.seek(0)
        return self.log.read()[-4000:]

    def ask(self, method, path, body=None, headers=()):
        """Status and text of an answer, errors included."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **dict(headers)}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer: return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error: return error.code, error.read().decode()

    def get(self, path, **more): return self.ask("GET", path, **more)

    def post(self, path, body, **more):
        """The answer's JSON; ends the check if the status is not 200."""
        status, text = self.ask("POST", path, body, **more)
        if status != 200: raise SystemExit(f"FAIL: POST {path} {json.dumps(body)[:500]}: status {status}: {text[:1000]}")
        return json.loads(text)

    def models(self):
        """The entries of /v1/models, the base model first."""
        entries = json.loads(self.get("/v1/models")[1])["data"]
        return sorted(entries, key=lambda entry: entry.get("parent") is not None)

    @property
    def model(self): return self.models()[0]["id"]

    @property
    def max_length(self): return self.models()[0]["max_model_len"]


def upright_lines(upright, *words, **options):
    """The JSON lines that a command prints; ends the check if the command fails."""
    done = subprocess.run([str(upright), *map(str, words)], capture_output=True, text=True, **options)
    if done.returncode: raise SystemExit(f"FAIL: upright {' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def greedy(upright, model, prompts, tokens, template="raw", adapter=None, words=()):
    """The texts that `upright generate` answers, one per prompt."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.json"
        file.write_text(json.dumps(prompts))
        command = ["generate", "--model", model, "--template", template, "--prompts", file, "--max-tokens", tokens, *words]
        return [line["response"] for line in upright_lines(upright, *command, *(["--adapter", adapter] if adapter else []))]
