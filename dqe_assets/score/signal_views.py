"""Views of captions and images that need no model to say how well they fit, and the pairs to doubt."""

from __future__ import annotations

from dqe_assets.caption.flags import FAULTS, UNGROUNDED
from dqe_assets.core.relations import (
    Explanation,
    Problem,
    Read,
    Relations,
    ReportSection,
    Table,
    View,
    columns,
    literal,
    meaning,
    meaning_of,
    occurrences,
    sql_file,
)
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.ingest.planted import EXTREME_ASPECT, SMALL_SIDE
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score.patterns import PATTERNS
from dqe_assets.score.tables import CAPTION_SCORES, IMAGE_TEXT, MASKED_SIMILARITY, TEXT_QUALITY
from dqe_assets.score.text_quality import ENGLISH

_TEXT = columns(
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
)

LOWEST = 0.1
"""The share of a source's captions whose scores count as low, of those that have one."""

UNSHARP = 0.05
"""The share of a source's images that count as blurred."""

_TABLES = (
    Table(
        "text_quality",
        "What can be said of every caption by its text alone: one row for each sample and caption source",
        _TEXT,
        "SELECT * FROM stored_text_quality ORDER BY caption_source, uid",
        by_shard=True,
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
        FROM stored_image_text t LEFT JOIN stored_masked_similarity m USING (uid) ORDER BY uid
        """,
        by_shard=True,
    ),
    Table(
        "score_limits",
        "What counts as low in suspects: for each source and caption source, among the captions that have an image",
        {
            "source": ("VARCHAR", meaning(RAW_SAMPLES, "source")),
            "caption_source": ("VARCHAR", "original, a captioner's name, or refined: where one was asked for again"),
            "similarity_limit": ("FLOAT", f"the highest similarity of the {LOWEST:.0%} that fit worst [-1 to 1]"),
            "masked_limit": (
                "FLOAT",
                "the same of the similarity with the image without its text; of originals alone [-1 to 1]",
            ),
            "vqa_limit": ("FLOAT", f"the highest vqa of the {LOWEST:.0%} that are least true [0 to 1]"),
            "sharpness_limit": ("FLOAT", f"the highest sharpness of the {UNSHARP:.0%} whose images are least sharp"),
        },
        f"""
        SELECT s.source, c.caption_source, quantile_disc(c.similarity, {LOWEST}),
            quantile_disc(i.masked_similarity, {LOWEST}) FILTER (c.caption_source = '{ORIGINAL}'),
            quantile_disc(c.vqa, {LOWEST}), quantile_disc(s.sharpness, {UNSHARP})
        FROM captions c JOIN samples s USING (uid) LEFT JOIN image_text i USING (uid)
        WHERE s.status = 'ok' AND c.caption IS NOT NULL
        GROUP BY s.source, c.caption_source ORDER BY s.source, c.caption_source
        """,  # noqa: S608
    ),
)

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
    "low_vqa": ("score", f"less true than {1 - LOWEST:.0%} of the source's captions, by the vqa scorer"),
    "short": ("wording", f"fewer than {FEWEST_WORDS} words"),
    "repetition": ("wording", f"{REPETITIVE:.0%} of its words or more repeat what it said"),
    **{name: ("wording", pattern.meaning) for name, pattern in PATTERNS.items()},
    **{flag: ("wording", meaning) for flag, meaning in FAULTS.items() if flag != "not_english"},
    "not_english": ("language", "more likely than not in another language than English"),
    UNGROUNDED: ("grounding", "its image shows too few of the things that it names"),
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
    "low_similarity": "similarity <= similarity_limit",
    "fits_by_its_text": (
        "similarity > similarity_limit AND masked_similarity <= masked_limit AND masked_similarity < similarity"
    ),
    "low_vqa": "vqa <= vqa_limit",
    "short": f"words < {FEWEST_WORDS} AND coalesce(language, '') NOT IN {NO_SPACES}",
    "repetition": f"repetition >= {REPETITIVE}",
    "not_english": _OTHER_LANGUAGE,
    UNGROUNDED: "flagged",
    "same_as_others": f"repeated >= {SEVERAL}",
    "small": f"least(width, height) < {SMALL_SIDE}",
    "strip": f"greatest(width, height) > {EXTREME_ASPECT} * least(width, height)",
    "blurred": "sharpness <= sharpness_limit",
    "mostly_text": f"text_area >= {MOSTLY_TEXT}",
}


def _objections() -> str:
    """SQL of a list of the reasons against a pair, in the order of ``REASONS``."""
    found = ", ".join(f"CASE WHEN {condition} THEN '{name}' END" for name, condition in _SAID.items())
    ordered = ", ".join(map(literal, REASONS))
    return (
        f"list_filter([{ordered}], lambda reason: "
        f"list_contains(list_distinct([{found}] || coalesce(patterns, []) || coalesce(flags, [])), reason))"
    )


def _names(wanted: str) -> str:
    """SQL of the reasons of a signal."""
    return ", ".join(literal(name) for name, (signal, _) in REASONS.items() if signal == wanted)


def _signals() -> str:
    """SQL of how many signals the reasons come from."""
    return " + ".join(f"list_has_any(reasons, [{_names(signal)}])::INTEGER" for signal in _SIGNALS)


_VIEWS = (
    View(
        "text_quality_by_source",
        "The caption sources side by side, by their texts alone",
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
            "caption_source": meaning(TEXT_QUALITY, "caption_source"),
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
        sql_file(
            __file__,
            "suspects",
            objections=_objections(),
            signals=_signals(),
            scores=_names("score"),
            alone=str(SIGNALS_ALONE),
            decisive=", ".join(map(literal, DECISIVE)),
        ),
        {
            "caption_source": "original, a captioner's name, or refined: where one was asked for again",
            "caption": "the caption as found, or the straightforward synthetic caption",
            "similarity": meaning(CAPTION_SCORES, "similarity"),
            "signals": "how many signals object",
            "reasons": "why: " + ", ".join(REASONS),
        },
    ),
)

_MEANING = meaning_of("reason", {name: means for name, (_, means) in REASONS.items()})

RELATIONS = Relations(
    reads=(
        Read("text_quality", TEXT_QUALITY, " ".join(_TEXT)),
        Read("image_text", IMAGE_TEXT, "uid regions text text_area"),
        Read("masked_similarity", MASKED_SIMILARITY, "uid masked_similarity similarity"),
    ),
    tables=_TABLES,
    views=_VIEWS,
    report_sections=(
        ReportSection(
            "Suspects",
            "Pairs of image and caption that no signal trusts (view suspects), by reason, of which a pair has several: "
            "the five most frequent of each source.",
            f"""
            SELECT caption_source AS source, reason, count(*) AS suspects, {_MEANING} AS meaning
            FROM (SELECT caption_source, unnest(reasons) AS reason FROM suspects)
            GROUP BY caption_source, reason
            QUALIFY row_number() OVER (PARTITION BY caption_source ORDER BY suspects DESC, reason) <= 5
            ORDER BY caption_source <> 'original', caption_source, suspects DESC, reason
            """,  # noqa: S608
            order=110,
        ),
    ),
    problems=(
        Problem(
            "original captions are doubtful",
            f"""
            WITH doubtful AS (FROM suspects WHERE caption_source = '{ORIGINAL}')
            SELECT (SELECT count(*) FROM doubtful),
                (SELECT count(caption) FROM captions WHERE caption_source = '{ORIGINAL}'),
                (SELECT 'most: ' || mode(reason ORDER BY reason) FROM (SELECT unnest(reasons) AS reason FROM doubtful))
            """,  # noqa: S608
            f"SELECT * FROM suspects WHERE caption_source = '{ORIGINAL}' LIMIT 10",  # noqa: S608
        ),
    ),
    explanations=(
        Explanation(
            "Text of the captions",
            ("text_quality",),
            """
            SELECT * EXCLUDE (uid, patterns), array_to_string(patterns, ', ') AS patterns
            FROM text_quality WHERE uid = ? AND words IS NOT NULL
            ORDER BY caption_source <> 'original', caption_source
            """,
            order=50,
        ),
        Explanation(
            "Text in the image",
            ("image_text", "masked_similarity"),
            "SELECT * EXCLUDE uid FROM image_text WHERE uid = ? AND regions IS NOT NULL",
            order=60,
            upright=True,
        ),
    ),
)
