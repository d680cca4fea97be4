"""What is wrong with a generated caption, measured from its text."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from dqe_resources.captioners.answer_text import SPECIAL_TOKENS, THINKING
from dqe_resources.models.language import detect_language

if TYPE_CHECKING:
    from collections.abc import Sequence

CUT_OFF, EMPTY, REFUSAL = "cut_off", "empty", "refusal"
REPETITION_LOOP, BOILERPLATE_ONLY, NOT_ENGLISH = "repetition_loop", "boilerplate_only", "not_english"

FAULTS = {
    CUT_OFF: "generation was stopped at its most tokens, or the text ends within a sentence",
    EMPTY: "there is no word in it",
    REFUSAL: "the model declines, or says that it sees no image",
    REPETITION_LOOP: "words, or sentences, that come over and over",
    BOILERPLATE_ONLY: "it says that it describes a picture, and nothing of what is in it",
    NOT_ENGLISH: "it is in another language",
}
"""What can be wrong with a caption, measured from its text, each with its meaning."""

FLAGS = {
    **FAULTS,
    THINKING: "the model thought aloud, and its thoughts were taken out",
    SPECIAL_TOKENS: "tokens of the model's own, such as <|im_end|>, were taken out",
}
"""Each flag with its meaning: faults, and what was taken out of a caption that can be good all the same."""

UNGROUNDED = "ungrounded"
"""What a caption is that names things of which too few are in its image: measured by grounding, not from its text."""

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]*_]*$")
_INNER_SENTENCE_END = re.compile(r"[^\W\d_]{2}[.!?][\"'”’)*]*\s+\S")
_SENTENCES = re.compile(r"(?<=[.!?])[\"'”’)]*\s+|\n+")
# What no English sentence ends with.
_DANGLING = frozenset(
    "a an the of and or with in on at to from by for as its their his her which while is are".split()  # noqa: SIM905
)

_SORRY = r"(?:i'?\s?a?m\s+(?:very\s+|so\s+)?sorry|sorry|i\s+apologi[sz]e|(?:my\s+)?apologies|unfortunately)"
_CANNOT = r"(?:can(?:no|')t|can\s+not|could(?:n't|\s+not)|won't|will\s+not|(?:do(?:n't|\s+not)))"
_UNABLE = r"i(?:'m|\s+am)\s+(?:unable|not\s+(?:able|programmed|designed|allowed|permitted))\s+to"
_PICTURE = r"(?:image|picture|photo)"
_OFFERED = r"(?:provided|attached|uploaded|shared|sent|visible|available|here|displayed|loaded)"
_REFUSAL = re.compile(
    rf"""
    \W*(?:
        {_SORRY}\b.{{0,40}}?\b
        (?:i\s+{_CANNOT}|{_UNABLE}|but|(?:the|this|your|that)\s+{_PICTURE}|as\s+an?\s+(?:ai|language))\b
      | as\s+an?\s+(?:ai|artificial|(?:large\s+)?language\s+model|(?:text|vision)\S*\s+model)\b
      | {_UNABLE}\b
      | i\s+{_CANNOT}\s+(?:(?:really|actually|currently|directly|reliably)\s+)?
        (?:assist|help|provide|describe|see|view|identify|comply|fulfil|access|process|analy[sz]e|recogni[sz]e|generate
          |answer|comment|discuss|do\s+that|have)\b
      | (?:there\s+(?:is|was|(?:seems|appears)\s+to\s+be)\s+)?no\s+{_PICTURE}\s+(?:(?:was|is|has\s+been)\s+)?{_OFFERED}
      | (?:please|(?:could|can)\s+you(?:\s+please)?)\s+(?:provide|upload|share|attach|send)\b.{{0,40}}\b{_PICTURE}
      | (?:it\s+(?:seems|looks|appears)\s+(?:like\s+|that\s+)?)?(?:the|this|your|that|no)\s+{_PICTURE}\s+
        (?:(?:did|has|was)(?:n't|\s+not)|could\s+not|failed\s+to)\s+(?:be\s+|been\s+)?
        (?:load|upload|attach|display|{_OFFERED})
    )
    """.replace("'", "['’]"),
    re.IGNORECASE | re.VERBOSE,
)

# Words of sentences that only say that a picture is described, with those that hold any English sentence together.
_SAYS_NOTHING = frozenset(
    """
    image images picture pictures photo photos photograph photographs scene snapshot visual showcases showcase shows
    show showing depicts depict depicting features captures presents portrays displays illustrates contains description
    descriptions caption captions describe describes described describing detailed brief concise vivid plain text short
    sentence following below above provided given attached uploaded sure certainly course okay ok yes absolutely great
    of a an the this that these it its is are was be as in on with and or for to from by at here there heres here's
    there's i'll i will let's let me my your you i can see seen visible view content contents something various
    different several multiple some many objects elements details things items variety range someone who cannot blind
    visually impaired person's happy help would like more please know do don't if any have has
    """.split()  # noqa: SIM905
)

_LONGEST_PERIOD = 40
_LOOP_WORDS = 12
_LOOP_TIMES = 4
_LONG_PERIOD = 6
_LOOP_TIMES_OF_LONG = 3
_LOOP_SENTENCES = 3
_LOOP_CHARACTERS = re.compile(r"([^\s\d])\1{19,}")

_ENGLISH = "en"
_READ_FOR_LANGUAGE = 400
_FEWEST_LETTERS = 20
_LEAST_SURE = 0.5
_LATIN_SHARE = 0.5


def caption_flags(texts: Sequence[str | None], finish_reasons: Sequence[str]) -> list[list[str] | None]:
    """The faults of each caption, None if there is no text.

    Args:
        texts: captions as generated.
        finish_reasons: of each, as in ``SYNTHETIC_CAPTIONS``.
    """
    return [
        None if text is None else flags_of(text, cut=reason == "length")
        for text, reason in zip(texts, finish_reasons, strict=True)
    ]


def flags_of(text: str, *, cut: bool = False) -> list[str]:
    """The faults of a caption as generated, in the order of ``FAULTS``.

    Args:
        text: the caption.
        cut: whether the engine said that it stopped at the most tokens.
    """
    words = _WORD.findall(text.lower().replace("’", "'"))
    if not words:
        return [CUT_OFF, EMPTY] if cut else [EMPTY]
    found = {
        CUT_OFF: cut or ends_within_sentence(text),
        REFUSAL: is_refusal(text),
        REPETITION_LOOP: repeats(text),
        BOILERPLATE_ONLY: not is_refusal(text) and _SAYS_NOTHING.issuperset(words),
        NOT_ENGLISH: not is_english(text),
    }
    return [flag for flag in FAULTS if found.get(flag)]


def ends_within_sentence(text: str) -> bool:
    """Whether a text breaks off: it stops after a whole sentence and part of another, or at a word that ends none.

    A single phrase without a full stop ("A dog on a beach") is whole.
    """
    stripped = text.rstrip()
    if _SENTENCE_END.search(stripped):
        return False
    words = _WORD.findall(stripped.lower())
    return stripped.endswith((",", ";", ":", "-", "–", "—", "(")) or (
        bool(words) and (words[-1] in _DANGLING or _INNER_SENTENCE_END.search(stripped) is not None)
    )


def is_refusal(text: str) -> bool:
    """Whether a text begins like a refusal, or like an answer that says that there was no image."""
    return _REFUSAL.match(text) is not None


def repeats(text: str) -> bool:
    """Whether a text is caught in a loop.

    That is: one to 40 words that follow themselves four times (three, if they are six or more) and make up 12 words
    at least; a sentence of three words or more that comes three times in a row or makes up half of all sentences;
    or one character twenty times.
    """
    if _LOOP_CHARACTERS.search(text):
        return True
    words = _WORD.findall(text.lower())
    # Whatever comes three times in a row brings some three words three times.
    threes = Counter(zip(words, words[1:], words[2:], strict=False))
    if max(threes.values(), default=0) >= 3 and any(
        _has_loop(words, period) for period in range(1, min(_LONGEST_PERIOD, len(words) // 3) + 1)
    ):
        return True
    sentences = [" ".join(_WORD.findall(part.lower())) for part in _SENTENCES.split(text)]
    counts = Counter(part for part in sentences if part.count(" ") >= 2)
    return any(count >= _LOOP_SENTENCES and 2 * count >= counts.total() for count in counts.values())


def _has_loop(words: Sequence[str], period: int) -> bool:
    times = _LOOP_TIMES_OF_LONG if period >= _LONG_PERIOD else _LOOP_TIMES
    # So many words in a row that equal the word one period before them.
    needed = max(times * period, _LOOP_WORDS) - period
    run = 0
    for before, word in zip(words, words[period:], strict=False):
        run = run + 1 if word == before else 0
        if run >= needed:
            return True
    return False


def is_english(text: str) -> bool:
    """Whether a text is English, by its first 400 characters, or too short to say.

    By script where letters outside the Latin alphabet outnumber those in it, otherwise by fastText's lid.176 (Joulin
    et al. 2016) in its compressed form: another language only if it is at least half sure.
    """
    text = text[:_READ_FOR_LANGUAGE]
    letters = [character for character in text if character.isalpha()]
    if sum(character < "\u0250" for character in letters) < _LATIN_SHARE * len(letters):
        return False
    if len(letters) < _FEWEST_LETTERS:
        return True
    language, score = detect_language(text)
    return language == _ENGLISH or score < _LEAST_SURE
