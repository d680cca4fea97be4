"""Every plot of all stages, drawn for so many caption sources and rows: for tests, and to be looked at.

python -m tests.report.every_plot FOLDER [--dark]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.compression import plots as compression
from dqe_assets.concepts import plots as concepts
from dqe_assets.concepts.accuracies import MeasuredConcepts
from dqe_assets.concepts.plan import fit_accuracies, fitted_models
from dqe_assets.contamination import plots as contamination
from dqe_assets.contamination.settings import ContaminationRules
from dqe_assets.core import figures
from dqe_assets.core.figures import DARK, LIGHT, Theme
from dqe_assets.dedup import plots as dedup
from dqe_assets.evaluation import plots as evaluation
from dqe_assets.filtering import plots as filtering
from dqe_assets.improve import best_plots, judging_plots, refining_plots
from dqe_assets.improve.agreement import MEASURES
from dqe_assets.ingest import plots as ingest
from dqe_assets.publish import pictures as publish
from dqe_assets.scaling import plots as scaling
from dqe_assets.scaling.law import PoolUtility, predict_error
from dqe_assets.scaling.recommendation import FittedPools, MeasuredMixture
from dqe_assets.score import plots as score
from dqe_assets.score.preference import preference_report
from dqe_assets.search import plots as search
from dqe_assets.training import plots as training

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CAPTIONERS = ("internvl2-8b", "cogvlm2-llama3-chat-19B", "labels", "qwen2.5-vl-7b", "minicpm-v-2.6", "llava-onevision")
FILTERS = ("basic", "best_30", "laion_2b", "image_based_and_clip_score", "deduplicated", "english", "no_text", "cover")
REASONS = ("ok", "http_404", "timeout", "not_an_image", "dns", "robots_txt", "too_large", "refused", "http_403")


@dataclass(frozen=True)
class Made:
    """What plots are drawn of.

    Attributes:
        captioners: how many captioners there are, 1 to 6; the originals are one more source.
        rows: how many samples.
        theme: the colours.
    """

    captioners: int
    rows: int
    theme: Theme = LIGHT

    @cached_property
    def names(self) -> list[str]:
        """The captioners."""
        return list(CAPTIONERS[: self.captioners])

    @cached_property
    def sources(self) -> list[str]:
        """The caption sources."""
        return ["original", *self.names]

    def random(self, what: int) -> np.random.Generator:
        """Random numbers for one purpose."""
        return np.random.default_rng([what, self.rows])

    def similarity(self, place: int) -> NDArray[np.float64]:
        """Similarities of the captions of a source, by its place: a twentieth has none."""
        random = self.random(place)
        values = random.normal(0.2 + 0.02 * place, 0.08, self.rows)
        values[random.random(self.rows) < 0.05] = np.nan
        return values

    @cached_property
    def scores(self) -> dict[str, NDArray[np.float64]]:
        """Similarities by source."""
        return {name: self.similarity(place) for place, name in enumerate(self.sources)}

    @cached_property
    def counts(self) -> dict[str, NDArray[np.int64]]:
        """How many samples show each of 1,800 concepts, by image and caption source."""
        falling = self.rows * 0.2 / np.arange(1, 1801)
        return {
            name: self.random(50 + place).poisson(falling * (1 + 0.1 * place)).astype(np.int64)
            for place, name in enumerate([*self.sources, "image"])
        }

    def shares(self, count: int) -> list[int]:
        """The rows in parts that grow smaller, each about half of the one before."""
        return [self.rows >> (place + 1) for place in range(count)]

    @cached_property
    def map(self) -> search.SampleMap:
        """A map with 24 topics: of at most as many samples as there are."""
        random, count = self.random(60), self.rows
        centres = random.normal(0, 6, (24, 2))
        topics = random.integers(24, size=count)
        names = [f"{a}, {b}" for a in ("dog", "skyline", "a plate of food", "coin") for b in ("beach", "night", "old",
                 "street market", "red", "people")]  # fmt: skip
        return search.SampleMap(
            centres[topics] + random.normal(0, 1.2, (count, 2)),
            topics,
            names if count else [],
            [CAPTIONERS[place] for place in random.integers(self.captioners, size=count)],
            random.normal(0.2, 0.1, count),
        )

    @cached_property
    def pools(self) -> FittedPools:
        """As many pools as captioners, with mixtures of them."""
        count = self.captioners if self.rows else 0
        places = np.arange(count)
        seen = np.geomspace(max(self.rows, 1), 32 * max(self.rows, 1), 6)
        utilities = [PoolUtility(a=1.0, b=-0.2 + 0.02 * place, tau=8.0 - place, d=0.0) for place in places.tolist()]
        draws = np.array(
            [[[1.0, one.b * scale, one.tau * scale, 0.0] for one in utilities] for scale in (0.95, 1.0, 1.05)]
        ).reshape(3, count, 4)
        size = max(self.rows, 1)
        errors = tuple(predict_error(one, seen, size, 1000.0) for one in utilities)
        return FittedPools(
            "ImageNet top-1",
            tuple(self.names[:count]),
            tuple(utilities),
            np.full(count, size),
            draws,
            (seen,) * count,
            errors,
            (float(seen[0]), float(seen[-1])),
            1000.0,
            (),
            (MeasuredMixture("best two", tuple(self.names[:2]), seen, errors[0] * 0.98, errors[0]),)
            if count > 1
            else (),
            "measured",
        )

    def leaderboard(self) -> list[dict[str, Any]]:
        """What subsets reach, three for each captioner."""
        return [
            {
                "scale": "small",
                "score": "average of 38 tasks",
                "data": f"{name}_{FILTERS[place]}",
                "data_size": max(1, self.rows // (place + 1)),
                "samples_seen": 12_800_000,
                "value": 0.2 + 0.01 * place + 0.005 * number,
                "spread": 0.004,
                "rank": place + 1 if place else None,
            }
            for number, name in enumerate(self.names if self.rows else [])
            for place in range(3)
        ]

    def curves(self) -> list[dict[str, Any]]:
        """What pools reach over the samples seen."""
        return [
            {"pool": name, "samples_seen": seen, "error": 0.9 * seen**-0.05 - 0.01 * place, "spread": 0.004}
            for place, name in enumerate(self.names if self.rows else [])
            for seen in np.geomspace(1000, max(self.rows, 2000) * 12, 8).astype(int).tolist()
        ]

    def planted(self) -> pa.Table:
        """How near planted copies are."""
        random, kinds = self.random(70), np.array(["recompressed", "cropped", "mirrored", "lettered"])
        return pa.table(
            {
                "copy": kinds[np.arange(self.rows) % 4],
                "cosine": random.uniform(0.7, 1, self.rows).astype(np.float32),
                "other_cosine": random.uniform(-0.2, 0.6, self.rows).astype(np.float32),
                "distance": random.integers(0, 14, self.rows).astype(np.int16),
                "other_distance": random.integers(14, 40, self.rows).astype(np.int16),
            }
        )

    def pairs(self) -> pa.Table:
        """How alike photos are."""
        random = self.random(71)
        same = random.random(self.rows) < 0.1
        return pa.table(
            {
                "same_photo": same,
                "cosine": np.where(same, random.uniform(0.7, 1, self.rows), random.uniform(-0.2, 0.6, self.rows)),
                "distance": np.where(same, random.integers(0, 14, self.rows), random.integers(14, 50, self.rows)),
            }
        )

    def marks(self) -> pa.Table:
        """Mean marks of each source."""
        rows = []
        for place, name in enumerate(self.sources if self.rows else []):
            means = {measure: 2.2 + 0.3 * place + 0.1 * number for number, measure in enumerate(MEASURES)}
            ends = {f"{key}_{end}": value + reach for key, value in means.items() for end, reach in (("low", -0.2),
                    ("high", 0.2))}  # fmt: skip
            rows.append({"caption_source": name, "judged": self.rows, **means, **ends})
        return pa.Table.from_pylist(rows) if rows else pa.table({"caption_source": pa.array([], pa.string())})

    def refined(self) -> pa.Table:
        """Answers of as many rounds as captioners."""
        rounds = self.captioners
        per_round = self.rows // rounds
        random = self.random(72)
        total = per_round * rounds
        return pa.table(
            {
                "uid": [f"{number % per_round:032x}" for number in range(total)]
                if per_round
                else pa.array([], "string"),
                "round": pa.array(np.arange(total) // max(per_round, 1) + 1, pa.int32()),
                "accepted": random.random(total) < 0.4,
                "similarity": random.normal(0.3, 0.08, total).astype(np.float32),
                "previous_similarity": random.normal(0.22, 0.08, total).astype(np.float32),
            }
        )

    def fetched(self) -> pa.Table:
        """Rows with a URL."""
        random = self.random(73)
        reason = np.array(REASONS)[np.minimum(random.geometric(0.4, self.rows) - 1, len(REASONS) - 1)]
        hosts = np.array([f"https://images-{place}.a-rather-long-name.example/p.jpg" for place in range(40)])
        return pa.table({"url": hosts[random.integers(40, size=self.rows)], "reason": reason})

    def measured(self) -> Any:
        """A model's accuracy over concept counts."""
        frequent = np.sort(self.counts["original"])[::-1].astype(np.float64) + 1
        accuracy = np.clip(0.1 + 0.06 * np.log(frequent) + self.random(74).normal(0, 0.05, len(frequent)), 0, 1)
        names = tuple(f"concept {place}" for place in range(len(frequent)))
        measured = [MeasuredConcepts("CLIP ViT-B-32", names, frequent.astype(np.int64), accuracy)]
        return next(fitted_models(fit_accuracies(measured, "m.csv")))


