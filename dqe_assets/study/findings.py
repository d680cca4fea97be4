"""The findings that are tried: what each claims, what is trained for it, and the rule that its verdict follows."""

from __future__ import annotations

from dataclasses import dataclass

from dqe_assets.core.schema import ORIGINAL
from dqe_assets.training.settings import ALL, BEST, data_name

TRUE = "true"
"""The captioner that says all that an image shows."""

SYNTHETIC = "synthetic"
"""The captioner whose model has seen neither the pool nor a pair of the scorer's."""

DISTILLED = "distilled"
"""The captioner whose model is the scorer itself, with the scorer's own captions."""

MIXED = "mixed"
"""The mix of captions that are found and synthetic ones by one threshold."""

BASE_AND_RARE, BASE_AND_ANY = "base_and_rare", "base_and_any"
"""What a part of the pool is trained with after samples of a second pool were added: see ``Addition``."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one model of each seed is trained on.

    Attributes:
        name: of the arm; where it has an expression, of its subset too.
        what: in words.
        expression: which samples of the pool; None for all.
        captions: what they are trained with.
        is_added_to: whether samples of a second pool are added: it is then trained in a data folder of its own.
    """

    name: str
    what: str
    expression: str | None = None
    captions: str = ORIGINAL
    is_added_to: bool = False

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
class Law:
    """Pools and mixtures of them whose loss is followed through training, and what the utility law says of it.

    Attributes:
        pools: parts of the pool that have no sample in common, the best first.
        kept: the union of the best 1, 2 ... of the first pools, where it is trained; by how many they are.
        rest: what is in none of these, if there is more.
    """

    pools: tuple[Arm, ...]
    kept: dict[int, Arm]
    rest: Arm | None = None

    @property
    def parts(self) -> tuple[Arm, ...]:
        """All that the law is fitted to: together they are the whole pool."""
        return (*self.pools, self.rest) if self.rest else self.pools

    @property
    def mixtures(self) -> dict[str, tuple[str, ...]]:
        """The parts that each union is of, by its name; and those of all samples."""
        unions = {arm.name: tuple(pool.name for pool in self.pools[:n]) for n, arm in self.kept.items() if n > 1}
        return unions | {ALL: tuple(part.name for part in self.parts)}

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All that is trained for it, each once."""
        every = (*self.pools, *self.kept.values(), *self.parts, _ALL)
        return tuple({arm.name: arm for arm in every}.values())


@dataclass(frozen=True, slots=True)
class Addition:
    """Samples of the rarest concepts that are found in a second pool and added to an arm.

    Attributes:
        base: name of the arm that they are added to.
        rare: name of the arm with them.
        any: name of the arm to which as many samples were added at random.
    """

    base: str
    rare: str
    any: str


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
        addition: what is added to one of them.
        law: what is followed through training.
        clean: what is followed beside it: parts of another pool, of which each teaches something.
        advice: what is followed through training, if the platform's recommendation for it is tried.
    """

    number: int
    name: str
    claim: str
    paper: str
    different: str
    arms: tuple[Arm, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    by_frequency: tuple[str, ...] = ()
    addition: Addition | None = None
    law: Law | None = None
    clean: Law | None = None
    advice: Law | None = None


_ALL = Arm(ALL, "the whole pool, as found")


def _top(percent: int) -> Arm:
    return Arm(f"top_{percent:02}", f"the {percent} % that fit best", f"score_top(share={percent / 100:g})")


def _random(percent: int) -> Arm:
    return Arm(f"random_{percent:02}", f"{percent} % at random", f"random(share={percent / 100:g})")


def _eighth(number: int) -> Arm:
    begin, end = (number - 1) / 8, number / 8
    best = f"score_top(share={end:g})"
    what = ("", "second ", "third ", "fourth ")[number - 1] + "best eighth"
    return Arm(f"eighth_{number}", f"the {what}", f"{best} & ~score_top(share={begin:g})" if begin else best)


_EIGHTHS = tuple(map(_eighth, (1, 2, 3, 4)))

_KEPT = {
    1: _EIGHTHS[0],
    2: _top(25),
    3: Arm("top_38", "the three best eighths", "score_top(share=0.375)"),
    4: _top(50),
}

_LAW = Law(_EIGHTHS, _KEPT, Arm("rest", "the worse half", "~score_top(share=0.5)"))

RIGHT = {"right_99": 0.99, "right_96": 0.96, "right_88": 0.88, "right_68": 0.68}
"""Sources of the clean pool, and what share of each one's captions is right. The others are of other pictures."""

_SOURCES = tuple(
    Arm(name, f"{share * 100:.0f} % of captions right", f"source == '{name}'") for name, share in RIGHT.items()
)

_CLEAN = Law(
    _SOURCES,
    {
        1: _SOURCES[0],
        2: Arm("best_2", "the two best parts", f"source in {[*RIGHT][:2]}"),
        3: Arm("best_3", "the three best parts", f"source in {[*RIGHT][:3]}"),
        4: _ALL,
    },
)


FINDINGS = (
    Finding(
        1,
        "Better captions",
        "With the same images and the same compute, captions that say what an image shows teach more than those that "
        "it was found with: if they are the truth, if a model wrote them, and if of both the one that fits better is "
        "taken.",
        "Nguyen et al. 2023 (arXiv 2307.10350) mix raw with synthetic captions: at DataComp's medium scale, ImageNet "
        "accuracy rises by 2 points, and the mean over 38 tasks by 4, beyond the best filter of raw captions.",
        "The captioner is a small CLIP that takes the nearest of the captions of other images; it was trained on other "
        "pairs than the scorer. It knows all things alike, which no captioner of the web does.",
        (
            _ALL,
            Arm("true", "the whole pool, each image with its true caption", captions=TRUE),
            Arm("synthetic", "the whole pool, each image with a synthetic caption", captions=SYNTHETIC),
            Arm("best", "the whole pool, each image with the better of both captions", captions=BEST),
            Arm("distilled", "the whole pool, each image with a synthetic caption by the scorer", captions=DISTILLED),
        ),
        (
            Comparison("true", ALL, "Do true captions teach more than those that were found?"),
            Comparison("synthetic", ALL, "Do synthetic captions?"),
            Comparison("best", ALL, "Does the better of both?"),
            Comparison("best", "synthetic", "Is the better of both better than the synthetic one?", is_claim=False),
            Comparison("true", "synthetic", "What is lost to the truth?", is_claim=False),
            Comparison(
                "distilled",
                "synthetic",
                "Is it what the scorer knows: are captions by its own model better than by one apart?",
                is_claim=False,
            ),
        ),
    ),
    Finding(
        2,
        "Filtering at fixed compute",
        "A model that sees the part of the pool whose captions fit best, again and again, becomes better than one that "
        "sees all of it once or a few times; and too small a part is worse again.",
        "DataComp (Gadre et al. 2023, arXiv 2304.14108): at each scale the best 30 % by a CLIP's score are better than "
        "all; at the small scale ImageNet 0.051 against 0.025.",
        "The scorer was trained on clean pairs of the same kind of pictures; DataComp's CLIPs on other web data. A "
        "quarter is kept, because a quarter of the captions is right here: the others are bad on purpose.",
        (_ALL, _top(5), _EIGHTHS[0], _top(25), _top(50), _random(25)),
        (
            Comparison("top_25", "random_25", "Is it the choice, and not the smaller number?"),
            Comparison("top_25", ALL, "Is the best part better than all?"),
            Comparison("top_25", "top_05", "Is too small a part worse again?"),
            Comparison("top_25", "eighth_1", "Is half of the best part worse?", is_claim=False),
            Comparison("top_25", "top_50", "Is twice the best part worse?", is_claim=False),
            Comparison("random_25", ALL, "Is a part at random better than all?", is_claim=False),
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
            Arm(
                "kmeans_25",
                "25 % of each cluster of plain embeddings, drawn",
                "kmeans_embeddings(share=0.25, embedding='image_embedding')",
            ),
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
        4,
        "Which data for which compute",
        "With little compute a small, best part of the pool is best, and with more a larger one; and a law that is "
        "fitted to single parts says what their mixtures come to.",
        "Goyal et al. 2024 (arXiv 2404.07177): how much of DataComp's medium pool is best to keep depends on the "
        "compute, and the curves of mixtures are predicted from those of their parts.",
        "What is measured is the loss of clean pairs that were held out, over that of a guess: at this scale accuracy "
        "comes late and in jumps. Models start from one that has seen some thousand web-like pairs. Pools are eighths "
        "of some thousand pictures by the score, of which the worse teach nothing, and apart from these four parts of "
        "a cleaner pool, of which each teaches something: by these it is decided whether the law predicts mixtures. It "
        "is fitted to each seed by itself, where one model's noise is large.",
        law=_LAW,
        clean=_CLEAN,
    ),
    Finding(
        5,
        "Accuracy follows the logarithm of frequency",
        "The more often captions name a thing, the better the model knows it: its accuracy grows with the logarithm of "
        "the count. So more pictures of the rarest things lift these.",
        "Udandarao et al. 2024 (arXiv 2404.04125): so with 34 models and 5 data sets, in zero-shot classification and "
        "retrieval.",
        "149 concepts whose frequency follows Zipf's law by a rank that the seed draws, so that no thing is always the "
        "frequent one. Counted are captions that name a concept, whatever the image shows. The second pool has all "
        "things alike often; added are pictures whose captions name the rarest, of each thing those that fit best.",
        (
            _top(25),
            Arm(
                "more_rare",
                "the 25 % that fit best, and pictures of the rarest tenth of things from a second pool",
                captions=BASE_AND_RARE,
                is_added_to=True,
            ),
            Arm(
                "more_any",
                "the 25 % that fit best, and as many pictures at random from the second pool",
                captions=BASE_AND_ANY,
                is_added_to=True,
            ),
        ),
        by_frequency=("top_25",),
        addition=Addition("top_25", "more_rare", "more_any"),
    ),
    Finding(
        6,
        "Beyond the papers",
        "Mixing captions by one threshold is better than the best filter of those that were found; a draw in which no "
        "thing has many more samples than others is better than none; and the share of the pool that the platform "
        "recommends for a compute is better than all of it.",
        "Nguyen et al. 2023 (arXiv 2307.10350): an original where it is among the best 30 %, else a synthetic caption "
        "that fits as well, else neither. MetaCLIP (Xu et al. 2023, arXiv 2309.16671): balanced, 400 million pairs "
        "reach 0.708 on ImageNet where CLIP's own reach 0.683. The recommendation is the platform's own.",
        "All things count alike in the accuracy, however rare, which balancing is for. What is recommended is how "
        "many of the best eighths to keep, by the law that was fitted to each of these.",
        (
            _ALL,
            _top(25),
            Arm("mixed", "the whole pool, captions mixed by one threshold", captions=MIXED),
            Arm("named", "all whose captions name a thing", "balanced(t=1000000000, language=None)"),
            Arm("balanced", "of these a draw that balances things", "balanced(language=None)"),
        ),
        (
            Comparison("mixed", "top_25", "Is mixing captions better than the best filter of those that were found?"),
            Comparison("balanced", "named", "Does balancing help, beyond that captions must name a thing?"),
            Comparison("named", ALL, "Do captions that name nothing do harm?", is_claim=False),
        ),
        advice=_LAW,
    ),
)
"""In the order of the page. The numbers are those of the project's list of findings."""


def arms_of(findings: tuple[Finding, ...]) -> tuple[Arm, ...]:
    """The arms of findings, each once."""
    return tuple({arm.name: arm for finding in findings for arm in finding.arms}.values())
