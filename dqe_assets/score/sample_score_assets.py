"""Scores beside the one that decides best captions: ``scores/<name>``, and the embeddings that they share."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from dqe_assets.core.checks import complete, finite, unique, without_faults
from dqe_assets.core.schema import IMAGE, ORIGINAL
from dqe_assets.core.signals import Signal
from dqe_assets.core.stage import MODEL_POOL, Stage, stage
from dqe_assets.core.work import Check, CheckResult
from dqe_assets.score import alignment, metadata, sample_score_views
from dqe_assets.score.alignment import ROWS_AT_ONCE
from dqe_assets.score.sample_scores import of_captions, of_images, table_of
from dqe_assets.score.tables import JOINT_EMBEDDINGS, SAMPLE_SCORES
from dqe_resources.scorers.named import ModelScorer, OfEmbedding
from dqe_resources.scorers.open_clip import OpenClipScorer
from dqe_resources.scorers.presets import PRESETS
from dqe_resources.scorers.vqa import VqaScorer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from dqe_assets.core.work import Work
    from dqe_resources.scorers.imported_score import ImportedScore
    from dqe_resources.scorers.linear_head import LinearHead
    from dqe_resources.scorers.named import SampleScorer
    from dqe_resources.scorers.prompt_axis import PromptAxis
    from dqe_resources.scorers.protocol import Scorer

SCORES_PREFIX = "scores/"
EMBEDDINGS_PREFIX = "embeddings/"
SCORER_PREFIX = "scorer_"
"""Key of the resource of a scorer of ``scorers``, before its name."""

JOINT = "joint_embeddings"
_MAIN = "scorer"
_DATACOMP = ("b32", "l14")
"""The CLIP models whose scores and embeddings DataComp's metadata have."""
_NOT_OF_THE_VECTORS = {"name", "preset", "batch_size", "device", "image_backbones", "long_captions"}
_DESCRIPTION = "A number for each sample, to choose by, from one of the scorers of data/dqe.yaml."
_SETTINGS = "\n\nAttributes:"


def embedding_assets(scorers: Sequence[SampleScorer], main: Scorer) -> dict[str, str]:
    """Which asset has the embeddings that each scorer reads, by the scorer's name.

    Scorers of one model share an asset: ``joint_embeddings`` if it is that of ``main``, else ``embeddings/<name>`` by
    the first of them. Imported scores read none.
    """
    found: dict[str, str] = {}
    of_model = {_vectors(main): JOINT}
    for one in scorers:
        if isinstance(one, ModelScorer):
            found[one.name] = of_model.setdefault(_vectors(one), f"{EMBEDDINGS_PREFIX}{one.name}")
    return found | {
        one.name: JOINT if one.model is None else found[one.model] for one in scorers if isinstance(one, OfEmbedding)
    }


def columns_of(scorers: Sequence[SampleScorer], main: Scorer) -> dict[str, Signal]:
    """What expressions can read of scorers apart from the scores, by name.

    ``<name>_img`` and ``<name>_txt`` are a scorer's embeddings of images and original captions. The scorers that are
    OpenAI's CLIP give DataComp's columns too: ``clip_l14_similarity_score``, ``l14_img`` and ``l14_txt``, and b32's.
    """
    found: dict[str, Signal] = {}
    assets = embedding_assets(scorers, main)
    for one in (one for one in scorers if isinstance(one, ModelScorer)):
        names = [one.name]
        for arch in _DATACOMP:
            clip = PRESETS[f"clip_{arch}"]
            is_clip = isinstance(one, OpenClipScorer) and (one.architecture, one.weights) == (
                clip.architecture,
                clip.weights,
            )
            score = f"clip_{arch}_similarity_score"
            if is_clip and score not in found:
                found[score] = Signal(score, f"{SCORES_PREFIX}{one.name}", "score", SAMPLE_SCORES)
                names.append(arch)
        for name in names:
            for suffix, item in (("img", IMAGE), ("txt", ORIGINAL)):
                column = f"{name}_{suffix}"
                found[column] = Signal(column, assets[one.name], "embedding", JOINT_EMBEDDINGS, item)
    return found


def _vectors(scorer: Scorer) -> str:
    """What of a scorer's settings decides its vectors."""
    settings = scorer.model_dump(mode="json", exclude=_NOT_OF_THE_VECTORS)
    return json.dumps([scorer.kind, settings, scorer.long_captions == alignment.TRUNCATE], sort_keys=True)


def scores_of(scorers: Sequence[SampleScorer], main: Scorer) -> list[Stage]:
    """The assets ``scores/<name>`` of these scorers, each after the asset ``embeddings/<name>`` that it reads."""
    assets = embedding_assets(scorers, main)
    made: list[Stage] = []
    for one in scorers:
        if isinstance(one, ModelScorer):
            if assets[one.name] == f"{EMBEDDINGS_PREFIX}{one.name}":
                made.append(_embeddings_of(one))
            scores = _fit_of(one, assets[one.name])
        elif isinstance(one, OfEmbedding):
            scores = _of_embedding(one, assets[one.name])
        elif isinstance(one, VqaScorer):
            continue  # It scores the captions of all sources, in assets of its own.
        else:
            scores = _imported(one)
        about = (inspect.getdoc(type(one)) or "").partition(_SETTINGS)[0].replace("``", "`")
        made.append(replace(scores, description=f"{_DESCRIPTION}\n\n{scores.description}\n\n{about}".strip()))
    # An axis or a head may stand in the list before the scorer that it names.
    return sorted(made, key=lambda stage: stage.name.startswith(SCORES_PREFIX))


