"""Writes crates/upright-data/tests/it/parquet/pairs-*.parquet: conversations as pairs, in the ways in which parquet files are written.

    python3 -m venv venv && venv/bin/pip install pyarrow==22.0.0
    venv/bin/python tools/rows/generate.py
"""

import pathlib

import pyarrow
import pyarrow.parquet

FOLDER = pathlib.Path(__file__).parents[2] / "crates/upright-data/tests/it/parquet"
say = lambda role, content: {"role": role, "content": content, "tool_calls": None}
rows = [
    {
        "prompt": f"Question {i}, é?",
        "chosen": [say("user", f"Question {i}, é?"), say("assistant", f"Good {i}.")],
        "rejected": [say("user", f"Question {i}, é?"), say("assistant", f"Bad {i}.")],
        "score": i / 2,
        "note": None if i % 2 else "odd",
    }
    for i in range(5)
]
for compression in ["none", "snappy", "gzip", "zstd", "lz4"]:
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), FOLDER / f"pairs-{compression}.parquet", compression=compression, row_group_size=2,
        write_statistics=False, store_schema=False,
    )
