"""The candidates of a round: the questions to a captioner that sees the image, and its earlier answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.answers import answer_table, collect, prepared, record
from dqe_assets.improve.tables import REFINED_CAPTIONS
from dqe_resources.captioners.protocol import Caption, Sample
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dqe_assets.caption.answers import Finished, Track
    from dqe_assets.caption.prompts import Prompt
    from dqe_assets.improve.refining import Request
    from dqe_resources.captioners.protocol import VisionCaptioner

ANSWERS = pa.schema(
    [
        REFINED_CAPTIONS.field(name)
        for name in (
            *("uid", "round", "candidate", "text", "caption", "flags", "finish_reason", "error", "model", "revision"),
            *("prompt", "prompt_hash", "prompt_tokens", "completion_tokens", "seconds", "attempts", "finished_at"),
        )
    ]
)
"""What is known of an answer before it is scored."""


@dataclass(frozen=True)
class CandidateAsker:
    """Asks a captioner that sees the image for the candidates of a round; what was answered before is not asked again.

    Attributes:
        captioner: as it is to be asked: see ``Refining.asked``.
        prompt: the prompt.
        candidates: answers for each sample.
        images: gives the image files of samples, by their ascending rows, one after another.
        known: rows of ``ANSWERS`` that were made before.
        keep: is given finished rows while others are still being made.
        track: reports progress over the answers of a round.
    """

    captioner: VisionCaptioner
    prompt: Prompt
    candidates: int
    images: Callable[[Sequence[int]], Iterator[bytes]]
    known: pa.Table
    keep: Callable[[pa.Table], None]
    track: Track

    def __call__(self, number: int, requests: Sequence[Request]) -> pa.Table:
        """The answers of a round."""
        of_round = self.known.filter(
            pc.and_(
                pc.equal(self.known["round"], number),
                pc.is_in(self.known["uid"], value_set=pa.array([one.uid for one in requests], pa.string())),
            )
        )
        there = set(zip(of_round["uid"].to_pylist(), of_round["candidate"].to_pylist(), strict=True))
        missing = [
            (request, [number for number in range(self.candidates) if (request.uid, number) not in there])
            for request in requests
        ]
        missing = [(request, numbers) for request, numbers in missing if numbers]
        parts = [of_round]

        def add(finished: list[Finished[tuple[str, int]]]) -> pa.Table:
            records = [
                {
                    "uid": uid,
                    "round": number,
                    "candidate": candidate,
                    **record(caption, finished_at, self.captioner, self.prompt),
                }
                for (uid, candidate), caption, finished_at in finished
            ]
            parts.append(answer_table(records, ANSWERS))
            return parts[-1]

        collect(
            self.captioner,
            self._questions(number, missing),
            add,
            keep=self.keep,
            track=self.track,
            known=of_round.num_rows,
            total=len(requests) * self.candidates,
        )
        return pa.concat_tables(parts)

    def _questions(
        self, number: int, missing: Sequence[tuple[Request, list[int]]]
    ) -> Iterator[tuple[tuple[str, int], Sample | Caption]]:
        """A sample for each candidate that is missing; an image is read and prepared once for all of them."""

        def of_one(item: tuple[tuple[Request, list[int]], bytes]) -> list[tuple[tuple[str, int], Sample | Caption]]:
            (request, candidates), data = item
            image = prepared(data, self.captioner)
            prompt = self.prompt.render(**request.quotes)
            return [
                (
                    (request.uid, candidate),
                    image if isinstance(image, Caption) else Sample({}, image, prompt, self._seed(number, candidate)),
                )
                for candidate in candidates
            ]

        images = self.images([request.place for request, _ in missing])
        for questions in ordered_map(of_one, zip(missing, images, strict=True)):
            yield from questions

    def _seed(self, number: int, candidate: int) -> int | None:
        """A different seed for each candidate of each round, if the captioner has one: equal seeds repeat answers."""
        if self.captioner.seed is None:
            return None
        return self.captioner.seed + (number - 1) * self.candidates + candidate


def reusable(answers: pa.Table) -> pa.Table:
    """Those of the answers of an interrupted run that another run would ask for in the same words.

    What failed is asked for again. A sample's later rounds built on it, and are left out: with one answer more, they
    might ask about another caption.
    """
    failed = answers.filter(pc.is_null(answers["caption"])).group_by("uid").aggregate([("round", "min")])
    first = failed["round_min"].take(pc.index_in(answers["uid"], value_set=failed["uid"].combine_chunks()))
    in_time = pc.fill_null(pc.less_equal(answers["round"], first), True)
    return answers.filter(pc.and_(in_time, pc.is_valid(answers["caption"])))