def _embeddings_of(scorer: ModelScorer) -> Stage:
    @stage(
        name=f"{EMBEDDINGS_PREFIX}{scorer.name}",
        kinds={"parquet", scorer.kind},
        code_version="1",
        schema=JOINT_EMBEDDINGS,
        inputs=dict.fromkeys(("raw_samples", scorer.asset)),
        resources={"scorer": f"{SCORER_PREFIX}{scorer.name}"},
        checks=[unique("uid", "item"), complete(rows_each=2), finite("embedding", -1, 1), without_faults()],
        metadata=metadata.joint_embeddings,
        pool=MODEL_POOL,
        signature=lambda _, scorer: scorer.long_captions == alignment.TRUNCATE,
    )
    def embeddings(work: Work, scorer: Scorer) -> pa.Table:
        """Every image and original caption as a unit vector in one scorer's joint space.

        All scorers of that model read it.
        """
        raw = work.read("raw_samples", ["uid", "status", "caption"])
        samples = work.batches(scorer.asset, scorer.columns, ROWS_AT_ONCE)
        pictured = raw["status"].to_numpy() == "ok"
        meter = work.meter(int(pictured.sum()) + len(raw) - raw["caption"].null_count)
        texts = {ORIGINAL: raw["caption"]}
        return alignment.joint_embeddings(raw["uid"], samples, pictured, texts, scorer, meter.advance)

    return embeddings


def _fit_of(scorer: ModelScorer, embeddings: str) -> Stage:
    @stage(
        **_scores(scorer, [embeddings]),
        kinds={"parquet", scorer.kind},
        signature=lambda _, scorer: scorer.long_captions,
    )
    def scores(work: Work, scorer: ModelScorer) -> pa.Table:
        """How well the original caption of each sample fits its image."""
        raw = work.read("raw_samples", ["uid", "status"])
        return of_captions(raw, work.read(embeddings), scorer.long_captions)

    return scores


def _of_embedding(axis_or_head: OfEmbedding, embeddings: str) -> Stage:
    @stage(
        **_scores(axis_or_head, [embeddings]),
        kinds={"parquet", axis_or_head.kind},
        pool=MODEL_POOL,
    )
    def scores(work: Work, scorer: PromptAxis | LinearHead, model: Scorer) -> pa.Table:
        """What one scorer says of each image, by its embedding."""
        raw = work.read("raw_samples", ["uid", "status"])
        images = work.read(embeddings, ["item", "embedding", "fault"])
        return of_images(raw, images, lambda vectors: scorer.scores(vectors, model))

    return scores


def _imported(imported: SampleScorer) -> Stage:
    @stage(**_scores(imported, []), kinds={"parquet"})
    def scores(work: Work, scorer: ImportedScore) -> pa.Table:
        """A score of each sample that was computed elsewhere."""
        raw = work.read("raw_samples", list(dict.fromkeys(["uid", scorer.key])))
        keys = raw[scorer.key].to_pylist()
        found = scorer.scores(keys)
        reasons = np.full(len(keys), None, object)
        for row in np.flatnonzero(np.isnan(found)).tolist():
            has_key = keys[row] is not None
            reasons[row] = (
                f"no row of {scorer.path.name} has its {scorer.key}" if has_key else f"it has no {scorer.key}"
            )
        return table_of(raw, found, reasons)

    return scores


def _scores(scorer: SampleScorer, inputs: Sequence[str]) -> Mapping[str, Any]:
    """What all these assets have in common."""
    resources = {"scorer": f"{SCORER_PREFIX}{scorer.name}"}
    if isinstance(scorer, OfEmbedding):
        resources["model"] = f"{SCORER_PREFIX}{scorer.model}" if scorer.model else _MAIN
    return {
        "name": f"{SCORES_PREFIX}{scorer.name}",
        "code_version": "1",
        "schema": SAMPLE_SCORES,
        "inputs": ["raw_samples", *inputs],
        "resources": resources,
        "checks": [
            unique("uid"),
            complete(),
            finite("score"),
            Check("scored", "Every sample has a score, or a reason why it has none.", _scored_or_said),
            Check("has_scores", "Some samples have a score.", _some_scored, blocking=False),
        ],
        "metadata": metadata.sample_scores,
        "relations": sample_score_views.RELATIONS,
        "signals": {scorer.name: "score"},
    }


def _scored_or_said(_: Work, table: pa.Table) -> CheckResult:
    scored, said = (len(table) - table[name].null_count for name in ("score", "reason"))
    either = pc.xor(table["score"].is_valid(), table["reason"].is_valid())
    return CheckResult(
        bool(pc.all(either, min_count=0).as_py()),
        f"{scored:,} of {len(table):,} samples have a score, {said:,} a reason why not",
        {"scored": scored, "reasons": said},
    )


def _some_scored(_: Work, table: pa.Table) -> CheckResult:
    scored = len(table) - table["score"].null_count
    return CheckResult(bool(scored or not len(table)), f"{scored:,} of {len(table):,} samples have a score")
