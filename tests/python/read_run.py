"""Reads what a run leaves behind with the programs that people use: pandas, and TensorBoard's own reader.

    pip install pandas tensorboard
    python tests/python/read_run.py RUN

RUN is a run folder, or any folder with `tables/*.csv`, `*.jsonl` or `tensorboard/` in it. What is there is read and counted; an empty
table, a value that is no number or a series without a value ends the script with an error.
"""

import math
import sys
from pathlib import Path

import pandas
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = Path(sys.argv[1])

tables = {path.stem: pandas.read_csv(path) for path in sorted(run.glob("tables/*.csv"))}
lines = {path.stem: pandas.read_json(path, lines=True) for path in sorted(run.glob("*.jsonl"))}
events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload() if (run / "tensorboard").is_dir() else None

if not tables and not lines and events is None:
    sys.exit(f"{run}: neither tables/*.csv nor *.jsonl nor tensorboard/")

for name, table in (tables | lines).items():
    if table.empty:
        sys.exit(f"{name}: no row")
    print(f"{name}: {len(table)} rows, {len(table.columns)} columns: {', '.join(map(str, table.columns[:6]))}")

if events is not None:
    tags = events.Tags()["scalars"]
    if not tags:
        sys.exit("tensorboard: no series")
    for tag in tags:
        values = events.Scalars(tag)
        if not values or not all(math.isfinite(value.value) for value in values):
            sys.exit(f"{tag}: no values, or one that is no number")
    groups = sorted({tag.split("/")[0] for tag in tags})
    print(f"tensorboard: {len(tags)} series in {', '.join(groups)}")
    for tag in tags:
        if tag.startswith(("search/", "best/", "bits/", "agent/")):
            values = events.Scalars(tag)
            print(f"  {tag}: {len(values)} values, step {values[-1].step}: {values[-1].value:.4f}")
