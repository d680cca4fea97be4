"""Take SBU's 8,000 rows in shared/data through every stage, fetched from a mirror of nine photos, for docs/sbu.md.

Usage: python docs/sbu_report.py FOLDER

Prints the tables of that page and draws its picture.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from dqe_assets.ingest.plots import fetch_outcomes
from tests import sbu_mirror

ROOT = Path(__file__).parent.parent
QUERIES = (
    "SELECT source, shards, rows, ok, failed, success_rate FROM quality_by_source",
    "SELECT host, rows, ok, failed, success_rate, retries, most_frequent_reason FROM hosts",
    "SELECT shard, reason, host, rows, share, retries FROM failures_by_host",
    "SELECT caption_source, captions, mean_similarity FROM caption_quality",
)


def main() -> None:
    """Make the shards, print what the warehouse says of them, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sbu", type=Path, help="folder of captions.parquet and images/")
    sbu = parser.parse_args().sbu
    with tempfile.TemporaryDirectory() as folder, sbu_mirror.serve(sbu / "images") as address:
        data = Path(folder)
        (data / "cache").symlink_to(ROOT / "data" / "cache")
        sbu_mirror.write_official_files(sbu_mirror.rows_of(sbu), data)
        (data / "dqe.yaml").write_text(yaml.safe_dump(sbu_mirror.settings(address)))
        dqe(data, "materialize")
        for query in QUERIES:
            dqe(data, "sql", query)
        shards = sorted((data / "store" / "raw_samples").glob("*.parquet"))
        outcomes = pq.read_table(shards, columns=["url", "reason"])
    (ROOT / "docs" / "images" / "sbu_fetching.png").write_bytes(fetch_outcomes(outcomes))


def dqe(data: Path, *arguments: str) -> None:
    """Run the command on a data folder."""
    environment = {**os.environ, "DQE_DATA": str(data), "DAGSTER_HOME": str(data / "dagster_home")}
    subprocess.run([sys.executable, "-m", "dqe_assets.cli", *arguments], env=environment, check=True)  # noqa: S603


if __name__ == "__main__":
    main()
