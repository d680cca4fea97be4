"""What a study found: the tables of all seeds, put together, and the verdicts by rules that were fixed before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqe_assets.concepts.performance import LogLinearFit, log_linear_fit
from dqe_assets.evaluation.leaderboard import difference_interval
from dqe_assets.evaluation.tables import CONCEPT_ACCURACIES, EVALUATION
from dqe_assets.study.plan import TASK, StudyError, run_key
from dqe_resources.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from dqe_assets.study.findings import Arm, Comparison, Finding
    from dqe_assets.study.plan import Study

    Verdict = Literal["reproduced", "not reproduced here", "the contrary", "one seed proves nothing"]

METRIC = "acc1"

RULE = (
    "A difference is taken between models of the same seed, and counts if its 95 % interval over seeds (Student's t) "
    "does not hold 0. A finding is reproduced if that is so of each of its claims, and the contrary of it if the "
    "interval of one lies wholly on the other side. The rule was fixed before anything was trained."
)


@dataclass(frozen=True)
class Spread:
    """A number that was measured for several seeds.

    Attributes:
        by_seed: the number of each seed.
    """

    by_seed: Mapping[int, float]

    @property
    def interval(self) -> tuple[float, float | None, float | None]:
        """The mean, and the ends of its 95 % interval by Student's t: None with a single seed."""
        mean, low, high = difference_interval([*self.by_seed.values()])
        return mean if mean is not None else math.nan, low, high

    def minus(self, other: Spread) -> Spread:
        """The difference, seed by seed."""
        return Spread({seed: value - other.by_seed[seed] for seed, value in self.by_seed.items()})

    @property
    def side(self) -> int | None:
        """1 if its interval is above 0, -1 if it is below, 0 if it holds 0; None with a single seed."""
        _, low, high = self.interval
        if low is None or high is None:
            return None
        return (low > 0) - (high < 0)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        mean, low, high = self.interval
        return {"mean": mean, "low": low, "high": high, "by_seed": {str(seed): v for seed, v in self.by_seed.items()}}


@dataclass(frozen=True)
class MeasuredArm:
    """An arm, and what its models came to.

    Attributes:
        arm: what was trained on.
        samples: how many samples that were; the mean over seeds.
        accuracy: of its models.
    """

    arm: Arm
    samples: float
    accuracy: Spread


@dataclass(frozen=True)
class ByFrequency:
    """The accuracy of each class over how often captions of the arm's samples name it.

    Attributes:
        arm: what was trained on.
        fits: of each seed.
        points: count and accuracy of each class of each seed.
    """

    arm: Arm
    fits: Mapping[int, LogLinearFit]
    points: Mapping[int, Sequence[tuple[float, float]]]

    @property
    def slope(self) -> Spread:
        """Accuracy gained with each tenfold count, over single classes."""
        return Spread({seed: fit.unbinned.slope * math.log(10) for seed, fit in self.fits.items()})

    @property
    def r(self) -> Spread:
        """Pearson's r over bins, as in the paper."""
        return Spread({seed: fit.r for seed, fit in self.fits.items()})

    @property
    def unbinned_r(self) -> Spread:
        """Pearson's r over single classes."""
        return Spread({seed: fit.unbinned.r for seed, fit in self.fits.items()})


