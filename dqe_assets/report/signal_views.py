"""The signals of all stages: columns of samples, how their values are spread, and what they look like."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.figures import PLOTTED, histograms
from dqe_assets.core.relations import (
    Explanation,
    GalleryGroups,
    GalleryPlots,
    Group,
    Member,
    Read,
    Relations,
    ReportSection,
    Table,
    literal,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    import duckdb

    from dqe_assets.core.relations import Drawing
    from dqe_assets.core.signals import Signal

_SHOWN = 8
"""Samples of each signal that the gallery shows."""


def sample_columns(signals: Mapping[str, Signal]) -> tuple[dict[str, tuple[str, str]], str, str]:
    """The columns that signals add to the table of samples.

    Returns:
        SQL type and meaning of each, the SQL that selects them, and the joins that it needs.
    """
    assets = list(dict.fromkeys(one.asset for one in signals.values()))
    selected = "".join(f', s{assets.index(one.asset)}."{one.column}"' for one in signals.values())
    joins = "\n".join(f"LEFT JOIN {stored(name)} s{place} USING (uid)" for place, name in enumerate(assets))
    return {name: (one.sql_type, one.meaning) for name, one in signals.items()}, selected, joins


def relations_of(signals: Mapping[str, Signal], read: Container[str]) -> Relations:
    """What signals add besides.

    Args:
        signals: the signals, by name.
        read: assets that other relations read already, the signals' columns among what they read of them.
    """
    of_assets: dict[str, list[Signal]] = {}
    for one in signals.values():
        of_assets.setdefault(one.asset, []).append(one)
    return Relations(
        reads=tuple(
            Read(asset, found[0].schema, " ".join(["uid", *(one.column for one in found)]))
            for asset, found in of_assets.items()
            if asset not in read
        ),
        tables=(_table_of(signals),),
        report_sections=(
            ReportSection(
                "Signals",
                "Values of samples that are not the platform's own: each is a column of samples.",
                'SELECT signal, asset, "values", share, minimum AS min, median, mean, maximum AS max FROM signals',
                order=92,
                only_with="signals",
            ),
        ),
        gallery_groups=(
            GalleryGroups(
                "signals",
                "Signals",
                "Samples from the least value of each signal to the largest, at equal distances in their order.",
                _from_least_to_most,
                order=70,
            ),
        ),
        gallery_plots=(GalleryPlots(_spreads, order=45),),
        explanations=tuple(
            Explanation(
                f"Signals of {asset.rpartition('/')[2]}",
                (asset,),
                f"SELECT {_quoted(one.name for one in found)} FROM samples WHERE uid = ?",  # noqa: S608
                order=35,
                upright=True,
            )
            for asset, found in of_assets.items()
            # Who reads all assets of a prefix tells of them.
            if f"{asset.partition('/')[0]}/" not in read
        ),
    )


def _table_of(signals: Mapping[str, Signal]) -> Table:
    """The table of signals: a row for each, with how its values are spread."""
    rows = [
        f"""
        SELECT {literal(one.name)}, {literal(one.asset)}, {literal(one.sql_type)}, count("{one.name}"),
            count("{one.name}") / nullif(count(*), 0), count(DISTINCT "{one.name}"), {_spread(one)}
        FROM samples WHERE status = 'ok'
        """  # noqa: S608
        for one in signals.values()
    ]
    no_row = f"SELECT {', '.join(['NULL'] * 10)} LIMIT 0"
    return Table(
        "signals",
        "The signals: values of samples that are not the platform's own, each a column of samples of the same name",
        {
            "signal": ("VARCHAR", "its name in expressions and in samples"),
            "asset": ("VARCHAR", "the asset that has it"),
            "type": ("VARCHAR", "type of its values"),
            "values": ("BIGINT", "samples with an image that have a value"),
            "share": ("DOUBLE", "values / samples with an image [0 to 1]"),
            "different": ("BIGINT", "different values"),
            "minimum": ("DOUBLE", "least value; null if they are no numbers"),
            "median": ("DOUBLE", "half of the values lie below; null if they are no numbers"),
            "mean": ("DOUBLE", "mean value, share of true; null for texts"),
            "maximum": ("DOUBLE", "largest value; null if they are no numbers"),
        },
        " UNION ALL ".join(rows) or no_row,
    )


def _spread(signal: Signal) -> str:
    """SQL of the least, median, mean and largest value."""
    if signal.sql_type == "VARCHAR":
        return "NULL, NULL, NULL, NULL"
    if signal.sql_type == "BOOLEAN":
        return f'NULL, NULL, avg("{signal.name}"::INTEGER), NULL'
    return ", ".join(f'{function}("{signal.name}")::DOUBLE' for function in ("min", "median", "avg", "max"))


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _numbers(connection: duckdb.DuckDBPyConnection, limit: int) -> list[tuple[str, int, float]]:
    """Name, count of values and median of the signals that are numbers, and have some."""
    query = 'SELECT signal, "values", median FROM signals WHERE median IS NOT NULL ORDER BY signal LIMIT ?'
    return connection.execute(query, [limit]).fetchall()


def _from_least_to_most(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterable[Group]:
    for name, count, median in _numbers(connection, limit):
        places = sorted({place * (count - 1) // (_SHOWN - 1) for place in range(_SHOWN)})
        members = connection.execute(
            f"""
            SELECT uid, value FROM (
                SELECT uid, "{name}" AS value, row_number() OVER (ORDER BY "{name}", uid) - 1 AS place
                FROM samples WHERE status = 'ok' AND "{name}" IS NOT NULL
            ) WHERE place IN (SELECT unnest(?)) ORDER BY place
            """,  # noqa: S608 - a name of a signal
            [places],
        ).fetchall()
        yield Group(
            f"{name}: {count:,} values, half of them below {median:.3g}",
            tuple(Member(uid, False, f"{value:.3g}") for uid, value in members),
        )


def _spreads(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterable[Drawing]:
    names = [name for name, _, _ in _numbers(connection, limit)]
    if names:
        values = connection.execute(
            f"SELECT {_quoted(names)} FROM samples WHERE status = 'ok' ORDER BY uid LIMIT {PLOTTED}"  # noqa: S608
        ).fetchnumpy()
        series = {name: np.ma.filled(values[name].astype(float), np.nan) for name in names}
        yield "how the signals are spread", partial(histograms, series)
