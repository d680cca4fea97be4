"""What a study found: the tables of all seeds, put together, and the verdicts by rules that were fixed before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqe_assets.concepts.performance import LogLinearFit, log_linear_fit, predict_accuracy
from dqe_assets.evaluation.leaderboard import difference_interval
from dqe_assets.evaluation.tables import CONCEPT_ACCURACIES, EVALUATION, TRAINING_CURVES
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, MEASURED_MIXTURES, POOL_UTILITIES
from dqe_assets.study.files import rarest_of
from dqe_assets.study.plan import LOSS, TASK, StudyError, run_key
from dqe_assets.study.worker import is_described
from dqe_assets.training.settings import ALL
from dqe_resources.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    import pyarrow as pa

    from dqe_assets.study.findings import Addition, Arm, Finding, Law
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

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return _mean(self.by_seed.values())

    def of(self, seeds: Iterable[int]) -> Spread:
        """The same of some of the seeds."""
        return Spread({seed: self.by_seed[seed] for seed in seeds})

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
class Difference:
    """Something that should be above 0.

    Attributes:
        name: what is taken from what.
        question: what it answers.
        spread: of each seed.
        is_claim: whether the verdict depends on it.
    """

    name: str
    question: str
    spread: Spread
    is_claim: bool = True


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
class Added:
    """What became of the rarest concepts after samples of them were added.

    Attributes:
        addition: what was added to what.
        before: how many captions name such a concept, on average.
        after: how many do with the samples of the rarest concepts.
        lift: accuracy on them, less that of the base.
        predicted: the same, by the fit to all classes of the base.
        lift_by_any: as ``lift``, with as many samples at random.
    """

    addition: Addition
    before: Spread
    after: Spread
    lift: Spread
    predicted: Spread
    lift_by_any: Spread

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What is claimed, and the controls."""
        rare, base, any_ = self.addition.rare, self.addition.base, self.addition.any
        return (
            Difference(f"rarest: {rare} - {base}", "Do more pictures of the rarest things lift these?", self.lift),
            Difference(
                f"rarest: {rare} - {any_}",
                "Is it these pictures, and not any?",
                self.lift.minus(self.lift_by_any),
                is_claim=False,
            ),
            Difference(
                "lift measured - predicted",
                "Is it more than the fit predicts?",
                self.lift.minus(self.predicted),
                is_claim=False,
            ),
        )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "captions_before": self.before.document(),
            "captions_after": self.after.document(),
            "lift": self.lift.document(),
            "predicted_lift": self.predicted.document(),
            "lift_by_any": self.lift_by_any.document(),
        }


