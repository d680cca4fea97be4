"""Draw the pictures of docs/architecture.md: the layers, and how one pair of the embedded sample travels.

Usage: python docs/draw_architecture.py

Reads a data folder in which the sample is materialised.
"""

from __future__ import annotations

import io
import tomllib
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from dqe_assets.orchestration.settings import load_settings
from dqe_assets.report.assets import stored_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = Path(__file__).parent / "images"
INK, MUTED, EDGE = "#1f2328", "#59636e", "#9aa4af"
STAGE, AROUND, BELOW = "#dcebf5", "#f1f3f5", "#e6f3ee"
NAME, OTHER = "chelsea_10.jpg", "labels"
"""The sample that travels, and the captioner that is shown."""

MEANINGS = {
    "cli": "the dqe command",
    "study": "what the papers found, tried",
    "publish": "datasets and shards to train on",
    "definitions": "what Dagster loads",
    "orchestration": "settings, graph, jobs, sensors, runner",
    "view": "the samples in a browser",
    "report": "warehouse, quality report, gallery: what joins several stages",
    "evaluation": "what models can do",
    "training": "models of subsets",
    "concepts": "what the data shows",
    "filtering": "what to train on",
    "improve": "better captions",
    "search": "the collection, a map",
    "compression": "a share of alike images",
    "rights": "licences and refusals",
    "signals": "values that users bring",
    "contamination": "what is in evaluation sets",
    "grounding": "which words of captions images bear out",
    "score": "how well captions fit",
    "dedup": "copies",
    "caption": "what models say",
    "features": "images measured",
    "ingest": "rows with images",
    "scaling": "data for a compute",
    "core": "Work, Stage, its Dagster face, checks, schema, figures",
    "dqe_resources": "with what: models, captioners, scorers, sources, vectors, store, images",
}
NO_STAGES = frozenset({"cli", "study", "publish", "definitions", "orchestration", "core"})


def layers() -> list[tuple[str, list[tuple[str, str]]]]:
    """The colour and the folders of each layer, as the linter holds them."""
    settings = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {one["id"]: one for one in settings["tool"]["importlinter"]["contracts"]}
    found = [line.split(" | ") for line in contracts["assets"]["layers"]]
    drawn = [
        (AROUND if set(names) <= NO_STAGES else STAGE, [(name, MEANINGS[name]) for name in names]) for names in found
    ]
    return [*drawn, (BELOW, [("dqe_resources", MEANINGS["dqe_resources"])])]


@dataclass(frozen=True)
class Card:
    """A box of the journey: where it is, what it is called, and what it holds of the pair."""

    x: float
    row: float
    title: str
    text: str
    colour: str = STAGE


PATHS = (
    *(("source", "ingest"), ("ingest", "features"), ("ingest", "caption"), ("features", "caption")),
    *(("features", "dedup"), ("features", "score"), ("caption", "score"), ("caption", "concepts")),
    *(("dedup", "filtering"), ("score", "improve"), ("score", "search"), ("improve", "filtering")),
    ("report", "publish"),
)

WIDTH, HEIGHT, ACROSS, DOWN = 2.6, 0.8, 2.9, 1.15
LEFT, MIDDLE, RIGHT = 0.2, 0.2 + ACROSS, 0.2 + 2 * ACROSS


