"""What holds of all that was decided about samples: the latest decision, each tag, and the latest caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.reviews.tables import DROP, KEEP, REVIEWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def reviews(uids: pa.ChunkedArray, is_gone: pa.ChunkedArray, decisions: pa.Table) -> pa.Table:
    """One row of ``REVIEWS`` for each sample, in order.

    Args:
        uids: strings [n].
        is_gone: bool [n], which are taken down: nothing is said of them.
        decisions: of these samples, in the order in which they were made: what ``log.decisions`` gives.
    """
    of_samples: dict[str, list[dict[str, Any]]] = {}
    for row in decisions.to_pylist():
        of_samples.setdefault(row["uid"], []).append(row)
    rows = [
        {"uid": uid, **({} if gone else _of_sample(of_samples.get(uid, ())))}
        for uid, gone in zip(uids.to_pylist(), is_gone.to_pylist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, REVIEWS)


def dropped(reviewed: Iterable[pa.Table]) -> pa.Array:
    """Uids of the samples that people decided to drop.

    Args:
        reviewed: tables with the columns uid and review of ``REVIEWS``, such as those of all shards.
    """
    uids = [table["uid"].filter(pc.equal(table["review"], DROP)) for table in reviewed]
    return pa.chunked_array([chunk for one in uids for chunk in one.chunks], pa.string()).combine_chunks()


def _of_sample(decisions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    standing: dict[tuple[str, str | None], dict[str, Any]] = {}
    for one in decisions:
        if one["is_undone"]:
            continue
        if one["decision"] == "none":
            standing.clear()
            continue
        # A decision to keep takes the place of one to drop; another tag stands beside the tags before.
        what = {DROP: "verdict", KEEP: "verdict"}.get(one["decision"], one["decision"])
        key = (what, one["value"] if what == "tag" else None)
        standing.pop(key, None)
        if what == "verdict" or one["value"] is not None:
            standing[key] = one
    if not decisions:
        return {}
    last = next(reversed(standing.values()), None)
    tags = sorted(value for (what, value) in standing if what == "tag" and value is not None)
    held = {id(one) for one in standing.values()}
    return {
        "review": standing[("verdict", None)]["decision"] if ("verdict", None) in standing else None,
        "review_tags": tags or None,
        "caption": standing[("caption", None)]["value"] if ("caption", None) in standing else None,
        **({"decided_at": last["at"], "decided_by": last["by"], "why": last["why"] or None} if last else {}),
        "decisions": [
            {
                **{name: one[name] for name in ("number", "at", "by", "decision", "value")},
                "why": one["why"] or None,
                "holds": id(one) in held,
            }
            for one in decisions
        ],
    }


def verdicts(decisions: pa.Table) -> pa.Table:
    """The samples that people decided to keep or to drop, by the latest decision about each that holds.

    Args:
        decisions: what ``log.decisions`` gives.

    Returns:
        ``uid``, ``shard``, ``is_kept`` (bool), and ``drawn_by`` and ``weight`` of the latest decision about the sample
        that has them.
    """
    standing = decisions.filter(
        pc.and_(pc.invert(decisions["is_undone"]), pc.is_in(decisions["decision"], pa.array([DROP, KEEP, "none"])))
    )
    last = standing.take(pa.array(_last_of_each(standing["uid"])))
    last = last.filter(pc.not_equal(last["decision"], "none"))
    drawn = standing.filter(pc.is_valid(standing["drawn_by"]))
    drawn = drawn.take(pa.array(_last_of_each(drawn["uid"])))
    at = pc.index_in(last["uid"], value_set=drawn["uid"].combine_chunks())
    return pa.table(
        {
            "uid": last["uid"],
            "shard": last["shard"],
            "is_kept": pc.equal(last["decision"], KEEP),
            "drawn_by": drawn["drawn_by"].take(at),
            "weight": drawn["weight"].take(at),
        }
    )


def _last_of_each(uids: pa.ChunkedArray) -> np.ndarray:
    """Where each uid stands last, ascending, int64."""
    places = pa.table({"uid": uids, "at": np.arange(len(uids))}).group_by("uid").aggregate([("at", "max")])["at_max"]
    return np.sort(places.to_numpy().astype(np.int64))


def counts(tables: Iterable[pa.Table]) -> dict[str, int]:
    """How many samples of some tables of ``REVIEWS`` are kept, dropped, tagged, and have a reviewed caption."""
    found = {"keep": 0, "drop": 0, "tagged": 0, "with_caption": 0}
    for table in tables:
        for verdict in (KEEP, DROP):
            found[verdict] += pc.sum(pc.equal(table["review"], verdict)).as_py() or 0
        found["tagged"] += len(table) - table["review_tags"].null_count
        found["with_caption"] += len(table) - table["caption"].null_count
    return found
