"""The metadata of these assets in the UI: figures, examples, and a plot."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from dqe_assets.core.figures import contact_sheet
from dqe_assets.core.metadata import SHEET_IMAGES, Metadata, markdown_table, picture
from dqe_assets.core.work import stored_input
from dqe_assets.training import plots
from dqe_assets.training.loader import read_samples
from dqe_resources.cache import data_directory

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Manifest, Work


def training_data(_: Work, output: Manifest) -> Metadata:
    """How much there is, where, and the first samples with the captions that they train with."""
    facts = output.facts
    folder = data_directory() / facts["path"]
    first = list(islice(read_samples([folder / "00000000.tar"]), SHEET_IMAGES))
    return {
        "samples": output.rows,
        "without_caption": facts["without_caption"],
        "shards": facts["shards"],
        "bytes_of_shards": facts["bytes"],
        "folder": str(folder),
        "first": picture(
            contact_sheet([one.image for one in first], [one.text for one in first]), "the first samples and captions"
        ),
    }


def training_run(work: Work, table: pa.Table) -> Metadata:
    """The loss as a plot, how fast it went, what it took, and its whole configuration."""
    rows = table.to_pylist()
    seconds, waited = (sum(row[name] or 0 for row in rows) for name in ("seconds", "waited"))
    last, facts = rows[-1], stored_input(work, work.asset, work.partition).stamp.facts
    costs = [row["cost"] for row in rows]
    return {
        "samples": last["data_size"],
        "samples_seen": last["samples_seen"],
        "final_loss": last["loss"],
        "seconds_in_training": round(seconds, 1),
        "samples_per_second": round(last["samples_seen"] / seconds, 1) if seconds else 0.0,
        "share_of_time_waiting_for_samples": round(waited / seconds, 3) if seconds else 0.0,
        f"{'gpu' if last['gpus'] else 'cpu'}_hours": round((last["gpus"] or 1) * seconds / 3600, 4),
        **({"cost": round(sum(costs), 2)} if None not in costs else {}),
        "loss": picture(
            plots.loss_curve(
                f"{last['run']}: training loss",
                [line for row in rows for line in row["log"]],
                [row["samples_seen"] for row in rows],
            ),
            "training loss over samples seen",
        ),
        "checkpoints": markdown_table(
            ["checkpoint", "samples seen", "loss", "learning rate", "path"],
            [[row[name] for name in ("checkpoint", "samples_seen", "loss", "learning_rate", "path")] for row in rows],
        ),
        **({"peak_gpu_memory_mib": facts["peak_gpu_memory_mib"]} if "peak_gpu_memory_mib" in facts else {}),
        "configuration": facts["configuration"],
    }