@dataclass(frozen=True)
class Result:
    """A finding, and what became of it here.

    Attributes:
        finding: what was tried.
        arms: what its models came to, by name.
        differences: of each of its comparisons.
        by_frequency: of the arms that it looks at in this way.
    """

    finding: Finding
    arms: Mapping[str, MeasuredArm]
    differences: tuple[tuple[Comparison, Spread], ...]
    by_frequency: tuple[ByFrequency, ...]

    @property
    def claims(self) -> list[tuple[str, Spread]]:
        """What decides: each in words, with what should be above 0."""
        compared = [(f"{one.better} - {one.than}", spread) for one, spread in self.differences if one.is_claim]
        return [*compared, *((f"slope in {one.arm.name}", one.slope) for one in self.by_frequency)]

    @property
    def verdict(self) -> Verdict:
        """By the rule."""
        sides = [spread.side for _, spread in self.claims]
        if None in sides:
            return "one seed proves nothing"
        if all(side == 1 for side in sides):
            return "reproduced"
        return "the contrary" if -1 in sides else "not reproduced here"

    @property
    def reason(self) -> str:
        """Which claims held, and which did not."""
        said = {1: "above 0", 0: "cannot be told from 0", -1: "below 0", None: "of one seed"}
        return "; ".join(
            f"{name}: {in_numbers(spread, signed=True)}, {said[spread.side]}" for name, spread in self.claims
        )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        finding = self.finding
        return {
            "number": finding.number,
            "name": finding.name,
            "claim": finding.claim,
            "verdict": self.verdict,
            "reason": self.reason,
            "paper": finding.paper,
            "different": finding.different,
            "arms": [
                {
                    "name": one.arm.name,
                    "what": one.arm.what,
                    "subset": one.arm.expression,
                    "captions": one.arm.captions,
                    "samples": one.samples,
                    "accuracy": one.accuracy.document(),
                }
                for one in self.arms.values()
            ],
            "comparisons": [
                {
                    "better": one.better,
                    "than": one.than,
                    "question": one.question,
                    "is_claim": one.is_claim,
                    "difference": spread.document(),
                }
                for one, spread in self.differences
            ],
            "by_frequency": [
                {
                    "arm": one.arm.name,
                    "accuracy_for_a_tenfold_count": one.slope.document(),
                    "r_of_bins": one.r.document(),
                    "r_of_classes": one.unbinned_r.document(),
                }
                for one in self.by_frequency
            ],
        }


def in_numbers(spread: Spread, *, signed: bool = False) -> str:
    """A mean with its interval, as text."""
    mean, low, high = spread.interval
    form = "+.3f" if signed else ".3f"
    return f"{mean:{form}}" + (f" ({low:{form}} to {high:{form}})" if low is not None and high is not None else "")


def results_of(study: Study) -> list[Result]:
    """The findings of a study that was made.

    Raises:
        StorageError: a table is not there.
        StudyError: so little was made that nothing can be fitted.
    """
    stores = {seed: Store(str(study.seed_folder(seed) / "store")) for seed in study.seeds}
    arms = {arm.name: _measured(arm, stores) for arm in study.arms}
    return [
        Result(
            finding,
            {arm.name: arms[arm.name] for arm in finding.arms},
            tuple((one, arms[one.better].accuracy.minus(arms[one.than].accuracy)) for one in finding.comparisons),
            tuple(_by_frequency(arms[name].arm, stores) for name in finding.by_frequency),
        )
        for finding in study.findings
    ]


def _measured(arm: Arm, stores: Mapping[int, Store]) -> MeasuredArm:
    rows = {}
    for seed, store in stores.items():
        table = store.read("evaluation", run_key(arm, seed), EVALUATION, ["task", "metric", "value", "data_size"])
        (rows[seed],) = [row for row in table.to_pylist() if (row["task"], row["metric"]) == (TASK, METRIC)]
    return MeasuredArm(
        arm,
        sum(row["data_size"] for row in rows.values()) / len(rows),
        Spread({seed: row["value"] for seed, row in rows.items()}),
    )


def _by_frequency(arm: Arm, stores: Mapping[int, Store]) -> ByFrequency:
    points = {}
    for seed, store in stores.items():
        columns = ["run", "caption_samples", "accuracy"]
        table = store.read("concept_accuracies", None, CONCEPT_ACCURACIES, columns).to_pylist()
        key = run_key(arm, seed)
        points[seed] = [(row["caption_samples"], row["accuracy"]) for row in table if row["run"] == key]
    try:
        fits = {
            seed: log_linear_fit([count for count, _ in found], [accuracy for _, accuracy in found])
            for seed, found in points.items()
        }
    except ValueError as error:
        raise StudyError(
            f"accuracy over frequency in {arm.name}: {error}; make more with --minutes, or leave finding 5 out"
        ) from error
    return ByFrequency(arm, fits, points)
