"""Reads a run's event files with TensorBoard's own reader and compares them with the run's records.

    python3 -m venv venv && venv/bin/pip install tensorboard==2.21.0 'setuptools<81'
    upright train ... --tensorboard --out RUN
    venv/bin/python tools/interop/read_tensorboard.py RUN
"""

import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing import event_accumulator

run = pathlib.Path(sys.argv[1])
events = event_accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()


def numbers(tag, value):
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield from numbers(f"{tag}/{index}", entry)
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield from numbers(f"{tag}/{name}", entry)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield tag, value


expected = {}
for name in ["steps.jsonl", "evals.jsonl"]:
    for line in map(json.loads, (run / name).read_text().splitlines()):
        for key, value in line.items():
            for tag, number in numbers(key, value) if key != "step" else ():
                expected.setdefault(tag, {})[line["step"]] = number
found = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
for tag, steps in expected.items():
    assert found[tag].keys() == steps.keys(), (tag, found[tag].keys() ^ steps.keys())
    for step, number in steps.items():
        assert math.isclose(found[tag][step], number, rel_tol=1e-6, abs_tol=1e-30), (tag, step, found[tag][step], number)
print(f"{sum(map(len, found.values()))} values of {len(found)} tags are those of the records")
