"""The page of a study, one HTML file that needs nothing outside itself, and the same as JSON."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL.Image import Resampling

from dqe_assets.core.figures import DARK, LIGHT, contact_sheet, data_uri
from dqe_assets.core.pages import rendered
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.study import plots
from dqe_assets.study.plan import CONCEPTS
from dqe_assets.study.results import RULE, in_numbers
from dqe_resources.images import decode
from dqe_resources.store import Store, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dqe_assets.core.figures import Theme
    from dqe_assets.study.plan import Study
    from dqe_assets.study.results import Result

PAGE, DOCUMENT = "study.html", "study.json"

CREDIT = "The drawings are OpenMoji's (openmoji.org), CC BY-SA 4.0; their names are Unicode's (CLDR)."

LIMITS = (
    "The pictures are drawings of 32 pixels, and captions come from templates: no photo, no grammar, few words.",
    "Models have 3.4 million weights and see some ten thousand samples; the papers' see millions to billions.",
    "The scorer knows the world well, as it was trained on clean pairs of it. On the web no scorer does.",
    "Seeds differ in everything: pool, frequent things, scorer, models. With few seeds, intervals are wide.",
    "A difference that cannot be told from 0 may still be there.",
)

_SHOWN = 24


def write_page(study: Study, results: Sequence[Result]) -> tuple[Path, Path]:
    """Write the page and the JSON document; returns their paths. The same tables give the same bytes.

    Raises:
        StorageError: a table is not there.
    """
    page, document = study.folder / PAGE, study.folder / DOCUMENT
    _write(document, json.dumps(_document(study, results), indent=1, ensure_ascii=False) + "\n")
    _write(page, _rendered(study, results))
    return page, document


def _document(study: Study, results: Sequence[Result]) -> dict[str, Any]:
    size = study.size
    return {
        "seeds": list(study.seeds),
        "rows": size.rows,
        "samples_seen": size.samples_seen,
        "chance": 1 / CONCEPTS,
        "rule": RULE,
        "findings": [one.document() for one in results],
    }


def _rendered(study: Study, results: Sequence[Result]) -> str:
    return rendered(
        Path(__file__).with_name("page.html.j2"),
        {"count": lambda n: f"{n:,.0f}", "numbers": in_numbers},
        study=study,
        results=results,
        pictures=[_pictures(one) for one in results],
        world=_both(lambda theme: _world(study, theme)),
        concepts=CONCEPTS,
        rule=RULE,
        limits=LIMITS,
        credit=CREDIT,
    )


def _both(draw: Callable[[Theme], bytes]) -> tuple[str, str]:
    light, dark = draw(LIGHT), draw(DARK)
    return data_uri(light), data_uri(dark)


def _pictures(result: Result) -> list[tuple[str, str, str]]:
    """The alternative text of each plot, and its two data URIs."""
    drawn = []
    if arms := [*result.arms.values()]:
        drawn.append(("Accuracy of each arm", *_both(lambda theme: plots.accuracies(arms, 1 / CONCEPTS, theme))))
    if law := result.law:
        drawn.append(("Loss over samples seen", *_both(lambda theme: plots.over_compute(law, theme))))
    if clean := result.clean:
        drawn.append(("Loss over samples seen, clean parts", *_both(lambda theme: plots.over_compute(clean, theme))))
    if measured := result.by_frequency:
        drawn.append(("Accuracy over frequency", *_both(lambda theme: plots.over_frequency(measured, theme))))
    drawn.append(("Differences", *_both(lambda theme: plots.differences(result, theme))))
    return drawn


def _world(study: Study, theme: Theme) -> bytes:
    """The first rows of the first seed's pool, with the captions that they were found with."""
    seed = study.seeds[0]
    store = Store(str(study.seed_folder(seed) / "store"))
    shard = next(study.web(seed).shards())
    table = store.read("raw_samples", study.web(seed).key(shard.index), RAW_SAMPLES, ["image", "caption"])
    rows = table.slice(0, _SHOWN).to_pylist()
    return contact_sheet([_larger(row["image"]["bytes"]) for row in rows], [row["caption"] for row in rows], 6, theme)


def _larger(image: bytes) -> bytes:
    """A picture of the world as large as a page shows it, each pixel as it is."""
    picture, file = decode(image), BytesIO()
    picture.resize((96, 96), Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def _write(path: Path, text: str) -> None:
    def write(target: BinaryIO) -> None:
        target.write(text.encode())

    replace_file(path, write)