@dataclass(frozen=True)
class MeasuredLaw:
    """What was followed through training, and what the utility law says of it.

    Attributes:
        law: what was trained.
        budgets: samples seen, little and much.
        samples: how many samples each pool and mixture has, by name; the mean over seeds.
        loss: by name and samples seen.
        predicted: by the name of a mixture and samples seen: what the law says, of the seeds of which it says it.
        falling: of each pool, the seeds in which its own curve falls.
        kept: by samples seen and seed, how many of the best pools are recommended; 0 for nothing.
    """

    law: Law
    budgets: tuple[int, int]
    samples: Mapping[str, float]
    loss: Mapping[str, Mapping[int, Spread]]
    predicted: Mapping[str, Mapping[int, Spread]]
    falling: Mapping[str, tuple[int, ...]]
    kept: Mapping[int, Mapping[int, int]]

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What is claimed, and the controls."""
        (little, much), (small, *_, large) = self.budgets, self.law.kept.values()
        few, many = self.loss[small.name], self.loss[large.name]
        return (
            Difference(
                f"loss at {little:,}: {large.name} - {small.name}",
                "With little compute, is the small part better than the large one?",
                many[little].minus(few[little]),
            ),
            Difference(
                f"loss at {much:,}: {small.name} - {large.name}",
                "With more, is the large part better?",
                few[much].minus(many[much]),
            ),
            Difference(
                f"loss at {much:,}: {ALL} - {large.name}",
                "Is all worse than the large part?",
                self.loss[ALL][much].minus(many[much]),
                is_claim=False,
            ),
            Difference(
                "error of the parts' mean - error of the law",
                "Does the law predict mixtures of these parts better than the mean of their losses does?",
                self.error_of_mean.minus(self.error_of_law),
                is_claim=False,
            ),
        )

    @property
    def predicts(self) -> Difference:
        """What is claimed of parts of which each teaches something."""
        return Difference(
            "clean parts: error of their mean - error of the law",
            "Does it where each part teaches something?",
            self.error_of_mean.minus(self.error_of_law),
        )

    @property
    def advised(self) -> tuple[Difference, ...]:
        """What is claimed of the recommendation, and the controls."""
        return (
            *(
                Difference(
                    f"loss at {seen:,}: {ALL} - recommended",
                    f"Is what the platform recommends for {seen:,} samples seen better than all?",
                    self.loss[ALL][seen].minus(self.recommended(seen)),
                )
                for seen in self.budgets
            ),
            *(
                Difference(
                    f"loss at {seen:,}: recommended - best",
                    f"At {seen:,}, how much worse is it than the best that was trained?",
                    self.recommended(seen).minus(self.least(seen)),
                    is_claim=False,
                )
                for seen in self.budgets
            ),
        )

    @property
    def error_of_law(self) -> Spread:
        """How far its predictions of mixtures are off, on average; where it says nothing, as far as the mean is."""
        return Spread(
            {
                seed: _mean(
                    abs(self.predicted[name][seen].by_seed[seed] - self.loss[name][seen].by_seed[seed])
                    for name, seen in self._predicted_in(seed)
                )
                if self._predicted_in(seed)
                else of_mean
                for seed, of_mean in self.error_of_mean.by_seed.items()
            }
        )

    @property
    def error_of_mean(self) -> Spread:
        """How far the mean of its parts' losses is off a mixture's, where the law predicts one, or of all."""
        every = [(name, seen) for name in self.law.mixtures if name != ALL for seen in self.loss[name]]
        return Spread(
            {
                seed: _mean(
                    abs(
                        _mean(self.loss[pool][seen].by_seed[seed] for pool in self.law.mixtures[name])
                        - self.loss[name][seen].by_seed[seed]
                    )
                    for name, seen in self._predicted_in(seed) or every
                )
                for seed in self.loss[ALL][self.budgets[0]].by_seed
            }
        )

    @property
    def silent_in(self) -> list[int]:
        """The seeds in which the law predicts no mixture: as no part's curve falls, or it does not describe them."""
        return [seed for seed in self.error_of_mean.by_seed if not self._predicted_in(seed)]

    def _predicted_in(self, seed: int) -> list[tuple[str, int]]:
        """The mixtures and the points that are predicted in a seed."""
        points = ((name, seen, one) for name, some in self.predicted.items() for seen, one in some.items())
        return [(name, seen) for name, seen, one in points if seed in one.by_seed]

    def recommended(self, seen: int) -> Spread:
        """The loss of what is recommended for this compute; of all, where nothing is."""
        arms = {n: arm.name for n, arm in self.law.kept.items()}
        return Spread(
            {seed: self.loss[arms.get(keep, ALL)][seen].by_seed[seed] for seed, keep in self.kept[seen].items()}
        )

    def least(self, seen: int) -> Spread:
        """The least loss of all that was trained for this compute."""
        names = [ALL, *(arm.name for arm in self.law.kept.values())]
        return Spread({seed: min(self.loss[name][seen].by_seed[seed] for name in names) for seed in self.kept[seen]})

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "metric": LOSS,
            "curves": [
                {
                    "name": arm.name,
                    "what": arm.what,
                    "subset": arm.expression,
                    "samples": self.samples[arm.name],
                    "loss": {str(seen): one.document() for seen, one in self.loss[arm.name].items()},
                    "predicted": {str(seen): one.document() for seen, one in self.predicted.get(arm.name, {}).items()},
                    "pools": list(self.law.mixtures.get(arm.name, ())),
                    "falling_in_seeds": list(self.falling.get(arm.name, ())),
                }
                for arm in self.law.arms
            ],
            "silent_in_seeds": self.silent_in,
            "error_of_law": self.error_of_law.document(),
            "error_of_mean": self.error_of_mean.document(),
            "recommended_pools": {
                str(seen): {str(seed): keep for seed, keep in kept.items()} for seen, kept in self.kept.items()
            },
        }


def _mean(values: Iterable[float]) -> float:
    found = [*values]
    return math.fsum(found) / len(found)


@dataclass(frozen=True)
class Together:
    """A mixture, and how far off it is what was said of it by the mean of all seeds' curves.

    Attributes:
        arm: the mixture.
        law: how far off the law is, on average over points; None where it says nothing.
        mean: how far the mean of its parts' losses is.
    """

    arm: Arm
    law: float | None
    mean: float

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.arm.name, "what": self.arm.what, "error_of_law": self.law, "error_of_mean": self.mean}


