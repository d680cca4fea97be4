"""What the warehouse says of captions and images without asking a model how well they fit, and which pairs to doubt."""

from __future__ import annotations

from dqe_assets.caption.flags import FLAGS
from dqe_assets.core.relations import Table, View, columns, meaning_of, occurrences
from dqe_assets.ingest.planted import EXTREME_ASPECT, SMALL_SIDE
from dqe_assets.score.patterns import PATTERNS
from dqe_assets.score.tables import IMAGE_TEXT, MASKED_SIMILARITY, TEXT_QUALITY
from dqe_assets.score.text_quality import ENGLISH

SIGNAL_READ = {
    "text_quality": (
        TEXT_QUALITY,
        (
            "uid caption_source language language_probability words characters special_ratio digit_ratio repetition "
            "patterns"
        ),
    ),
    "image_text": (IMAGE_TEXT, "uid regions text text_area"),
    "masked_similarity": (MASKED_SIMILARITY, "uid masked_similarity similarity"),
}
SIGNAL_VIEW_OF = {
    "text_quality": "measured_texts",
    "image_text": "read_images",
    "masked_similarity": "masked_scores",
}
"""What the assets are called while the warehouse is built."""

SIGNAL_TABLES = (
    Table(
        "text_quality",
        "What can be said of every caption by its text alone: one row for each sample and caption source",
        columns(
            TEXT_QUALITY,
            uid="VARCHAR",
            caption_source="VARCHAR",
            language="VARCHAR",
            language_probability="FLOAT",
            words="INTEGER",
            characters="INTEGER",
            special_ratio="FLOAT",
            digit_ratio="FLOAT",
            repetition="FLOAT",
            patterns="VARCHAR[]",
        ),
        "SELECT * FROM measured_texts ORDER BY caption_source, uid",
    ),
    Table(
        "image_text",
        "The text in each image, and how well the original caption fits the image without it (T-MARS)",
        columns(IMAGE_TEXT, uid="VARCHAR")
        | {"regions": ("INTEGER", "lines of text; null where there is no image")}
        | columns(IMAGE_TEXT, text="VARCHAR", text_area="FLOAT")
        | columns(MASKED_SIMILARITY, similarity="FLOAT", masked_similarity="FLOAT"),
        """
        SELECT uid, len(t.regions), t.text, t.text_area, m.similarity, m.masked_similarity
        FROM read_images t LEFT JOIN masked_scores m USING (uid) ORDER BY uid
        """,
    ),
)

LOWEST = 0.1
"""The share of a source's captions whose scores count as low."""

UNSHARP = 0.05
"""The share of a source's images that count as blurred."""

REPETITIVE = 0.2
"""Repetition from which a caption objects to itself: one in a thousand captions by InternVL2 of SBU's photos."""

FEWEST_WORDS = 3
"""DataComp's basic filter (Gadre et al. 2023) keeps captions of so many words."""

MOSTLY_TEXT = 0.3
"""Share of an image that text covers from which it is no picture any more."""

NO_SPACES = ("ja", "lo", "my", "th", "zh")
"""Languages that are written without spaces, where words cannot be counted."""

SEVERAL = 3
"""So many pictures, copies of one counting once, with the same caption in the same words."""

SIGNALS_ALONE = 3
"""So many signals make a suspect of a pair whose score is not low."""

REASONS = {
    "low_similarity": ("score", f"fits worse than {1 - LOWEST:.0%} of the source's captions"),
    "fits_by_its_text": ("score", f"only without its text the image is among the {LOWEST:.0%} that fit worst"),
    "short": ("wording", f"fewer than {FEWEST_WORDS} words"),
    "repetition": ("wording", f"{REPETITIVE:.0%} of its words or more repeat what it said"),
    **{name: ("wording", pattern.meaning) for name, pattern in PATTERNS.items()},
    **{flag: ("wording", meaning) for flag, meaning in FLAGS.items() if flag != "not_english"},
    "not_english": ("language", "more likely than not in another language than English"),
    "same_as_others": ("repeated", f"{SEVERAL} pictures or more have it, in the same words"),
    "small": ("image", f"the image's shorter side is under {SMALL_SIDE} pixels"),
    "strip": ("image", f"the image is more than {EXTREME_ASPECT:g} times as long as wide, or as wide as long"),
    "blurred": ("image", f"the image is among the {UNSHARP:.0%} of its source that are least sharp"),
    "mostly_text": ("image", f"text covers {MOSTLY_TEXT:.0%} of the image or more"),
}
"""Why a pair can be doubted: the signal that says so, and what it means. Reasons of one signal depend on each other."""