def main() -> None:
    """Draw both."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "text.color": INK})
    draw_layers()
    draw_journey()


def draw_layers() -> None:
    """The layers, each importing only from those below it."""
    height, gap, left, drawn = 0.42, 0.06, 0.65, layers()
    top = len(drawn) * (height + gap) + 0.05
    figure = Figure(figsize=(8.6, top + 0.05), dpi=120)
    axes = _canvas(figure)
    for row, (colour, rooms) in enumerate(drawn):
        y = top - (row + 1) * (height + gap)
        width = (8.55 - left - gap * (len(rooms) - 1)) / len(rooms)
        for column, (name, about) in enumerate(rooms):
            x = left + column * (width + gap)
            _box(axes, (x, y), (width, height), colour)
            axes.text(x + 0.1, y + height / 2, name, fontsize=9.5, fontweight="bold", va="center")
            axes.text(x + width - 0.1, y + height / 2, about, fontsize=8, color=MUTED, va="center", ha="right")
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.2}
    axes.annotate("", (0.4, 0.05), (0.4, top - gap), arrowprops=arrow)
    axes.text(0.2, top / 2, "imports only what is below", fontsize=9, rotation=90, va="center", ha="center")
    _save(figure, "layers.png")


def draw_journey() -> None:
    """How one pair of the sample travels, with what each stage finds."""
    found, image = _what_is_known()
    size = f"{found['width']} x {found['height']}"
    measured = f"{found['top_label']} ({found['probability']:.2f}),\nsharpness {found['sharpness']:.0f}"
    scores = f"original {found['original_similarity']:.2f}\n{found['other']} {found['other_similarity']:.2f}"
    kept = ", ".join(name for name, keeps in found["filters"] if keeps)
    dropped = ", ".join(name for name, keeps in found["filters"] if not keeps)
    written = fill(f"{found['other']}: {found['other_caption']}", 42, max_lines=2, placeholder=" ...")
    beside = (LEFT + MIDDLE) / 2, (MIDDLE + RIGHT) / 2
    cards = {
        "source": Card(MIDDLE, 7, "a row of a source", fill(found["caption"], 40), AROUND),
        "ingest": Card(MIDDLE, 6, "ingest", f"raw_samples: {found['status']},\njpeg, {size} pixels"),
        "features": Card(beside[0], 5, "features", measured),
        "caption": Card(beside[1], 5, "caption", written),
        "dedup": Card(LEFT, 4, "dedup", f"one of {found['size']} copies,\nkept: {found['kept']}"),
        "score": Card(MIDDLE, 4, "score", scores),
        "concepts": Card(
            RIGHT, 4, "concepts", f"caption: {found['in_caption']}\nimage: {found['in_image'] or 'none above 0.5'}"
        ),
        "filtering": Card(LEFT, 3, "filtering", f"kept by {kept}\nnot by {dropped}"),
        "improve": Card(MIDDLE, 3, "improve", f"best caption: {found['best']}\n({found['reason']})"),
        "search": Card(RIGHT, 3, "search", "a point: a vector for the image\nand one for each caption"),
        "report": Card(MIDDLE, 1.8, "report", "a row in the warehouse,\na card in the gallery"),
        "publish": Card(MIDDLE, 0.8, "publish", "in a dataset, if a\ncondition keeps it", AROUND),
    }
    figure = Figure(figsize=(8.9, 8.5), dpi=110)
    axes = _canvas(figure)
    low, high = _y(2.87), _y(5.13) + HEIGHT
    axes.add_patch(
        FancyBboxPatch(
            (0.05, low), 8.8, high - low, boxstyle="round,pad=0,rounding_size=0.1", fc="#f8fafb", ec=EDGE, ls=":"
        )
    )
    axes.text(
        8.75,
        high - 0.1,
        "each adds its own table;\nthe uid is the key",
        fontsize=8,
        color=MUTED,
        va="top",
        ha="right",
    )
    for begin, end in PATHS:
        _arrow(axes, cards[begin], cards[end])
    _line(axes, (MIDDLE + WIDTH / 2, low), (MIDDLE + WIDTH / 2, _y(1.8) + HEIGHT))
    for card in cards.values():
        y = _y(card.row)
        _box(axes, (card.x, y), (WIDTH, HEIGHT), card.colour)
        axes.text(card.x + 0.1, y + HEIGHT - 0.09, card.title, fontsize=9.5, fontweight="bold", va="top")
        axes.text(card.x + 0.1, y + HEIGHT - 0.35, card.text, fontsize=8, color=MUTED, va="top", linespacing=1.2)
    shown = axes.inset_axes((MIDDLE - 1.75, _y(7) - 0.3, 1.65, 1.1), transform=axes.transData)
    shown.imshow(image)
    shown.axis("off")
    _save(figure, "journey.png")


def _what_is_known() -> tuple[dict[str, Any], Image.Image]:
    """What the warehouse says about the pair, and its picture."""
    settings = load_settings()
    with settings.warehouse.connect() as connection:

        def one(query: str, *values: str) -> dict[str, Any]:
            result = connection.execute(query, values)
            names = [column[0] for column in result.description or ()]
            return dict(zip(names, result.fetchone() or (), strict=True))

        found = one("SELECT *, top_label_probability AS probability FROM samples WHERE image_name = ?", NAME)
        uid = found["uid"]
        found |= one(
            "SELECT caption AS other_caption, similarity AS other_similarity FROM captions "
            "WHERE uid = ? AND caption_source = ?",
            *(uid, OTHER),
        )
        found |= one("SELECT caption_source AS best, reason FROM best_captions WHERE uid = ?", uid)
        found |= one(
            "SELECT size, s.image_name AS kept FROM duplicates d JOIN samples s ON s.uid = representative "
            "WHERE d.uid = ? AND kind = 'any'",
            uid,
        )
        for name, item in (("in_caption", "original"), ("in_image", "image")):
            found |= one(
                f"SELECT array_to_string(any_value(concepts), ', ') AS {name} FROM concept_hits "  # noqa: S608
                "WHERE uid = ? AND item = ?",
                *(uid, item),
            )
        masks = one("SELECT * EXCLUDE (uid) FROM filter_masks WHERE uid = ?", uid)
        image = stored_images(settings.opened_store, connection, [uid])[uid]
    return found | {"other": OTHER, "filters": list(masks.items())}, Image.open(io.BytesIO(image))


def _canvas(figure: Figure) -> Axes:
    """Axes over the whole figure, in inches."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(0, figure.get_figheight()))
    axes.axis("off")
    return axes


def _y(row: float) -> float:
    """The lower end of a card of a row."""
    return row * DOWN - 0.75


def _box(axes: Axes, corner: tuple[float, float], size: tuple[float, float], colour: str) -> None:
    style = "round,pad=0,rounding_size=0.07"
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, facecolor=colour, edgecolor=EDGE, lw=0.8))


def _arrow(axes: Axes, begin: Card, end: Card) -> None:
    """From the lower side of a card to the upper side of another; within a row, from side to side."""
    if begin.row == end.row:
        right = begin.x < end.x
        a = (begin.x + WIDTH * right, _y(begin.row) + HEIGHT / 2)
        b = (end.x + WIDTH * (not right), _y(end.row) + HEIGHT / 2)
    else:
        a, b = (begin.x + WIDTH / 2, _y(begin.row)), (end.x + WIDTH / 2, _y(end.row) + HEIGHT)
    _line(axes, a, b)


def _line(axes: Axes, a: tuple[float, float], b: tuple[float, float]) -> None:
    axes.add_patch(
        FancyArrowPatch(a, b, arrowstyle="-|>", mutation_scale=11, color=EDGE, lw=1.1, shrinkA=0, shrinkB=1, zorder=1)
    )


def _save(figure: Figure, name: str) -> None:
    """Keep a picture in few enough colours that a page loads quickly."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
