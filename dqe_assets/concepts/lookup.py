"""Answers how often the data shows a concept that someone asks for, in the vocabulary or not, from the warehouse.

A concept in the vocabulary has been counted, so the answer is read. Any other is counted now, in the captions of the
warehouse: DuckDB first finds the captions that have a form of each word as a part of them, a quick scan that splits and
lemmatises nothing, and only those few are counted as all captions were. Every word of such a concept is needed, also
where ``absent_words`` is ``ignore``; images are not looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.concepts.counting import ConceptIndex
from dqe_assets.concepts.lemmas import PLURALS, words_of
from dqe_assets.concepts.vocabulary import same_name
from dqe_assets.core.schema import IMAGE, ORIGINAL
from dqe_resources.warehouse import WarehouseMissingError

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from dqe_assets.concepts.lemmas import Method

    Plan = Callable[[str, str, int], pa.Table]

NEAREST = 3

_VOCABULARY = "SELECT DISTINCT concept, tasks, position FROM concept_frequency ORDER BY position"
_COUNTS = """
SELECT item, samples, searched, rank, agreed, absent_words FROM concept_frequency WHERE concept = ?
ORDER BY item <> 'original', item = 'image', item
"""
_PLAN = """
SELECT model, item, samples, predicted_accuracy, predicted_low, predicted_high, target_accuracy, samples_needed, source
FROM concept_plan WHERE concept = ? ORDER BY model
"""
_SHOWN = """
WITH shown AS (
    SELECT uid, list(item ORDER BY item <> 'image', item <> 'original', item) AS items
    FROM concept_hits WHERE list_contains(concepts, ?) GROUP BY uid
)
SELECT s.uid, s.image_name, array_to_string(shown.items, ', ') AS shown_by, c.similarity, c.caption
FROM shown JOIN samples s USING (uid)
LEFT JOIN captions c ON c.uid = s.uid
    AND c.caption_source = coalesce(list_filter(shown.items, lambda item: item <> 'image')[1], 'original')
ORDER BY list_contains(shown.items, 'original') DESC, len(shown.items) DESC, c.similarity DESC NULLS LAST, s.uid LIMIT ?
"""
_MISALIGNED = """
SELECT uid, image_name, caption_source, array_to_string(image_concepts, ', ') AS image_shows, similarity, caption
FROM misaligned_samples WHERE list_contains(caption_concepts, ?) ORDER BY similarity, uid, caption_source LIMIT ?
"""
_CANDIDATES = """
SELECT uid, image_name, item AS nearest_by, score, caption FROM rare_concept_retrieval WHERE concept = ?
ORDER BY place, item <> 'image', item LIMIT ?
"""
_CANDIDATE_CAPTIONS = """
SELECT uid, caption_source, caption FROM captions
WHERE ({}) OR strlen(caption) <> length(caption) OR contains(caption, '&')
"""
"""Beyond ASCII, and by HTML entities, a word can be written in more than one way: no part of it has to be there."""

_COUNTED = """
WITH sources AS (
    SELECT item, any_value(searched) AS searched FROM concept_frequency WHERE item <> 'image' GROUP BY item
), counted AS (
    SELECT s.item, count(f.uid) AS samples, s.searched
    FROM sources s LEFT JOIN found f ON f.caption_source = s.item GROUP BY ALL
)
SELECT c.item, c.samples, c.searched, NULL::BIGINT AS agreed,
    (SELECT 1 + count(*) FROM concept_frequency f WHERE f.item = c.item AND f.samples > c.samples) AS rank
FROM counted c ORDER BY c.item <> 'original', c.item
"""
_FOUND = """
SELECT s.uid, s.image_name, c.caption_source AS shown_by, c.similarity, c.caption
FROM captions c JOIN samples s USING (uid) JOIN found USING (uid, caption_source)
ORDER BY c.caption_source <> 'original', c.similarity DESC NULLS LAST, s.uid LIMIT ?
"""
_FOUND_CAPTIONS = pa.schema([("uid", pa.string()), ("caption_source", pa.string())])
_BATCH = 16_384


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a concept.

    Attributes:
        concept: its name: as the vocabulary has it, or as it was asked for.
        known: whether it is in the vocabulary.
        tasks: the lists that it comes from.
        counts: item, samples, searched, rank, agreed (null if not known): a row for each caption source, and image.
        concepts: how many concepts are ranked.
        absent_words: words of it that no caption has.
        plan: ``CONCEPT_PLAN`` of it, without its place.
        examples: uid, image_name, shown_by, similarity and caption of samples that show it.
        misaligned: uid, image_name, caption_source, image_shows, similarity and caption of samples whose caption shows
            it and whose image shows something else.
        candidates: uid, image_name, nearest_by, score and caption of the nearest samples, of the rarest concepts.
        near: concepts of the vocabulary that resemble one that is not in it, or that nothing shows.
    """

    concept: str
    known: bool
    tasks: tuple[str, ...]
    counts: pa.Table
    concepts: int
    absent_words: tuple[str, ...]
    plan: pa.Table
    examples: pa.Table
    misaligned: pa.Table
    candidates: pa.Table
    near: tuple[str, ...]

    @property
    def is_shown(self) -> bool:
        """Whether a sample shows it."""
        return (pc.sum(self.counts["samples"]).as_py() or 0) > 0


