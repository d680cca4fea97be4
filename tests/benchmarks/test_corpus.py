"""The corpus that what runs over all shards is measured on."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.conftest import ROOT


def test_every_step_is_measured_on_a_corpus_that_is_current(finished):
    # The benchmark itself stops if dqe status, its third step, does not find all current.
    steps = ["duplicate_pairs", "warehouse", "status", "materialize"]
    options = ["--shards", "2", "--rows-per-shard", "50", "--json", "--sample", str(finished), "--steps", *steps]
    command = [sys.executable, "-m", "benchmarks.corpus", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    more = [f"{step}, one more shard" for step in steps if step != "status"]
    assert sorted(found) == sorted([*steps, *more])
    for usage in found.values():
        assert usage["2"]["cpu_seconds"] > 0
        assert usage["2"]["peak_mib"] > 20
