"""What can be wrong with an image, and how that stays its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from dqe_resources.errors import DataQualityError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
R = TypeVar("R")


class ImageError(DataQualityError):
    """Bytes that give no image, or an image that cannot be worked on.

    Attributes:
        reason: missing, empty, too_large, not_an_image, unsupported_format, bomb, truncated or damaged.
        detail: what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def fault_of(error: Exception) -> ImageError:
    """What an exception says of the image that was worked on when it was raised.

    Raises:
        DataQualityError: it says nothing of the image: a package or a setting is wrong, so every other image would
            fail too.
    """
    if isinstance(error, ImageError):
        return error
    if isinstance(error, DataQualityError):
        raise error
    is_cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
    return ImageError("truncated" if is_cut else "damaged", f"{type(error).__name__}: {one_line(error)}")


def guarded(function: Callable[[T], R]) -> Callable[[T], R | ImageError]:
    """A function of one image, of which whatever it raises is the outcome: that image's, and no other's.

    A stage calls all that it does with single images through this, and writes the fault into the image's row. What the
    function needs for any image, such as a model, is loaded before: its failure is the run's.
    """

    def outcome(item: T) -> R | ImageError:
        try:
            return function(item)
        except Exception as error:  # noqa: BLE001 - the libraries raise errors of many kinds on hostile images
            return fault_of(error)

    return outcome
