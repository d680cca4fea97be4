"""The metadata of these assets in the UI: figures, plots, and clusters as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from dqe_assets.compression import plots
from dqe_assets.compression.tables import CODE_CLUSTERS
from dqe_assets.core.figures import contact_sheet
from dqe_assets.core.metadata import Metadata, picture
from dqe_assets.core.work import facts_of

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Manifest, Work

_SHOWN_CLUSTERS, _SHOWN_OF_EACH = 6, 4


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
    """How many clusters, their sizes, and images of the largest."""
    sizes = output.facts["sizes"]
    images, texts = _of_the_largest(work)
    return {
        "clusters": output.facts["clusters"],
        "images": output.rows,
        "features": output.facts["features"],
        "largest": sizes[0] if sizes else 0,
        "alone": sum(size == 1 for size in sizes),
        "sizes": picture(plots.cluster_sizes(sizes), "sizes of the clusters"),
        **({"largest_clusters": picture(contact_sheet(images, texts), "images of the largest")} if images else {}),
    }


def _of_the_largest(work: Work) -> tuple[list[bytes], list[str]]:
    """Some images of the largest clusters, one cluster after another."""
    found: dict[int, list[bytes]] = {cluster: [] for cluster in range(_SHOWN_CLUSTERS)}
    for shard in work.shards:
        clusters = work.store.read("code_clusters", shard, CODE_CLUSTERS, ["code_cluster"])["code_cluster"]
        rows = []
        for cluster, have in found.items():
            members = np.flatnonzero(pc.fill_null(pc.equal(clusters, cluster), fill_value=False).to_numpy())
            rows += [(int(row), cluster) for row in members[: _SHOWN_OF_EACH - len(have)]]
        rows.sort()
        if rows:
            images = work.of_shard(shard).read_rows("raw_samples", [row for row, _ in rows], ["image"])["image"]
            for (_, cluster), image in zip(rows, images, strict=True):
                found[cluster].append(image["bytes"].as_py())
        if all(len(have) == _SHOWN_OF_EACH for have in found.values()):
            break
    pairs = [(image, f"cluster {cluster}") for cluster, have in found.items() for image in have]
    return [image for image, _ in pairs], [text for _, text in pairs]
