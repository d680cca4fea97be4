"""What a judge says of the captions of a draw of the samples."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.texts import shard_captions
from dqe_assets.core.checks import unique
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work, with_facts
from dqe_assets.improve import judging, metadata
from dqe_assets.improve.tables import CAPTION_JUDGEMENTS
from dqe_resources.captioners.judge import CRITERIA
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.improve.judging_settings import Judging
    from dqe_resources.captioners.judge import Judge
    from dqe_resources.store import Stamp


def caption_judgements_of(captions: CaptionSources, settings: Judging) -> Stage:
    """The asset ``caption_judgements``, over the captions of these sources."""
    rubric = judging.load_rubric()

    def nothing_more_can_be_judged(_: Work, stamp: Stamp) -> bool:
        return not stamp.facts["not_asked"] or stamp.facts["cap"] == asdict(settings.cap)

    @stage(
        kinds={"parquet", "openai"},
        code_version="1",
        schema=CAPTION_JUDGEMENTS,
        resources={"judge": "judging.judge"},
        inputs=["raw_samples", *(SYNTHETIC_CAPTIONS_PREFIX + name for name in captions.captioners), "caption_scores"],
        checks=[
            unique("uid", "caption_source"),
            Check("marks_on_scale", "A judged caption has all four marks, each from 1 to 5.", _marks_on_scale),
            _parsed(settings.min_parsed),
        ],
        metadata=metadata.caption_judgements,
        pool="judge",
        signature=lambda _: [rubric.hash, settings.draw],
        is_valid=nothing_more_can_be_judged,
    )
    def caption_judgements(work: Work, judge: Judge) -> pa.Table:
        """What a model says of the captions of some samples: how true, complete and clear, and what is invented.

        It is shown all captions of a sample in an order drawn by lot, and neither their sources nor their scores. A
        shard that was interrupted, or that the cap cut short before it was raised, goes on with what is missing.
        """
        uids = work.read("raw_samples", ["uid"])["uid"].to_pylist()
        texts = {source: texts.to_pylist() for source, texts in shard_captions(work, captions).items()}
        drawn = judging.draw(uids, judging.mean_similarity(_scores(work, uids, captions)), **settings.draw)
        asked = judging.questions(uids, drawn, texts, settings.seed)
        known, failed = _known(work)

        def image(row: int) -> bytes:
            stored = work.read_rows("raw_samples", [row], ["image"])
            found: bytes = stored["image"][0]["bytes"].as_py()
            return found

        table = judging.judgements(
            asked,
            image,
            judging.Terms(judge, rubric, settings.cap),
            known=known,
            is_final=lambda reason: reason != "error" and not (failed and reason == judging.UNPARSABLE),
            keep=work.checkpoint.append,
            track=work.track,
        )
        answered = len(pc.unique(table["uid"]))
        facts = {"drawn": len(asked), "not_asked": len(asked) - answered, "cap": asdict(settings.cap)}
        return with_facts(table, facts)

    return caption_judgements


def _scores(work: Work, uids: Sequence[str], captions: CaptionSources) -> dict[str, np.ndarray]:
    """Similarity of each caption source, in the order of the samples, NaN if there is no image or caption."""
    table = work.read("caption_scores", ["uid", "caption_source", "similarity"])
    order = pa.array(uids)
    scores = {}
    for source in captions.names:
        part = table.filter(pc.equal(table["caption_source"], source))
        found = part["similarity"].take(pc.index_in(order, value_set=part["uid"].combine_chunks()))
        scores[source] = found.to_numpy().astype(np.float64)
    return scores


def _known(work: Work) -> tuple[pa.Table, bool]:
    """Rows that were made from the same inputs in the same way, and whether too few of them were usable."""
    known, failed = [work.checkpoint.rows(CAPTION_JUDGEMENTS)], False
    with contextlib.suppress(StorageError):
        stored = work.store.get(work.asset, work.partition)
        if stored and stored.stamp.fingerprint == work.version and not work.force:
            known.append(work.read(work.asset))
            failed = bool(stored.stamp.failed_checks)
    return pa.concat_tables(known), failed


def _marks_on_scale(_: Work, table: pa.Table) -> CheckResult:
    judged = pc.is_valid(table["overall"])
    wrong = np.zeros(table.num_rows, bool)
    for name in CRITERIA:
        within = pc.fill_null(pc.and_(pc.greater_equal(table[name], 1), pc.less_equal(table[name], 5)), False)
        wrong |= pc.not_equal(within, judged).to_numpy()
    bad = int(wrong.sum())
    return CheckResult(
        not bad,
        f"{pc.sum(judged).as_py() or 0:,} captions judged, {bad} with a mark that is missing or off the scale",
        {"off_scale": bad},
    )


def _parsed(minimum: float) -> Check:
    def run(_: Work, table: pa.Table) -> CheckResult:
        asked = len(pc.unique(table["uid"]))
        usable = len(pc.unique(table.filter(pc.is_valid(table["overall"]))["uid"]))
        share = usable / asked if asked else 1.0
        return CheckResult(
            share >= minimum,
            f"{usable:,} of {asked:,} samples asked about have a judgement ({share:.1%}, required: {minimum:.0%})",
            {"asked": asked, "judged": usable, "share": round(share, 4), "required": minimum},
        )

    return Check("answers_parsed", f"At least {minimum:.0%} of the judge's answers are judgements.", run)
