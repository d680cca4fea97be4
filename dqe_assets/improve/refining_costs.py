"""What refining cost, and the table that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.accounting import busy_seconds
from dqe_assets.improve.tables import REFINED_CAPTIONS

if TYPE_CHECKING:
    from dqe_assets.improve.refining_settings import Refining
    from dqe_resources.captioners.protocol import VisionCaptioner


def costs(rows: pa.Table, rules: Refining, price_per_hour: float | None) -> pa.Array:
    """What each answer cost, float64, null if there is no price.

    By its tokens where the settings price them; otherwise each round's busy time at the price of an hour, shared
    among its answers by the seconds that each took.
    """
    prices = {
        "prompt_tokens": rules.price_per_million_prompt_tokens,
        "completion_tokens": rules.price_per_million_completion_tokens,
    }
    if any(price is not None for price in prices.values()):
        total = np.zeros(rows.num_rows)
        for name, price in prices.items():
            total += pc.fill_null(rows[name], 0).to_numpy() * (price or 0) / 1e6
        return pa.array(total)
    cost = np.full(rows.num_rows, np.nan)
    rounds = rows["round"].to_numpy()
    for number in np.unique(rounds) if price_per_hour is not None else ():
        inside = np.flatnonzero(rounds == number)
        part = rows.take(pa.array(inside))
        busy = busy_seconds(part["finished_at"], part["seconds"])
        seconds = part["seconds"].cast(pa.float64()).to_numpy()
        if busy is not None and np.nansum(seconds) > 0:
            cost[inside] = seconds / np.nansum(seconds) * busy / 3600 * price_per_hour
    return pa.array(cost, from_pandas=True)


def with_settings(
    rows: pa.Table,
    rules: Refining,
    captioner: VisionCaptioner,
    *,
    independent: bool,
) -> pa.Table:
    """``REFINED_CAPTIONS``: what ``refine`` gives, with who was asked, how, and what it cost."""
    same = {
        "caption_source": pa.scalar(rules.source),
        "independent": pa.scalar(independent),
        "temperature": pa.scalar(captioner.temperature, pa.float32()),
    }
    table = rows.append_column("cost", costs(rows, rules, captioner.price_per_hour))
    for name, value in same.items():
        table = table.append_column(name, pa.repeat(value, rows.num_rows))
    return table.select(REFINED_CAPTIONS.names).cast(REFINED_CAPTIONS)