DECISIVE = ("file_name", "placeholder", "only_hashtags", "no_letters", "empty", "refusal", "boilerplate_only")
"""Reasons that leave no caption at all: they make a suspect of a pair whatever it scores."""

_OTHER_LANGUAGE = f"language <> '{ENGLISH}' AND language_probability > 0.5"
_SIGNALS = tuple(dict.fromkeys(signal for signal, _ in REASONS.values()))
_SAID = {
    "low_similarity": f"rank <= {LOWEST}",
    "fits_by_its_text": f"rank > {LOWEST} AND masked_rank <= {LOWEST} AND masked_similarity < similarity",
    "short": f"words < {FEWEST_WORDS} AND coalesce(language, '') NOT IN {NO_SPACES}",
    "repetition": f"repetition >= {REPETITIVE}",
    "not_english": _OTHER_LANGUAGE,
    "same_as_others": f"repeated >= {SEVERAL}",
    "small": f"least(width, height) < {SMALL_SIDE}",
    "strip": f"greatest(width, height) > {EXTREME_ASPECT} * least(width, height)",
    "blurred": f"blur_rank <= {UNSHARP}",
    "mostly_text": f"text_area >= {MOSTLY_TEXT}",
}


def _objections() -> str:
    """SQL of a list of the reasons against a pair, in the order of ``REASONS``."""
    found = ", ".join(f"CASE WHEN {condition} THEN '{name}' END" for name, condition in _SAID.items())
    ordered = ", ".join(f"'{name}'" for name in REASONS)
    return (
        f"list_filter([{ordered}], lambda reason: "
        f"list_contains(list_distinct([{found}] || coalesce(patterns, []) || coalesce(flags, [])), reason))"
    )


def _names(wanted: str) -> str:
    """SQL of the reasons of a signal."""
    return ", ".join(f"'{name}'" for name, (signal, _) in REASONS.items() if signal == wanted)


def _signals() -> str:
    """SQL of how many signals the reasons come from."""
    return " + ".join(f"list_has_any(reasons, [{_names(signal)}])::INTEGER" for signal in _SIGNALS)


