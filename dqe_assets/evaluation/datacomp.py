"""DataComp's list of tasks, with each one's main metric, and the averages of its leaderboard.

From Gadre et al. 2023 (arXiv 2304.14108) and its authors' ``tasklist.yml`` and ``aggregate_scores.py``. FairFace and
UTKFace are in that list without a score, and so are not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCURACY = "acc1"
RECALL_BY_CLASS = "mean_per_class_recall"
RETRIEVAL_RECALL = "mean_recall@1"


@dataclass(frozen=True, slots=True)
class DatacompTask:
    """A scored task.

    Attributes:
        key: as DataComp's list and its result files call it.
        name: for people, as its leaderboard calls it.
        metric: the metric that is its score.
        images: images of its test set.
        groups: averages that it is part of, apart from that over all tasks.
        by: column of its ``.npy`` metadata that its groups are made of; None if it has none.
        ignored: values of that column that do not count.
    """

    key: str
    name: str
    metric: str
    images: int
    groups: frozenset[str] = frozenset()
    by: int | None = None
    ignored: tuple[int, ...] = ()

    @property
    def folder(self) -> str:
        """The folder that DataComp's download puts its tars into."""
        return f"wds_{self.key.removeprefix('fairness/').replace('/', '-')}_test"


SHIFTS, VTAB, RETRIEVAL = "ImageNet dist. shifts", "VTAB", "Retrieval"
IMAGENET, AVERAGE = "ImageNet", "Average"

_SHIFTS, _VTAB, _RETRIEVAL = frozenset({SHIFTS}), frozenset({VTAB}), frozenset({RETRIEVAL})

_CAPTIONED = "_test_image_text_retrieval"

TASKS: dict[str, DatacompTask] = {
    task.key: task
    for task in (
        DatacompTask("vtab/caltech101", "Caltech-101", RECALL_BY_CLASS, 6_085, _VTAB),
        DatacompTask("cifar10", "CIFAR-10", ACCURACY, 10_000),
        DatacompTask("vtab/cifar100", "CIFAR-100", ACCURACY, 10_000, _VTAB),
        DatacompTask("vtab/clevr_count_all", "CLEVR Counts", ACCURACY, 15_000, _VTAB),
        DatacompTask("vtab/clevr_closest_object_distance", "CLEVR Distance", ACCURACY, 15_000, _VTAB),
        DatacompTask("country211", "Country211", ACCURACY, 21_100),
        DatacompTask("vtab/dtd", "Describable Textures", ACCURACY, 1_880, _VTAB),
        DatacompTask("vtab/eurosat", "EuroSAT", ACCURACY, 5_400, _VTAB),
        DatacompTask("fgvc_aircraft", "FGVC Aircraft", RECALL_BY_CLASS, 3_333),
        DatacompTask("food101", "Food-101", ACCURACY, 25_250),
        DatacompTask("gtsrb", "GTSRB", ACCURACY, 12_630),
        DatacompTask("imagenet1k", "ImageNet 1k", ACCURACY, 50_000, frozenset({IMAGENET})),
        DatacompTask("imagenet_sketch", "ImageNet Sketch", ACCURACY, 50_889, _SHIFTS),
        DatacompTask("imagenetv2", "ImageNet v2", ACCURACY, 10_000, _SHIFTS),
        DatacompTask("imagenet-a", "ImageNet-A", ACCURACY, 7_500, _SHIFTS),
        DatacompTask("imagenet-o", "ImageNet-O", ACCURACY, 2_000, _SHIFTS),
        DatacompTask("imagenet-r", "ImageNet-R", ACCURACY, 30_000, _SHIFTS),
        DatacompTask("vtab/kitti_closest_vehicle_distance", "KITTI Vehicle Distance", ACCURACY, 711, _VTAB),
        DatacompTask("mnist", "MNIST", ACCURACY, 10_000),
        DatacompTask("objectnet", "ObjectNet", ACCURACY, 18_574, _SHIFTS),
        DatacompTask("vtab/flowers", "Oxford Flowers-102", RECALL_BY_CLASS, 6_149, _VTAB),
        DatacompTask("vtab/pets", "Oxford-IIIT Pet", RECALL_BY_CLASS, 3_669, _VTAB),
        DatacompTask("voc2007", "Pascal VOC 2007", ACCURACY, 14_976),
        DatacompTask("vtab/pcam", "PatchCamelyon", ACCURACY, 32_768, _VTAB),
        DatacompTask("renderedsst2", "Rendered SST2", ACCURACY, 1_821),
        DatacompTask("vtab/resisc45", "RESISC45", ACCURACY, 6_300, _VTAB),
        DatacompTask("cars", "Stanford Cars", ACCURACY, 8_041),
        DatacompTask("stl10", "STL-10", ACCURACY, 8_000),
        DatacompTask("sun397", "SUN397", ACCURACY, 108_754, _VTAB),
        DatacompTask("vtab/svhn", "SVHN", ACCURACY, 26_032, _VTAB),
        DatacompTask("retrieval/flickr_1k_test_image_text_retrieval", "Flickr", RETRIEVAL_RECALL, 1_000, _RETRIEVAL),
        DatacompTask(
            "retrieval/mscoco_2014_5k_test_image_text_retrieval", "MSCOCO", RETRIEVAL_RECALL, 5_000, _RETRIEVAL
        ),
        DatacompTask("misc/winogavil", "WinoGAViL", "jaccard_score_10-12", 3_563, _RETRIEVAL),
        DatacompTask("wilds/iwildcam", "iWildCam", "F1-macro_all", 42_791),
        DatacompTask("wilds/camelyon17", "Camelyon17", ACCURACY, 85_054, by=1),
        DatacompTask("wilds/fmow", "FMoW", "acc_worst_region", 22_108, by=0, ignored=(5,)),
        DatacompTask("fairness/dollar_street", "Dollar Street", "acc_top5_wg", 3_503, by=0),
        DatacompTask("fairness/geode", "GeoDE", "acc_wg", 12_488, by=0),
    )
}
"""The 38 scored tasks by their keys. The region 5 of FMoW is "Other"."""


def averages(scores: Mapping[str, float]) -> dict[str, float | None]:
    """DataComp's averages: ImageNet, its distribution shifts, VTAB, Retrieval, and Average over all 38 tasks.

    Args:
        scores: of tasks, by their keys; other keys are left alone.

    Returns:
        None where a task of the average has no score: a mean of fewer would look like one of all.
    """
    members = {
        name: [task.key for task in TASKS.values() if name in task.groups]
        for name in (IMAGENET, SHIFTS, VTAB, RETRIEVAL)
    } | {AVERAGE: list(TASKS)}
    return {
        name: sum(scores[key] for key in keys) / len(keys) if all(key in scores for key in keys) else None
        for name, keys in members.items()
    }
