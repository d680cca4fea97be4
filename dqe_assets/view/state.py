"""What the view shows first: the charts that matter, the pictures, and which columns are shown with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.view.samples import CAPTION, SIMILARITY, VQA

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dqe_assets.core.signals import Signal

THUMBNAIL = "thumbnail"
"""The column of pictures."""

_PICTURES, _MAP, _CONDITIONS = "pictures", "map", "conditions"
_PER_PAGE = 60
_THUMBNAIL_SIDE = 160
_BARS = 8

_NUMBERS = ("original_similarity", SIMILARITY, "gain", VQA)
"""Columns of numbers with a chart of their own, or how they begin."""

_LISTS = ("filters", "flags", "patterns", "concepts")
_TEXTS = ("topic", "best_source", "status", "reason", "source", "split", "top_label")
_TRUTHS = ("is_duplicate", "contaminated")

_ON_CARDS = ("caption", CAPTION)
_BADGES = ("image_name", "original_similarity", SIMILARITY, "best_source", "filters", "topic")

_CONDITIONS_ON = (
    ("status", "no image", "status <> 'ok'"),
    ("caption", "no caption of its own", "status = 'ok' AND trim(coalesce(caption, '')) = ''"),
    ("original_similarity", "fits badly: below 0.1", "original_similarity < 0.1"),
    ("gain", "another caption fits better by 0.1", "gain > 0.1"),
    ("is_duplicate", "redundant duplicate", "is_duplicate"),
    ("flags", "a model's caption is flagged", "len(flags) > 0"),
    ("contaminated", "in a reference set", "contaminated"),
)
"""Conditions that the view offers: the column that they need, what they find, and their SQL."""


def initial_state(schema: pa.Schema, empty: Collection[str], signals: Mapping[str, Signal]) -> dict[str, Any]:
    """The first state of Embedding Atlas, as its option ``--state`` takes it.

    Args:
        schema: of the samples.
        empty: columns without any value: they get no chart.
        signals: the signals, which get charts too.
    """
    names = [name for name in schema.names if name not in empty]
    charts: dict[str, dict[str, Any]] = {
        _PICTURES: {
            "type": "instances",
            "title": "Samples",
            "viewMode": "cards",
            "pageSize": _PER_PAGE,
            "columns": [THUMBNAIL, *_matching(names, (*_ON_CARDS, *_BADGES))],
        },
        _CONDITIONS: {
            "type": "predicates",
            "title": "Conditions",
            "items": [{"name": name, "predicate": sql} for column, name, sql in _CONDITIONS_ON if column in names],
        },
    }
    if "map_x" in names:
        charts[_MAP] = {
            "type": "embedding",
            "title": "Map: what the images show",
            "data": {
                "x": "map_x",
                "y": "map_y",
                "text": "caption",
                "category": "topic",
                **({"neighbors": "neighbours"} if "neighbours" in names else {}),
            },
        }
    for name in _charted(names, signals):
        charts[f"chart-{name}"] = _chart(name, schema.field(name).type)
    return {
        "charts": charts,
        "layouts": {
            "samples": {
                "type": "list",
                "name": "Samples",
                "chartIds": list(charts),
                "showTable": True,
                "showEmbedding": False,
                "showCharts": True,
            },
        },
        "layoutOrder": ["samples"],
        "currentLayout": "samples",
        "columnStyles": {name: _style(name) for name in (THUMBNAIL, *schema.names)},
    }


def _charted(names: Sequence[str], signals: Mapping[str, Signal]) -> list[str]:
    first = _matching(names, (*_NUMBERS, *_TRUTHS, *_LISTS, *_TEXTS))
    return [*first, *(name for name in names if name in signals and name not in first)]


def _matching(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The columns that are wanted, by name or by how they begin, in the order in which they are wanted."""
    found = (name for one in wanted for name in names if name == one or (one.endswith("_") and name.startswith(one)))
    return list(dict.fromkeys(found))


def _chart(name: str, kind: pa.DataType) -> dict[str, Any]:
    title = name.replace("_", " ")
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return _histogram(name, title)
    data = {"field": name, **({"isList": True} if pa.types.is_list(kind) else {})}
    return {"type": "count-plot", "title": title, "data": data, "limit": _BARS}


def _histogram(name: str, title: str) -> dict[str, Any]:
    """A histogram of all samples in pale and of the chosen ones on it, with a brush: as Embedding Atlas makes them."""
    encoding = {"x": {"field": name}, "y": {"aggregate": "count"}}
    return {
        "title": title,
        "layers": [
            {"mark": "bar", "style": {"fillColor": "$markColorFade"}, "encoding": encoding},
            {"mark": "bar", "filter": "$filter", "encoding": encoding},
        ],
        "selection": {"brush": {"encoding": "x"}},
        "widgets": [
            {"type": "scale.type", "channel": "x"},
            {"type": "encoding.normalize", "attribute": "y", "layer": [0, 1], "options": ["x"]},
        ],
    }


def _style(name: str) -> dict[str, Any]:
    if name == THUMBNAIL:
        return {"renderer": "image", "display": "full", "options": {"size": _THUMBNAIL_SIDE}}
    if _matching([name], _ON_CARDS):
        return {"display": "full"}
    return {"display": "badge" if _matching([name], _BADGES) else "hidden"}