@dataclass(frozen=True)
class Result:
    """A finding, and what became of it here.

    Attributes:
        finding: what was tried.
        arms: what its models came to, by name.
        compared: its comparisons of arms.
        by_frequency: of the arms that it looks at in this way.
        added: what became of the rarest concepts.
        law: what was followed through training.
        clean: the same, of a pool of which each part teaches something.
        together: of the mixtures of that, what is said by the mean of all seeds' curves.
        advice: the same as ``law``, if the recommendation for it is tried.
    """

    finding: Finding
    arms: Mapping[str, MeasuredArm]
    compared: tuple[Difference, ...]
    by_frequency: tuple[ByFrequency, ...] = ()
    added: Added | None = None
    law: MeasuredLaw | None = None
    clean: MeasuredLaw | None = None
    together: tuple[Together, ...] = ()
    advice: MeasuredLaw | None = None

    @property
    def differences(self) -> tuple[Difference, ...]:
        """All that should be above 0, and the controls."""
        more = [one.differences for one in (self.added, self.law) if one]
        more += [(self.clean.predicts,)] if self.clean else []
        more += [self.advice.advised] if self.advice else []
        slopes = (
            Difference(f"slope in {one.arm.name}", "Does accuracy grow with the logarithm of the count?", one.slope)
            for one in self.by_frequency
        )
        return (*self.compared, *slopes, *(one for some in more for one in some))

    @property
    def claims(self) -> list[Difference]:
        """What decides."""
        return [one for one in self.differences if one.is_claim]

    @property
    def verdict(self) -> Verdict:
        """By the rule."""
        sides = [one.spread.side for one in self.claims]
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
            f"{one.name}: {in_numbers(one.spread, signed=True)}, {said[one.spread.side]}" for one in self.claims
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
                    "name": one.name,
                    "question": one.question,
                    "is_claim": one.is_claim,
                    "difference": one.spread.document(),
                }
                for one in self.differences
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
            "addition": self.added.document() if self.added else None,
            "law": self.law.document() if self.law else None,
            "clean": self.clean.document() if self.clean else None,
            "together": [one.document() for one in self.together],
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
    arms = {arm.name: _measured(study, arm) for arm in study.arms}
    law = _law(study, study.law, study.seed_folder, study.size.budgets) if study.law else None
    clean = _law(study, study.clean, study.clean_folder, study.size.clean_budgets) if study.clean else None
    found = []
    for finding in study.findings:
        by_frequency = {name: _by_frequency(study, arms[name].arm) for name in finding.by_frequency}
        found.append(
            Result(
                finding,
                {arm.name: arms[arm.name] for arm in finding.arms},
                tuple(
                    Difference(
                        f"{one.better} - {one.than}",
                        one.question,
                        arms[one.better].accuracy.minus(arms[one.than].accuracy),
                        one.is_claim,
                    )
                    for one in finding.comparisons
                ),
                tuple(by_frequency.values()),
                _added(study, finding.addition, arms, by_frequency) if finding.addition else None,
                law if finding.law else None,
                clean if finding.clean else None,
                _together(study, clean) if finding.clean and clean else (),
                law if finding.advice else None,
            )
        )
    return found


def _store(study: Study, seed: int, arm: Arm | None = None) -> Store:
    return Store(str((study.folder_of(arm, seed) if arm else study.seed_folder(seed)) / "store"))


def _measured(study: Study, arm: Arm) -> MeasuredArm:
    rows = {}
    for seed in study.seeds:
        columns = ["task", "metric", "value", "data_size"]
        table = _store(study, seed, arm).read("evaluation", run_key(arm, seed), EVALUATION, columns)
        (rows[seed],) = [row for row in table.to_pylist() if (row["task"], row["metric"]) == (TASK, METRIC)]
    return MeasuredArm(
        arm,
        sum(row["data_size"] for row in rows.values()) / len(rows),
        Spread({seed: row["value"] for seed, row in rows.items()}),
    )


def _classes(study: Study, arm: Arm, seed: int) -> dict[str, tuple[float, float]]:
    """How many captions of an arm name each class, and the accuracy on it."""
    columns = ["run", "class_name", "caption_samples", "accuracy"]
    table = _store(study, seed, arm).read("concept_accuracies", None, CONCEPT_ACCURACIES, columns).to_pylist()
    key = run_key(arm, seed)
    return {row["class_name"]: (row["caption_samples"], row["accuracy"]) for row in table if row["run"] == key}