SIGNAL_VIEWS = (
    View(
        "text_quality_by_source",
        "The caption sources beside one another by their texts alone",
        f"""
        SELECT caption_source, count(words) AS captions, avg(({_OTHER_LANGUAGE})::INTEGER) AS share_not_english,
            median(words) AS median_words, avg(special_ratio) AS mean_special_ratio,
            avg(digit_ratio) AS mean_digit_ratio, avg(repetition) AS mean_repetition,
            avg((repetition >= {REPETITIVE})::INTEGER) AS share_repetitive,
            avg((len(patterns) > 0)::INTEGER) AS share_with_pattern
        FROM text_quality GROUP BY caption_source ORDER BY caption_source <> 'original', caption_source
        """,  # noqa: S608
        {
            "captions": "captions that there are",
            "share_not_english": "share of the captions that are more likely than not in another language [0 to 1]",
            "median_words": "half of the captions are shorter [words]",
            "mean_special_ratio": "mean share of signs that are neither letter nor digit [0 to 1]",
            "mean_digit_ratio": "mean share of digits [0 to 1]",
            "mean_repetition": "mean share of words in repeated runs of three [0 to 1]",
            "share_repetitive": f"share of the captions of which {REPETITIVE:.0%} or more repeats [0 to 1]",
            "share_with_pattern": "share of the captions that are or hold what is no description [0 to 1]",
        },
    ),
    View(
        "caption_patterns",
        "What captions are or hold that is no description: how many of each source, and one of them",
        occurrences(
            "text_quality", "patterns", "pattern", {name: pattern.meaning for name, pattern in PATTERNS.items()}
        ),
        {
            "pattern": "what was found",
            "meaning": "what that means",
            "captions": "captions with it",
            "share": "of all captions of the source [0 to 1]",
            "example": "one of them",
        },
    ),
    View(
        "suspects",
        "Pairs of image and caption that no signal trusts: the score is low and another signal objects, "
        f"{SIGNALS_ALONE} signals object, or the caption is none; those first that most signals object to. The signals "
        f"are {', '.join(_SIGNALS)}",
        f"""
        WITH repeated AS (
            SELECT d.uid, d.caption_source, r.repeated FROM caption_duplicates d
            JOIN (
                SELECT caption_source, d.cluster, count(DISTINCT coalesce(s.cluster, s.uid)) AS repeated
                FROM caption_duplicates d JOIN samples s USING (uid) WHERE kind = 'exact' GROUP BY ALL
            ) r USING (caption_source, cluster) WHERE d.kind = 'exact'
        ), pairs AS (
            SELECT c.uid, s.shard, s.image_name, c.caption_source, c.caption, c.similarity, s.width, s.height,
                t.words, t.repetition, t.patterns, t.language, t.language_probability, g.flags, i.text_area, d.repeated,
                CASE WHEN c.caption_source = 'original' THEN i.masked_similarity END AS masked_similarity,
                CASE WHEN c.similarity IS NOT NULL THEN percent_rank() OVER (
                    PARTITION BY s.source, c.caption_source ORDER BY c.similarity NULLS LAST
                ) END AS rank,
                CASE WHEN c.caption_source = 'original' AND i.masked_similarity IS NOT NULL THEN percent_rank() OVER (
                    PARTITION BY s.source, c.caption_source ORDER BY i.masked_similarity NULLS LAST
                ) END AS masked_rank,
                CASE WHEN s.sharpness IS NOT NULL THEN percent_rank() OVER (
                    PARTITION BY s.source, c.caption_source ORDER BY s.sharpness NULLS LAST
                ) END AS blur_rank
            FROM captions c
            JOIN samples s USING (uid)
            LEFT JOIN text_quality t USING (uid, caption_source)
            LEFT JOIN image_text i USING (uid)
            LEFT JOIN caption_generation g USING (uid, caption_source)
            LEFT JOIN repeated d USING (uid, caption_source)
            WHERE s.status = 'ok' AND c.caption IS NOT NULL
        ), judged AS (
            SELECT *, {_objections()} AS reasons FROM pairs
        ), counted AS (
            SELECT *, {_signals()} AS signals,
                list_has_any(reasons, [{_names(wanted="score")}]) AS scores_low
            FROM judged
        )
        SELECT uid, shard, image_name, caption_source, caption, similarity, masked_similarity, signals, reasons
        FROM counted
        WHERE signals >= {SIGNALS_ALONE} OR (scores_low AND signals >= 2) OR list_has_any(reasons, {list(DECISIVE)})
        ORDER BY signals DESC, similarity, uid, caption_source
        """,  # noqa: S608
        {
            "signals": "how many signals object",
            "reasons": "why: " + ", ".join(REASONS),
        },
    ),
)

_MEANING = meaning_of("reason", {name: means for name, (_, means) in REASONS.items()})

SUSPECTS_REPORT = f"""
SELECT caption_source AS source, reason, count(*) AS suspects, {_MEANING} AS meaning
FROM (SELECT caption_source, unnest(reasons) AS reason FROM suspects)
GROUP BY caption_source, reason
QUALIFY row_number() OVER (PARTITION BY caption_source ORDER BY suspects DESC, reason) <= 5
ORDER BY caption_source <> 'original', caption_source, suspects DESC, reason
"""  # noqa: S608
