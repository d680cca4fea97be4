"""Write the figures and pictures of a finished study into docs/study.md.

Usage: python docs/make_study.py data/study

The folder is that of ``dqe study``. In docs/study.md, what stands between ``<!-- study: 2 -->`` and ``<!-- end -->`` is
written here: of a finding its verdict, claim and tables, of ``<!-- study: run -->`` what was run. The sentences
outside, which say what the figures mean, are written by hand: read them again.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DOCS = Path(__file__).parent

_GENERATED = re.compile(r"(<!-- study: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PICTURE = re.compile(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">')
_DRAWN = {
    "Accuracy of each arm": ("accuracy", "Accuracy of each arm, with intervals over seeds"),
    "Loss over samples seen": ("compute", "Loss over samples seen, and what was predicted of mixtures"),
    "Loss over samples seen, clean parts": (
        "clean",
        "The same of a cleaner pool, of which each part teaches something",
    ),
    "Accuracy over frequency": ("frequency", "Accuracy of each class over how often captions name it"),
}
"""The pictures of the page that are shown: name of the file, and what they show."""


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of study.json and study.html")
    folder = parser.parse_args().folder
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    drawn = pictures((folder / "study.html").read_text(encoding="utf-8"))
    for name, picture in drawn.items():
        (DOCS / "images" / name).write_bytes(picture)
    page = DOCS / "study.md"
    page.write_text(written(page.read_text(encoding="utf-8"), study, drawn), encoding="utf-8")


def written(page: str, study: dict[str, Any], drawn: dict[str, bytes]) -> str:
    """The page with the figures of a study.

    Args:
        page: as it is.
        study: the document of a study.
        drawn: its pictures, by name.
    """
    found = {str(one["number"]): one for one in study["findings"]}

    def generated(match: re.Match[str]) -> str:
        if match[2] == "run":
            return f"{match[1]}\n{_run(study)}\n\n{match[3]}"
        if match[2] not in found:
            return match[0]
        return f"{match[1]}\n{_finding(found[match[2]], study, drawn)}\n\n{match[3]}"

    return _GENERATED.sub(generated, page)


def pictures(page: str) -> dict[str, bytes]:
    """The pictures of a study's page that are shown, as PNG, by the name of their file."""
    found = {}
    for section in page.split('<section id="finding-')[1:]:
        number = section.partition('"')[0]
        for data, alt in _PICTURE.findall(section):
            if alt in _DRAWN:
                found[f"study_{number}_{_DRAWN[alt][0]}.png"] = base64.b64decode(data)
    return found


def _run(study: dict[str, Any]) -> str:
    seeds = study["seeds"]
    return (
        f"Seeds {_listed(seeds)}: as many worlds. A pool has {study['rows']:,} pictures, and every model sees "
        f"{study['samples_seen']:,} samples. A guess would be right once in {1 / study['chance']:.0f} "
        f"({study['chance']:.3f})."
    )


def _finding(one: dict[str, Any], study: dict[str, Any], drawn: dict[str, bytes]) -> str:
    parts = [
        f"### {one['name']}: {one['verdict']}",
        one["claim"],
        f"**The paper.** {one['paper']}",
        f"**What is different.** {one['different']}",
        f"**What decides.** {one['reason'][:1].upper()}{one['reason'][1:]}.",
    ]
    if one["arms"]:
        rows = [
            [arm["what"], f"{arm['samples']:,.0f}", _interval(arm["accuracy"]), _each(arm["accuracy"])]
            for arm in one["arms"]
        ]
        head = ("trained on", "samples", f"accuracy, mean of {len(study['seeds'])} seeds (95 % interval)", "each seed")
        parts.append(_table(head, rows))
    if one["law"]:
        parts += _law(one["law"])
    if one["clean"]:
        parts += ["The same of a cleaner pool, of which each part teaches something:", *_law(one["clean"])]
        parts += ["Fitted to the mean of all seeds' curves, the law is off on average over points:", _together(one)]
    if one["by_frequency"]:
        rows = [
            [
                f"`{arm['arm']}`",
                _interval(arm["accuracy_for_a_tenfold_count"], signed=True),
                _interval(arm["r_of_bins"]),
                _interval(arm["r_of_classes"]),
            ]
            for arm in one["by_frequency"]
        ]
        parts.append(_table(("subset", "accuracy gained with a tenfold count", "r over bins", "r over classes"), rows))
    if one["addition"]:
        parts.append(_addition(one["addition"]))
    rows = [
        [
            compared["question"],
            compared["name"],
            _interval(compared["difference"], signed=True),
            "claim" if compared["is_claim"] else "control",
        ]
        for compared in one["comparisons"]
    ]
    parts.append(_table(("question", "difference", "mean (95 % interval)", ""), rows))
    parts += [
        f"![{what}](images/{name})"
        for word, what in _DRAWN.values()
        if (name := f"study_{one['number']}_{word}.png") in drawn
    ]
    return "\n\n".join(parts)


def _law(law: dict[str, Any]) -> Iterator[str]:
    budgets = [*law["recommended_pools"]]
    rows = [
        [
            curve["what"],
            f"{curve['samples']:,.0f}",
            *(_interval(curve["loss"][seen]) for seen in budgets),
            _interval(curve["predicted"][budgets[-1]]) if budgets[-1] in curve["predicted"] else "",
        ]
        for curve in law["curves"]
    ]
    yield _table(
        (
            "trained on",
            "samples",
            *(f"loss at {int(seen):,}" for seen in budgets),
            f"predicted at {int(budgets[-1]):,}",
        ),
        rows,
    )
    kept = "; ".join(
        f"for {int(seen):,} samples seen the best {_listed(law['recommended_pools'][seen].values())}"
        for seen in budgets
    )
    yield (
        f"On average over mixtures and points, the law is off by {_interval(law['error_of_law'])}, the mean of the "
        f"parts' losses by {_interval(law['error_of_mean'])}.{_silence(law)} How many parts the platform recommends, "
        f"seed by seed: {kept}."
    )


def _together(one: dict[str, Any]) -> str:
    rows = [
        [
            mixed["what"],
            *("" if mixed[off] is None else f"{mixed[off]:.3f}" for off in ("error_of_law", "error_of_mean")),
        ]
        for mixed in one["together"]
    ]
    return _table(("mixture", "the law", "the mean of the parts' losses"), rows)


def _silence(law: dict[str, Any]) -> str:
    if not (seeds := law["silent_in_seeds"]):
        return ""
    return f" It predicts nothing in seed{'s' * (len(seeds) > 1)} {_listed(seeds)}, where the mean stands for it."


def _addition(added: dict[str, Any]) -> str:
    return (
        f"Of the rarest tenth of things, {_interval(added['captions_before'])} captions name each before, and "
        f"{_interval(added['captions_after'])} after. Their accuracy rises by {_interval(added['lift'], signed=True)}; "
        f"the fit predicts {_interval(added['predicted_lift'], signed=True)}."
    )


def _interval(spread: dict[str, Any], *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    ends = f" ({spread['low']:{form}} to {spread['high']:{form}})" if spread["low"] is not None else ""
    return f"{spread['mean']:{form}}{ends}"


def _each(spread: dict[str, Any]) -> str:
    return ", ".join(f"{value:.3f}" for value in spread["by_seed"].values())


def _listed(values: Any) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
