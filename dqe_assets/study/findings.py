"""The findings that are tried: what each claims, what is trained for it, and the rule that its verdict follows."""

from __future__ import annotations

from dataclasses import dataclass

from dqe_assets.core.schema import ORIGINAL
from dqe_assets.training.settings import ALL, data_name

TRUE = "true"
"""The captioner that says all that an image shows."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one model of each seed is trained on.

    Attributes:
        name: of the arm; where it has an expression, of its subset too.
        what: in words.
        expression: which samples of the pool; None for all.
        captions: what they are trained with.
    """

    name: str
    what: str
    expression: str | None = None
    captions: str = ORIGINAL

    @property
    def subset(self) -> str:
        """Name of its subset."""
        return ALL if self.expression is None else self.name

    @property
    def data(self) -> str:
        """What the platform calls that which it is trained on."""
        return data_name(self.subset, [(self.captions, 1.0)])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two arms, and what is asked of their accuracies.

    Attributes:
        better: name of the arm that should be better.
        than: name of the other.
        question: what their difference answers.
        is_claim: whether the verdict depends on it; if not, it is a control, which says what a claim is worth.
    """

    better: str
    than: str
    question: str
    is_claim: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a paper found.

    Attributes:
        number: what ``--findings`` calls it.
        name: a few words.
        claim: what should hold here too.
        paper: what the paper reports, and where.
        different: what is different here.
        arms: what is trained.
        comparisons: what decides, and the controls.
        by_frequency: names of arms in which the accuracy of each class is put over how often captions name it.
    """

    number: int
    name: str
    claim: str
    paper: str
    different: str
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...] = ()
    by_frequency: tuple[str, ...] = ()


_ALL = Arm(ALL, "the whole pool, as found")


def _top(percent: int) -> Arm:
    return Arm(f"top_{percent:02}", f"the {percent} % that fit best", f"score_top(share={percent / 100:g})")


def _random(percent: int) -> Arm:
    return Arm(f"random_{percent:02}", f"{percent} % at random", f"random(share={percent / 100:g})")


FINDINGS = (
    Finding(
        1,
        "Better captions",
        "With the same images and the same compute, captions that say what an image shows teach more than those that "
        "it was found with.",
        "Nguyen et al. 2023 (arXiv 2307.10350) mix raw with synthetic captions: at DataComp's medium scale, ImageNet "
        "accuracy rises by 2 points, and the mean over 38 tasks by 4, beyond the best filter of raw captions.",
        "The better captions are the truth, which no captioner has: this is the most that better captions could give, "
        "and not what a captioner gives. There is no arm of synthetic captions.",
        (_ALL, Arm("true", "the whole pool, each image with its true caption", captions=TRUE)),
        (Comparison("true", ALL, "Do true captions teach more than those that were found?"),),
    ),
    Finding(
        2,
        "Filtering at fixed compute",
        "A model that sees the part of the pool whose captions fit best, again and again, becomes better than one that "
        "sees all of it once or a few times; and too small a part is worse again.",
        "DataComp (Gadre et al. 2023, arXiv 2304.14108): at each scale the best 30 % by a CLIP's score are better than "
        "all; at the small scale ImageNet 0.051 against 0.025.",
        "The scorer was trained on clean pairs of the same kind of pictures; DataComp's CLIPs on other web data. Three "
        "quarters of the captions here are bad on purpose.",
        (_ALL, _top(5), _top(30), _random(30)),
        (
            Comparison("top_30", "random_30", "Is it the choice, and not the smaller number?"),
            Comparison("top_30", ALL, "Is the best part better than all?"),
            Comparison("top_30", "top_05", "Is too small a part worse again?"),
            Comparison("random_30", ALL, "Is a part at random better than all?", is_claim=False),
        ),
    ),
    Finding(
        3,
        "A quarter by a codebook (TL;DR)",
        "A quarter of the samples, drawn from clusters of images that a codebook describes alike, is better than a "
        "quarter at random.",
        "Wang et al. 2023 (arXiv 2305.20087), BLIP on CC3M: COCO retrieval 68.5 (image to text, recall@1) with the "
        "quarter drawn from clusters, 65.3 with a random one, 70.6 with all.",
        "The codebook is k-means of image tokens and is not trained as part of a captioner. Zero-shot classification "
        "is measured, in which TL;DR loses a little, and not retrieval. Captions stay as they were found.",
        (
            _ALL,
            _random(25),
            Arm("tldr_25", "25 % of each cluster of the codebook, drawn", "tldr(share=0.25)"),
            Arm("kmeans_25", "25 % of each cluster of plain embeddings, drawn", "kmeans_embeddings(share=0.25)"),
            _top(25),
            Arm(
                "tldr_top_25",
                "the 25 % of each cluster of the codebook that fit best",
                "tldr(share=0.25, rule='best_score')",
            ),
        ),
        (
            Comparison("tldr_25", "random_25", "Is a draw from clusters better than a plain one?"),
            Comparison("tldr_25", "kmeans_25", "Is it the codebook, and not any clusters?", is_claim=False),
            Comparison("tldr_top_25", "random_25", "Is the best quarter of each cluster better?", is_claim=False),
            Comparison(
                "tldr_top_25", "top_25", "Do clusters add anything to choosing by the score alone?", is_claim=False
            ),
        ),
    ),
    Finding(
        5,
        "Accuracy follows the logarithm of frequency",
        "The more often captions name a thing, the better the model knows it: its accuracy grows with the logarithm of "
        "the count.",
        "Udandarao et al. 2024 (arXiv 2404.04125): so with 34 models and 5 data sets, in zero-shot classification and "
        "retrieval.",
        "149 concepts whose frequency follows Zipf's law by a rank that the seed draws, so that no thing is always the "
        "frequent one. Counted are captions that name a concept, whatever the image shows.",
        (_top(30),),
        by_frequency=("top_30",),
    ),
)
"""In the order of the page. The numbers are those of the project's list of findings."""


def arms_of(findings: tuple[Finding, ...]) -> tuple[Arm, ...]:
    """The arms of findings, each once."""
    return tuple({arm.name: arm for finding in findings for arm in finding.arms}.values())