def _compared(made: Made) -> bytes:
    pairs = {("original", name): (made.scores["original"], made.scores[name]) for name in made.names}
    shown = []
    for key, (a, b) in pairs.items():
        both = np.isfinite(a) & np.isfinite(b)
        preferred = 1 / (1 + np.exp(20 * (b[both] - a[both])))
        report = preference_report({key: (preferred, 1 - preferred)})
        shown.append(score.Preference.of(report, independent=key[1] != "labels"))
    return score.preference_bars(shown, made.theme)


DRAWINGS: dict[str, Callable[[Made], bytes]] = {
    "score.similarity_histogram": lambda made: score.similarity_histogram(made.scores, made.theme),
    "score.preference_bars": _compared,
    "score.original_vs_synthetic_scatter": lambda made: score.original_vs_synthetic_scatter(
        made.scores["original"], made.scores[made.names[-1]], made.names[-1], made.names, made.theme
    ),
    "concepts.rank_frequency": lambda made: concepts.rank_frequency(made.counts, made.theme),
    "concepts.tail_shares": lambda made: concepts.tail_shares(made.counts, made.theme),
    "concepts.recaptioned": lambda made: concepts.recaptioned(
        made.counts["original"], made.counts[made.names[-1]], made.names[-1], made.sources, made.theme
    ),
    "concepts.log_linear": lambda made: concepts.log_linear(made.measured(), made.theme),
    "compression.codebook": lambda made: compression.codebook(
        {
            "counts": made.shares(1024),
            "codes_used": min(made.rows, 800),
            "codes": 1024,
            "perplexity": 310.0,
            "unigram_loss": 6.5,
            "epochs": [
                {"epoch": 1 + n, "caption_loss": 6.4 - n / 10, "held_out_loss": 6.3 - n / 12}
                for n in range(made.captioners)
            ],
        },
        made.theme,
    ),
    "compression.scores": lambda made: compression.scores(
        {"all": made.scores["original"]}
        | {f"tldr_{name}": made.scores["original"][:: 4 + n] for n, name in enumerate(made.names)},
        made.theme,
    ),
    "compression.cluster_sizes": lambda made: compression.cluster_sizes(
        [size for size in made.shares(1000) if size], made.theme
    ),
    "contamination.planted_copies": lambda made: contamination.planted_copies(
        made.planted(), ContaminationRules(), made.theme
    ),
    "dedup.cluster_sizes": lambda made: dedup.cluster_sizes(
        {
            kind: (2 + made.random(80 + place).geometric(0.5, made.rows // 10 // (place + 1))).tolist()
            for place, kind in enumerate(("exact", "perceptual", "semantic", "caption", "any"))
        },
        made.theme,
    ),
    "dedup.duplicate_thresholds": lambda made: dedup.duplicate_thresholds(made.pairs(), 0.85, 8, made.theme),
    "evaluation.leaderboard": lambda made: evaluation.leaderboard(made.leaderboard(), made.theme),
    "evaluation.over_size": lambda made: evaluation.over_size(made.leaderboard(), made.theme),
    "evaluation.over_samples_seen": lambda made: evaluation.over_samples_seen(
        "ImageNet top-1", made.curves(), made.theme
    ),
    "filtering.overlap_matrix": lambda made: filtering.overlap_matrix(
        FILTERS[: made.captioners],
        np.minimum.outer(made.shares(made.captioners), made.shares(made.captioners)),
        made.theme,
    ),
    "filtering.funnels": lambda made: filtering.funnels(
        [
            (
                name,
                [
                    (f"{other}(width >= 200, 'a rather long condition')", left)
                    for other, left in zip(FILTERS, made.shares(4), strict=False)
                ],
            )
            for name in FILTERS[: made.captioners]
        ],
        made.rows,
        made.theme,
    ),
    "filtering.planted_shares": lambda made: filtering.planted_shares(
        [(name, kind, 0.3) for name in FILTERS[: made.captioners] for kind in REASONS[1:]] if made.rows else [],
        made.theme,
    ),
    "filtering.tail": lambda made: filtering.tail(
        "balanced(1000)",
        list(range(1, 1801)) if made.rows else [],
        np.sort(made.counts["original"])[::-1].tolist(),
        np.minimum(np.sort(made.counts["original"])[::-1], made.rows // 100).tolist(),
        made.rows / 100,
        made.theme,
    ),
    "filtering.mixture": lambda made: filtering.mixture(
        "mixed",
        [
            {
                "part": f"{name}_best",
                "share": 1 / made.captioners,
                "weight_share": 1 / made.captioners,
                "samples": made.rows,
                "drawn": made.rows // 2,
                "repeats": 0.5,
            }
            for name in made.names
        ],
        made.theme,
    ),
    "filtering.coverage": lambda made: filtering.coverage(
        "cover(1000)",
        {"cover": np.linspace(0, 0.4, 101).tolist(), "random": np.linspace(0, 0.7, 101).tolist()},
        made.theme,
    ),
    "filtering.caption_mix": lambda made: filtering.caption_mix(
        {"original": made.scores["original"], made.names[-1]: made.scores[made.names[-1]]},
        {
            "name": "mixed",
            "threshold": 0.24,
            "samples": made.rows,
            "original": made.rows // 3,
            "synthetic": made.rows // 3,
            "dropped": made.rows // 3,
        },
        made.theme,
    ),
    "improve.before_and_after": lambda made: best_plots.before_and_after(
        made.scores["original"],
        made.scores[made.names[-1]],
        made.random(90).random(made.rows) < 0.8,
        made.theme,
    ),
    "improve.marks_by_source": lambda made: judging_plots.marks_by_source(made.marks(), made.theme),
    "improve.similarity_before_and_after": lambda made: refining_plots.similarity_before_and_after(
        made.refined(), made.theme
    ),
    "ingest.status_bars": lambda made: ingest.status_bars(
        dict(zip(REASONS, made.shares(len(REASONS)), strict=True)), made.theme
    ),
    "ingest.fetch_outcomes": lambda made: ingest.fetch_outcomes(made.fetched(), made.theme),
    "publish.before_and_after": lambda made: publish.before_and_after(
        *(
            {
                int(key): int(count)
                for key, count in zip(
                    *np.unique(np.floor(values[np.isfinite(values)] * publish.BINS), return_counts=True), strict=True
                )
            }
            for values in (made.scores["original"], made.scores[made.names[-1]])
        ),
        made.theme,
    ),
    "scaling.fitted_curves": lambda made: scaling.fitted_curves(made.pools, made.theme),
    "scaling.utility_by_epoch": lambda made: scaling.utility_by_epoch(made.pools, made.theme),
    "scaling.mixtures_over_compute": lambda made: scaling.mixtures_over_compute(
        made.pools, [made.rows * 2 + 1, made.rows * 3 + 1, made.rows * 20 + 1], made.theme
    ),
    "search.map_by_topic": lambda made: search.map_by_topic(made.map, made.theme),
    "search.map_by_source": lambda made: search.map_by_source(made.map, made.theme),
    "search.map_by_score": lambda made: search.map_by_score(made.map, made.theme),
    "training.loss_curve": lambda made: training.loss_curve(
        "best-small-0",
        [
            {"samples_seen": seen, "loss": 8 - np.log10(seen + 1), "learning_rate": 1e-3 * min(1, seen / 5000)}
            for seen in range(0, made.rows * 12, max(1, made.rows // 100))
        ],
        [made.rows * place for place in range(1, 13)] if made.rows else [],
        made.theme,
    ),
    "figures.histograms": lambda made: figures.histograms(
        made.scores | {"sharpness": made.random(91).gamma(2, 200, made.rows)},
        made.theme,
    ),
}
"""A plot by its stage and name."""

NEVER_OF_NOTHING = {"concepts.log_linear"}
"""Drawn only of what was fitted."""


def main() -> None:
    """Draw all into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dark", action="store_true", help="On a dark ground.")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for rows in (0, 1_000, 1_000_000):
        for captioners in (1, 3, 6):
            made = Made(captioners, rows, DARK if options.dark else LIGHT)
            for name, draw in DRAWINGS.items():
                if rows or name not in NEVER_OF_NOTHING:
                    (options.folder / f"{name}-{rows}-{captioners}.png").write_bytes(draw(made))


if __name__ == "__main__":
    main()