def _added(
    study: Study, addition: Addition, arms: Mapping[str, MeasuredArm], by_frequency: Mapping[str, ByFrequency]
) -> Added:
    found: dict[str, dict[int, float]] = {name: {} for name in ("before", "after", "lift", "predicted", "by_any")}
    for seed in study.seeds:
        base, rare, any_ = (
            _classes(study, arms[name].arm, seed) for name in (addition.base, addition.rare, addition.any)
        )
        names = [name for name, _ in rarest_of(study, seed)]
        before, after = ([of[name][0] for name in names] for of in (base, rare))
        fit = by_frequency[addition.base].fits[seed]
        found["before"][seed], found["after"][seed] = _mean(before), _mean(after)
        found["lift"][seed] = _mean(rare[name][1] - base[name][1] for name in names)
        found["by_any"][seed] = _mean(any_[name][1] - base[name][1] for name in names)
        found["predicted"][seed] = float((predict_accuracy(fit, after) - predict_accuracy(fit, before)).mean())
    return Added(addition, *(Spread(by_seed) for by_seed in found.values()))


def _law(study: Study, law: Law, folder_of: Callable[[int], Path], budgets: tuple[int, int]) -> MeasuredLaw:
    stores = {seed: Store(str(folder_of(seed) / "store")) for seed in study.seeds}
    described = {seed: store for seed, store in stores.items() if is_described(store)}
    names = {arm.name for arm in law.arms}
    curves = [
        (seed, row)
        for seed, row in _rows(stores, "training_curves", TRAINING_CURVES, "pool pool_size samples_seen error")
        if row["pool"] in names
    ]
    mixtures = _rows(described, "measured_mixtures", MEASURED_MIXTURES, "mixture samples_seen predicted")
    utilities = _rows(described, "pool_utilities", POOL_UTILITIES, "pool falls")
    advice = _rows(described, "filter_recommendation", FILTER_RECOMMENDATION, "samples_seen keep is_best")
    best = {(row["samples_seen"], seed): row["keep"] for seed, row in advice if row["is_best"]}
    return MeasuredLaw(
        law,
        budgets,
        {name: _mean(row["pool_size"] for _, row in curves if row["pool"] == name) for name in names},
        _points((row["pool"], row["samples_seen"], seed, row["error"]) for seed, row in curves),
        _points(
            (row["mixture"], row["samples_seen"], seed, row["predicted"])
            for seed, row in mixtures
            if row["predicted"] is not None
        ),
        {
            arm.name: tuple(seed for seed, row in utilities if row["pool"] == arm.name and row["falls"])
            for arm in law.parts
        },
        {seen: {seed: best.get((seen, seed), 0) for seed in study.seeds} for seen in budgets},
    )


def _together(study: Study, clean: MeasuredLaw) -> tuple[Together, ...]:
    store = Store(str(study.law_folder / "store"))
    described, found = is_described(store), []
    for _, row in _rows({0: store}, "measured_mixtures", MEASURED_MIXTURES, "mixture samples_seen error predicted"):
        parts = clean.law.mixtures[row["mixture"]]
        of_parts = _mean(clean.loss[part][row["samples_seen"]].mean for part in parts)
        told = row["predicted"] if described else None
        off = None if told is None else abs(told - row["error"])
        found.append((row["mixture"], off, abs(of_parts - row["error"])))
    together = []
    for arm in (one for one in clean.law.arms if one.name in clean.law.mixtures):
        offs = [(law, mean) for name, law, mean in found if name == arm.name]
        laws = [law for law, _ in offs if law is not None]
        together.append(Together(arm, _mean(laws) if laws else None, _mean(mean for _, mean in offs)))
    return tuple(together)


def _rows(stores: Mapping[int, Store], asset: str, schema: pa.Schema, columns: str) -> list[tuple[int, dict[str, Any]]]:
    """What an asset of each seed holds of the loss that is followed."""
    return [
        (seed, row)
        for seed, store in stores.items()
        for row in store.read(asset, None, schema, [*columns.split(), "metric"]).to_pylist()
        if row["metric"] == LOSS
    ]


def _points(rows: Iterable[tuple[str, int, int, float]]) -> dict[str, dict[int, Spread]]:
    """By name and samples seen, in order: a number of each seed."""
    found: dict[str, dict[int, dict[int, float]]] = {}
    for name, seen, seed, value in sorted(rows):
        found.setdefault(name, {}).setdefault(seen, {})[seed] = value
    return {name: {seen: Spread(by_seed) for seen, by_seed in some.items()} for name, some in found.items()}


def _by_frequency(study: Study, arm: Arm) -> ByFrequency:
    points = {seed: [*_classes(study, arm, seed).values()] for seed in study.seeds}
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
