"""What is wrong with captions, on captions as vision-language models write them, good and bad."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.caption.flags import FAULTS, caption_flags, flags_of

if TYPE_CHECKING:
    from pathlib import Path

GOOD = [
    "This image showcases a tabby cat asleep on a red velvet cushion beside a rain-streaked window.",
    "A dog on a beach",
    "two people ride bicycles along a canal at dusk",
    'The sign reads "Sorry, we\'re closed" in faded blue paint. A bicycle leans against the wall below it.',
    "A man who cannot see the camera helps a child onto a swing; I love NY is printed on his shirt.",
    "A very, very, very long queue of people winds around the block, past row after row of parked cars.",
    "A street in Tokyo with signs in Japanese, 東京 and 渋谷 among them, above a crowd with umbrellas.",
    "Macramé plant hanger",
    "The U.S. Capitol at night, its dome lit in white, e.g. as seen from the reflecting pool.",
    "This image showcases six tiles. The first is red. The second is blue. The third is red. The fourth is green.",
    "On the table are a cup, a plate, a knife, a fork, a cup, a saucer, a spoon and a small vase of tulips.",
    "**Mood:** calm and serene.",
    'A poster that says "I am unable to can."',
    "2019",
]
BAD = [
    ("This image showcases a wide valley at sunrise. In the foreground a shepherd leads his flock along a", "cut_off"),
    ("A wooden boat rests on the shore. Its hull is painted blue and white, and on its deck, coils of rope", "cut_off"),
    ("This image showcases a market stall with oranges, lemons and", "cut_off"),
    ("The scene is lit by lanterns,", "cut_off"),
    ("", "empty"),
    (" \n", "empty"),
    ("...", "empty"),
    ("I'm sorry, but I can't assist with that request.", "refusal"),
    ("I’m sorry, I can’t help with identifying people in images.", "refusal"),
    ("Sorry, but the image appears to be blank, so I cannot describe it.", "refusal"),
    ("I am unable to view images directly, but if you describe it I can help.", "refusal"),
    ("As an AI language model, I cannot see images.", "refusal"),
    ("I cannot provide a description of this image.", "refusal"),
    ("I don't have the ability to see the picture you mention.", "refusal"),
    ("Unfortunately, I am not able to process this photo.", "refusal"),
    ("It seems that the image did not load. Please upload it again.", "refusal"),
    ("No image was provided.", "refusal"),
    ("Please provide the image you would like me to describe.", "refusal"),
    ("This image showcases a red car, a red car, a red car, a red car, a red car, a red car.", "repetition_loop"),
    ("The sky is blue and the sky is blue and the sky is blue and the sky is blue and the sky", "repetition_loop"),
    ("A field of flowers. " + "The flowers are yellow. " * 6, "repetition_loop"),
    ("A tree. It stands in a field of grass. " * 3, "repetition_loop"),
    ("A beach with palm palm palm palm palm palm palm palm palm palm palm palm palm", "repetition_loop"),
    ("A wall with a sign that reads HAAAAAAAAAAAAAAAAAAAAAAAAAA", "repetition_loop"),
    ("This image showcases", "boilerplate_only"),
    ("Sure! Here is a detailed description of the image:", "boilerplate_only"),
    ("The image shows a scene with various objects.", "boilerplate_only"),
    ("Certainly, I can describe this picture for you.", "boilerplate_only"),
    ("这张图片展示了一只躺在红色天鹅绒垫子上的虎斑猫。", "not_english"),
    ("На изображении показана кошка, лежащая на красной бархатной подушке.", "not_english"),
    ("Cette image montre un chat tigré endormi sur un coussin de velours rouge, près d'une fenêtre.", "not_english"),
    ("Das Bild zeigt eine getigerte Katze, die auf einem roten Kissen am Fenster schläft.", "not_english"),
    ("La imagen muestra un gato atigrado dormido sobre un cojín de terciopelo rojo.", "not_english"),
]


@pytest.mark.parametrize("text", GOOD)
def test_good_captions_have_no_flags(text: str) -> None:
    assert flags_of(text) == []


@pytest.mark.parametrize(("text", "flag"), BAD)
def test_each_fault_is_found(text: str, flag: str) -> None:
    assert flag in flags_of(text)


def test_faults_are_told_apart() -> None:
    alone = Counter(flag for text, flag in BAD if flags_of(text) == [flag])
    assert set(alone) == set(FAULTS)
    # A loop and an opening without anything behind it break off too; nothing else is flagged for what it is not.
    others = {(flag, other) for text, flag in BAD for other in flags_of(text) if other != flag}
    assert others <= {("repetition_loop", "cut_off"), ("boilerplate_only", "cut_off")}


def test_what_the_engine_says_counts() -> None:
    assert flags_of("A whole sentence.", cut=True) == ["cut_off"]
    assert caption_flags(["A dog.", None, "A dog."], ["length", "error", "stop"]) == [["cut_off"], None, []]


@given(st.text())
def test_any_text_has_flags_in_their_order(text: str) -> None:
    flags = flags_of(text)
    assert flags == [flag for flag in FAULTS if flag in flags]


@given(st.lists(st.sampled_from(["cat", "dog", "sun", "sea", "oak", "red"]), min_size=3, max_size=12))
def test_whatever_follows_itself_often_enough_is_a_loop(words: list[str]) -> None:
    assert "repetition_loop" in flags_of("a picture of " + " ".join(words * 12))


def test_published_captions_are_hardly_ever_flagged(sbu: Path) -> None:
    """The rows with all three that are flagged of 16,000 captions: two are cut, and one quotes a poem in a loop."""
    table = pq.read_table(sbu / "captions.parquet").slice(4000, 1000)
    cogvlm2, internvl2 = (
        Counter(flag for flags in caption_flags(texts, ["stop"] * len(texts)) for flag in flags or ())
        for texts in (table[column].to_pylist() for column in ("cogvlm2_caption", "internvl2_caption"))
    )
    assert cogvlm2 == {"cut_off": 1}
    assert internvl2 == {"cut_off": 1, "repetition_loop": 1}
