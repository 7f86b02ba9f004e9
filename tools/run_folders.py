"""Compares run folders, for the checks in this folder. Equal runs have equal folders, except for times."""

import json
import struct

# Keys of steps.jsonl that may differ between equal runs (upright_runs::records::TIMES).
TIMES = ["seconds", "tokens_per_second", "utilization", "peak_memory_gb", "energy_joules"]


def contents(folder, settings=()):
    """Every file of a run folder by its name, as far as equal runs have to agree (runs_fixture/mod.rs, `contents`). Lines of
    `settings` are left out of config.toml and plan.toml."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            files[name + "/"] = b""
        elif name != ".lock":
            files[name] = path.read_bytes()
    if "steps.jsonl" in files:
        lines = []
        for line in files["steps.jsonl"].decode().splitlines():
            lines.append(json.dumps({key: value for key, value in json.loads(line).items() if key not in TIMES}))
        files["steps.jsonl"] = "\n".join(lines).encode()
    for name in ("config.toml", "plan.toml"):
        if name in files:
            lines = files[name].decode().splitlines()
            kept = [line for line in lines if not any(line.startswith(f"{key} =") for key in settings)]
            files[name] = "\n".join(kept).encode()
    return files


def tensors(data):
    """Values of a safetensors file, without their shapes: numbers of every F32 tensor, and bytes of any other."""
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            part = body[slice(*entry["data_offsets"])]
            found[name] = struct.unpack(f"<{len(part) // 4}f", part) if entry["dtype"] == "F32" else part
    return found


def difference(name, left, right):
    """One line on the first difference of two files."""
    if name.endswith(".safetensors"):
        try:
            a, b = tensors(left), tensors(right)
        except (ValueError, struct.error) as error:
            return f"{name}: not a safetensors file: {error}"
        for tensor in sorted(set(a) | set(b)):
            x, y = a.get(tensor), b.get(tensor)
            if x is None or y is None or len(x) != len(y):
                return f"{name}: {tensor} is missing on one side, or has another size"
            places = [index for index in range(len(x)) if x[index] != y[index]]
            if places:
                first = places[0]
                return f"{name}: {tensor}: {len(places)} of {len(x)} values differ, first [{first}]: {x[first]!r} and {y[first]!r}"
        return f"{name}: the header differs"
    a, b = left.decode(errors="replace").splitlines(), right.decode(errors="replace").splitlines()
    for index, (x, y) in enumerate(zip(a, b)):
        if x != y:
            if name.endswith(".jsonl"):
                x, y = json.loads(x), json.loads(y)
                keys = [key for key in dict.fromkeys([*x, *y]) if x.get(key) != y.get(key)]
                values = "; ".join(f"{key}: {x.get(key)!r} and {y.get(key)!r}" for key in keys[:4])
                return f"{name}: line {index + 1}: {values}"
            return f"{name}: line {index + 1}: {x[:200]!r} and {y[:200]!r}"
    return f"{name}: {len(a)} and {len(b)} lines"


def compared(left, right, settings=()):
    """The number of files of two run folders, and a line for every one that differs. The smallest files come first."""
    a, b = contents(left, settings), contents(right, settings)
    found = [f"{name}: only in {left if name in a else right}" for name in sorted(set(a) ^ set(b))]
    names = [name for name in a if name in b and a[name] != b[name]]
    names.sort(key=lambda name: (name != "steps.jsonl", name != "evals.jsonl", name))
    found += [difference(name, a[name], b[name]) for name in names]
    return len(set(a) | set(b)), found