class Lookup:
    """Answers from a warehouse."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, method: Method, count_by: str, plan: Plan) -> None:
        """Read the vocabulary.

        Args:
            connection: a connection to the warehouse.
            method: how words are compared.
            count_by: the item whose counts predict accuracy.
            plan: ``CONCEPT_PLAN`` of a concept that is not in the vocabulary, from its name, the item counted and the
                count.

        Raises:
            WarehouseMissingError: the warehouse knows no concepts.
        """
        import duckdb

        self._connection = connection
        self._method = method
        self._count_by = count_by
        self._plan = plan
        try:
            rows = connection.execute(_VOCABULARY).fetchall()
        except duckdb.CatalogException:
            rows = []
        if not rows:
            raise WarehouseMissingError("the warehouse knows no concepts yet: run: dqe materialize")
        self._vocabulary = {same_name(concept): (concept, tuple(tasks)) for concept, tasks, _ in rows}

    def ask(self, name: str, limit: int) -> Answer:
        """All that is known of a concept, with so many examples at most.

        Raises:
            ValueError: the name has neither a letter nor a digit.
        """
        if not words_of(name, self._method):
            raise ValueError(f"'{name}' has neither a letter nor a digit")
        known = self._vocabulary.get(same_name(name))
        return self._read(*known, limit) if known else self._count(" ".join(name.split()), limit)

    def _read(self, concept: str, tasks: tuple[str, ...], limit: int) -> Answer:
        counts = self._table(_COUNTS, concept)
        absent = [words for words in counts["absent_words"].to_pylist() if words is not None]
        return Answer(
            concept,
            True,
            tasks,
            counts.drop_columns(["absent_words"]),
            len(self._vocabulary),
            tuple(word for word in words_of(concept, self._method) if all(word in words for words in absent)),
            self._table(_PLAN, concept),
            self._table(_SHOWN, concept, limit),
            self._table(_MISALIGNED, concept, limit),
            self._table(_CANDIDATES, concept, limit),
            () if any(counts["samples"].to_pylist()) else self._near(concept),
        )

    def _count(self, concept: str, limit: int) -> Answer:
        found = self._captions_with(concept)
        self._connection.register("found", found)
        try:
            counts, examples = self._table(_COUNTED), self._table(_FOUND, limit)
        finally:
            self._connection.unregister("found")
        samples = dict(zip(counts["item"].to_pylist(), counts["samples"].to_pylist(), strict=True))
        source = ORIGINAL if self._count_by == IMAGE else self._count_by
        words = () if len(found) else words_of(concept, self._method)
        return Answer(
            concept,
            False,
            (),
            counts,
            len(self._vocabulary),
            tuple(word for word in words if not len(self._captions_with(word))),
            self._plan(concept, source, samples.get(source, 0)).drop_columns(["concept", "place"]),
            examples,
            examples.slice(0, 0),
            examples.slice(0, 0),
            self._near(concept),
        )

    def _captions_with(self, concept: str) -> pa.Table:
        """The uid and the source of the captions that have all words of a concept."""
        conditions, values = [], []
        for word in words_of(concept, self._method):
            parts = word_parts(word, self._method)
            conditions.append(f"({' OR '.join(['contains(lower(caption), ?)'] * len(parts))})")
            values += parts
        index = ConceptIndex([concept], self._method, "zero")
        tables = [_FOUND_CAPTIONS.empty_table()]
        candidates = self._connection.sql(_CANDIDATE_CAPTIONS.format(" AND ".join(conditions)), params=values)
        for batch in candidates.to_arrow_reader(_BATCH):
            captions = normalise_captions(batch.column("caption"))
            shows = pc.greater(index.hits(captions).concepts.value_lengths(), 0)
            tables.append(pa.Table.from_batches([batch]).select(_FOUND_CAPTIONS.names).filter(shows))
        return pa.concat_tables(tables)

    def _near(self, concept: str) -> tuple[str, ...]:
        """Concepts that share a word with it, the closest first, then those that are written alike."""
        words = set(words_of(concept, self._method))
        names = {plain: name for plain, (name, _) in self._vocabulary.items() if plain != same_name(concept)}
        sharing = [plain for plain, name in names.items() if words & set(words_of(name, self._method))]
        closest = get_close_matches(same_name(concept), sharing, NEAREST, 0)
        alike = get_close_matches(same_name(concept), names, NEAREST)
        return tuple(names[plain] for plain in dict.fromkeys([*closest, *alike]))[:NEAREST]

    def _table(self, sql: str, *values: Any) -> pa.Table:
        return self._connection.sql(sql, params=list(values)).to_arrow_table()


def word_parts(word: str, method: Method) -> list[str]:
    """Pieces of text of which every form of a word has at least one, in lower case, if it is written in ASCII.

    Args:
        word: as ``words_of`` gives it.
        method: how words are compared.
    """
    if method == "lowercased":
        return [word]
    forms = _forms_by_lemma()
    found, new = {word}, [word]
    while new:
        new = [form for lemma in new for form in forms.get(lemma, ()) if form not in found]
        found.update(new)
    # simplemma's rules for words that are not in its dictionary put endings behind a lemma, or -cies in place of -cy.
    found |= {form[:-1] for form in found if form.endswith("cy")}
    shortest = sorted(found, key=len)
    return [form for place, form in enumerate(shortest) if not any(other in form for other in shortest[:place])]


@cache
def _forms_by_lemma() -> dict[str, list[str]]:
    """The table of ``lemma``, inverted: the forms of each lemma."""
    from simplemma.strategies.dictionaries.dictionary_factory import DEFAULT_DICTIONARY_FACTORY

    forms: dict[str, list[str]] = {}
    for form, lemma in DEFAULT_DICTIONARY_FACTORY.get_dictionary("en").items():
        forms.setdefault(lemma.casefold(), []).append(form.casefold())
    for form, lemma in PLURALS.items():
        forms.setdefault(lemma, []).append(form)
    return forms
