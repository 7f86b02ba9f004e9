#!/usr/bin/env python3
"""Is one cache of downloads as good as the other, upright's and that of huggingface_hub?

    python check_hub.py UPRIGHT

A hub on this machine serves the demo's model and two files of rows as one split. Each side downloads them into a cache of its own; the
two must be the same, file by file and link by link; then each side, offline, works from the cache of the other.
"""
import os
import hashlib, http.server, json, re, subprocess, sys, tempfile, threading
from pathlib import Path

if len(sys.argv) != 2: sys.exit(__doc__)
UPRIGHT, DEMO = Path(sys.argv[1]).resolve(), Path(__file__).resolve().parents[2] / "crates/upright/demo"
COMMIT = "00112233445566778899aabbccddeeff00112233"
rows = (DEMO / "instructions.jsonl").read_bytes().splitlines(keepends=True)
FILES = {f"models/org/tiny/{path.name}": path.read_bytes() for path in sorted((DEMO / "model").iterdir())}
FILES |= {f"datasets/org/rows/data/train-0000{i}-of-00002.jsonl": b"".join(part) for i, part in enumerate([rows[:20], rows[20:50]])}
sha256 = lambda data: hashlib.sha256(data).hexdigest()
git_hash = lambda data: hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log_message = lambda *_: None

    def answer(self, status, data=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(data), "X-Repo-Commit": COMMIT, **headers}.items(): self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET": self.wfile.write(data)

    def do_GET(self):
        if found := re.fullmatch(r"/bytes/(\w+)", self.path):
            return self.answer(200, next(data for data in FILES.values() if sha256(data) == found[1]))
        if found := re.fullmatch(r"/api/((?:models|datasets)/\w+/\w+)/revision/\w+", self.path):
            names = [name.removeprefix(found[1] + "/") for name in FILES if name.startswith(found[1] + "/")]
            return self.answer(200, json.dumps(dict(sha=COMMIT, siblings=[dict(rfilename=name) for name in names])).encode())
        found = re.fullmatch(r"/(datasets/)?(\w+/\w+)/resolve/\w+/(.+)", self.path)
        data = FILES.get(f"{found[1] or 'models/'}{found[2]}/{found[3]}") if found else None
        if data is None: return self.answer(404, X_Error_Code="EntryNotFound")
        if found[3].endswith(".safetensors"):  # a large file: kept elsewhere, under its SHA-256
            return self.answer(302, Location=f"http://localhost:{server.server_port}/bytes/{sha256(data)}", X_Linked_Etag=f'"{sha256(data)}"', X_Linked_Size=len(data))
        self.answer(200, data, ETag=f'"{git_hash(data)}"')

    do_HEAD = do_GET


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
ENDPOINT = f"http://127.0.0.1:{server.server_port}"
PYTHON = """
import sys
from huggingface_hub import hf_hub_download
from transformers import AutoModelForCausalLM, AutoTokenizer
for name in sys.argv[2:]:
    kind, org, repo, file = name.split("/", 3)
    path = hf_hub_download(f"{org}/{repo}", file, repo_type=kind[:-1])
AutoTokenizer.from_pretrained("org/tiny"), AutoModelForCausalLM.from_pretrained("org/tiny")
"""


def run(side, home, offline):
    words = [UPRIGHT, "eval", "loss", "--json", "--model", "org/tiny", "--sft", "org/rows"] if side == "upright" else [sys.executable, "-c", PYTHON, "-", *FILES]
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(words, env=env | dict(HF_HOME=str(home), HF_ENDPOINT=ENDPOINT, HF_HUB_OFFLINE=str(offline), HF_HUB_DISABLE_TELEMETRY="1"), capture_output=True, text=True, cwd=home)
    if done.returncode: sys.exit(f"FAIL: {side}, offline {offline}: {done.stderr[-2000:]}")
    return done.stdout


def tree(home):
    """What a cache holds: links with where they lead, files with their hash. Locks and notes of what is not there are nobody else's business."""
    hub, found = home / "hub", {}
    for path in sorted(hub.rglob("*")):
        name = path.relative_to(hub)
        if name.parts[0].startswith(".") or len(name.parts) == 1 or name.parts[1] not in ("blobs", "refs", "snapshots"): continue
        if path.is_symlink(): found[str(name)] = f"-> {os.readlink(path)}"
        elif path.is_file(): found[str(name)] = sha256(path.read_bytes())
    return found


with tempfile.TemporaryDirectory() as top:
    ours, theirs = Path(top) / "upright", Path(top) / "python"
    for home in (ours, theirs): home.mkdir()
    result = run("upright", ours, 0)
    run("python", theirs, 0)
    a, b = tree(ours), tree(theirs)
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name): print(f"{name}: upright {a.get(name)}, huggingface_hub {b.get(name)}")
    same = a == b
    server.shutdown()
    crossed = run("upright", theirs, 1) == result
    run("python", ours, 1)
    rows = json.loads(result)["rows"]
    print(f"{len(a)} entries of the caches are {'the same' if same else 'NOT the same'}; {rows} rows of two files; offline, each works from the other's")
    good = same and crossed and rows == 50
    print("OK" if good else "FAIL")
    sys.exit(not good)
