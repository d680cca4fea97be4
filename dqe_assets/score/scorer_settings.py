"""What must hold of the scorers that data/dqe.yaml names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from dqe_resources.scorers.named import ModelScorer, OfEmbedding
from dqe_resources.scorers.vqa import VqaScorer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_resources.scorers.named import SampleScorer


def check_scorers(scorers: Sequence[SampleScorer]) -> None:
    """Refuse a scorer that reads the embeddings of one that is not there, and a second vqa scorer.

    Raises:
        PydanticCustomError: says which, and what there is.
    """
    asking = [one.name for one in scorers if isinstance(one, VqaScorer)]
    if len(asking) > 1:
        raise PydanticCustomError(
            "vqa",
            "scorers: {names} are of kind vqa or vqa_transformers, and there can be one: its scores are the column vqa "
            "of captions; remove the others",
            {"names": ", ".join(asking)},
        )
    models = [one.name for one in scorers if isinstance(one, ModelScorer)]
    for one in scorers:
        if isinstance(one, OfEmbedding) and one.model is not None and one.model not in models:
            raise PydanticCustomError(
                "model",
                "scorers: '{name}' has the model '{model}', which is no scorer of kind open_clip or label_space in "
                "this list; there are: {there}",
                {"name": one.name, "model": one.model, "there": ", ".join(models) or "none"},
            )


def asking_scorer(scorers: Sequence[SampleScorer]) -> VqaScorer | None:
    """The vqa scorer, of whichever kind, if there is one."""
    return next((one for one in scorers if isinstance(one, VqaScorer)), None)
