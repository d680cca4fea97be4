"""``dqe concepts``: how often the data shows a concept."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dqe_assets.cli.terminal import clear_errors, json_option, print_json, print_table, say, say_next, say_written
from dqe_resources.printable import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import pyarrow as pa

    from dqe_assets.concepts.lookup import Answer
    from dqe_assets.orchestration.settings import Settings

Names = Annotated[list[str], typer.Argument(help="What to look for, such as 'tabby cat' 'fly agaric'.")]
Limit = Annotated[int, typer.Option(min=0, max=100, help="How many examples of each kind.")]
Page = Annotated[Path | None, typer.Option("--html", help="Write a page with the pictures of the examples here.")]
Json = Annotated[
    bool,
    json_option(
        "concepts, each with concept, known, tasks, shown, concepts_ranked, absent_words, near, counts, plan, "
        "examples, misaligned and candidates."
    ),
]

_PLACES = {"original": "original captions", "image": "images"}


def concepts(names: Names, limit: Limit = 3, html: Page = None, *, as_json: Json = False) -> None:
    """Show how often the data shows a concept, the accuracy that this predicts, the samples missing, and examples."""
    with clear_errors():
        import json

        from dqe_assets.concepts.lookup import Lookup
        from dqe_assets.core.measurements import EXAMPLE_SOURCE
        from dqe_assets.orchestration.settings import load_settings

        settings = load_settings(sources_may_be_away=True)

        def plan(concept: str, item: str, samples: int) -> pa.Table:
            from dqe_assets.concepts.plan import concept_plan, fitted_models
            from dqe_assets.concepts.tables import CONCEPT_PERFORMANCE

            stored = settings.opened_store.read("concept_performance", None, CONCEPT_PERFORMANCE)
            target = settings.concepts.target_accuracy
            return concept_plan([*fitted_models(stored)], [concept], [samples], target, item)

        with closing(settings.warehouse.connect()) as connection:
            lookup = Lookup(connection, settings.concepts.method, settings.concepts.count_by, plan)
            answers = [_readable(lookup.ask(name, limit)) for name in names]
            if html:
                _write_page(settings, connection, answers, html)
        if as_json:
            print_json({"concepts": [_document(answer) for answer in answers]})
            return
        for answer in answers:
            _print(answer)
        if html:
            say_written(html, "Pictures")
        unknown = [answer.concept for answer in answers if not answer.known]
        if unknown:
            line = f"concepts: {{names: {json.dumps(unknown, ensure_ascii=False)}}}"
            say("To count these concepts in every run, in the images too, add this line to data/dqe.yaml: {}", line)
        if any(EXAMPLE_SOURCE in answer.plan["source"].to_pylist() for answer in answers):
            say(
                "[yellow]The predicted accuracies are made up[/yellow]: give your own measurements as "
                "concepts.measurements in data/dqe.yaml (docs/concepts.md)"
            )
        rare = next((answer.concept for answer in answers if not answer.is_shown), None)
        say_next(*([command("dqe search", rare)] if rare else []), 'dqe sql "FROM concept_plan LIMIT 20"')


def _readable(answer: Answer) -> Answer:
    """The answer with HTML entities of captions decoded, as search shows them."""
    from dqe_assets.caption.normalise import normalise_captions

    def decoded(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("caption")
        return table.set_column(place, "caption", normalise_captions(table["caption"]))

    return replace(
        answer,
        examples=decoded(answer.examples),
        misaligned=decoded(answer.misaligned),
        candidates=decoded(answer.candidates),
    )


def _document(answer: Answer) -> dict[str, Any]:
    """What ``--json`` says of a concept."""
    return {
        "concept": answer.concept,
        "known": answer.known,
        "tasks": answer.tasks,
        "shown": answer.is_shown,
        "concepts_ranked": answer.concepts,
        "absent_words": answer.absent_words,
        "near": answer.near,
        "counts": answer.counts,
        "plan": answer.plan,
        "examples": answer.examples,
        "misaligned": answer.misaligned,
        "candidates": answer.candidates,
    }


def _print(answer: Answer) -> None:
    origin = f"in {', '.join(answer.tasks)}" if answer.known else "not in the vocabulary: captions counted now"
    say("\n[b]{}[/b] ({})", answer.concept, origin)
    print_table(_counts(answer))
    for line in _sentences(answer):
        say("{}", line)
    for title, table in (
        ("Examples", answer.examples),
        ("Misaligned: the caption shows it, the image shows something else", answer.misaligned),
        ("Candidates: the nearest samples of the collection", answer.candidates),
    ):
        if len(table):
            say(f"\n{title}")
            print_table(table.drop_columns(["uid"]))


def _counts(answer: Answer) -> pa.Table:
    import pyarrow as pa

    rows = [
        {
            "shown by": row["item"],
            "samples": row["samples"],
            "of": row["searched"],
            "rank": f"{row['rank']:,} of {answer.concepts:,}" if row["samples"] else None,
            "image agrees": row["agreed"],
        }
        for row in answer.counts.to_pylist()
    ]
    return pa.Table.from_pylist(rows)


def _sentences(answer: Answer) -> list[str]:
    """What the counts mean."""
    lines = []
    if answer.absent_words:
        lines.append(f"No caption has the word {' or '.join(answer.absent_words)}.")
    if answer.near:
        lines.append(f"Concepts that are near: {', '.join(answer.near)}.")
    for row in answer.plan.to_pylist():
        value, low, high = (min(max(row[f"predicted_{name}"], 0.0), 1.0) for name in ("accuracy", "low", "high"))
        if row["samples_needed"] == 0:
            bill = f"the target of {row['target_accuracy']:g} is reached"
        elif row["samples_needed"] == float("inf"):
            bill = f"no number of samples is predicted to reach {row['target_accuracy']:g}"
        else:
            bill = f"{row['target_accuracy']:g} needs {row['samples_needed']:,.0f} samples more"
        lines.append(
            f"Predicted zero-shot accuracy of {row['model']}, by the count in {_PLACES.get(row['item'], row['item'])}: "
            f"{value:.2f} (95 % interval {low:.2f} to {high:.2f}); {bill}."
        )
    return lines


def _write_page(
    settings: Settings, connection: duckdb.DuckDBPyConnection, answers: Sequence[Answer], path: Path
) -> None:
    """The examples with their pictures and all their captions, as cards of the gallery."""
    from dqe_assets.report.assets import stored_images
    from dqe_assets.report.gallery import GalleryInputs, render_samples
    from dqe_resources.store import replace_file

    sections = [
        (f"{answer.concept}: {kind}", description, table["uid"].to_pylist())
        for answer in answers
        for kind, description, table in (
            ("examples", "Samples whose image or caption shows it.", answer.examples),
            ("misaligned", "Samples whose caption shows it, and whose image shows something else.", answer.misaligned),
            ("candidates", "The nearest samples of the collection.", answer.candidates),
        )
    ]
    inputs = GalleryInputs(
        connection, lambda uids: stored_images(settings.opened_store, connection, uids), title="Concepts"
    )
    page = render_samples(inputs, sections)
    replace_file(path, lambda target: target.write(page.encode()))
