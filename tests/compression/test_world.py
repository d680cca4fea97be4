"""A captioner's codebook of made scenes, of which it is known what they show."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.compression_quality import clustered, described, largest_concept
from dqe_assets.compression.caption_codebook import train_codebook
from dqe_assets.compression.codebook import k_means_codebook
from dqe_assets.compression.settings import CaptionerCodebook, SmallDecoder
from dqe_resources.models.image_towers import EfficientNetTower
from dqe_resources.sources.world import WorldSource

pytestmark = pytest.mark.slow


def test_codes_say_what_scenes_show(data: Path) -> None:
    pytest.importorskip("emoji", reason="the extra 'study' is not installed")
    source = WorldSource(rows_made=500, concepts=30, side=64)
    tokens, captions, concepts = described(source, largest_concept(source), EfficientNetTower(side=64))
    assert len(captions) > 400
    settings = CaptionerCodebook(codes=64, epochs=8, batch_size=32, decoder=SmallDecoder(width=64, layers=1))
    trained = train_codebook(tokens, captions, settings, data, "1")
    assert trained.epochs[-1].held_out_loss < trained.unigram_loss
    for book in (trained.codebook, k_means_codebook(tokens, 64, 0)):
        found = clustered(book, tokens, concepts, 30)
        assert found["perplexity"] > 64 / 4
        assert found["purity"] > 1.2 * found["purity_random"]
    assert np.isfinite(trained.codebook.vectors).all()
