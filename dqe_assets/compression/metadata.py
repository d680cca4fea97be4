"""The metadata of these assets in the UI: figures, plots, and clusters as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.compression import plots
from dqe_assets.compression.pictures import sheet_of_a_quarter
from dqe_assets.core.metadata import Metadata, picture
from dqe_assets.core.work import facts_of

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Manifest, Work


def codebook(_: Work, table: pa.Table) -> Metadata:
    """How the codes are used, the losses, and a plot of both."""
    facts = facts_of(table)
    epochs = facts.get("epochs")
    return {
        "kind": facts["kind"],
        "images": facts["images"],
        "tokens_of_an_image": facts["tokens"],
        "tower_trained": facts["tower_trained"],
        "codes": facts["codes"],
        "codes_used": facts["codes_used"],
        "perplexity": round(facts["perplexity"], 1),
        **(
            {"held_out_loss": epochs[-1]["held_out_loss"], "loss_of_words_alone": facts["unigram_loss"]}
            if epochs
            else {}
        ),
        "codes_and_losses": picture(plots.codebook(facts), "use of the codes, and losses"),
    }


def image_codes(_: Work, table: pa.Table) -> Metadata:
    """How many images have codes, and how many different ones an image has."""
    codes = [set(one) for one in table["codes"].to_pylist() if one is not None]
    return {
        "images": len(codes),
        "different_codes_of_an_image": round(float(np.mean([len(one) for one in codes])), 1) if codes else 0.0,
        "codes_used": len(set().union(*codes)),
    }


def code_clusters(work: Work, output: Manifest) -> Metadata:
    """How many clusters, their sizes, and images of the largest, with what ``tldr(share=0.25)`` keeps marked."""
    sizes = output.facts["sizes"]
    sheet = sheet_of_a_quarter(work.store, work.shards, sizes)
    return {
        "clusters": output.facts["clusters"],
        "images": output.rows,
        "features": output.facts["features"],
        "largest": sizes[0] if sizes else 0,
        "alone": sum(size == 1 for size in sizes),
        "sizes": picture(plots.cluster_sizes(sizes), "sizes of the clusters"),
        **({"largest_clusters": picture(sheet, "the largest, in frames what a quarter keeps")} if sheet else {}),
    }
