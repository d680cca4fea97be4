"""The settings: data/dqe.yaml, overridden by DQE_* variables of the environment, checked when they are loaded."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from dqe_assets.compression.settings import Compression
from dqe_assets.concepts.settings import ConceptSettings
from dqe_assets.contamination.settings import (
    AnyReferenceSet,
    ContaminationRules,
    EvaluationTask,
    ReferenceSets,
    check_reference_sets,
)
from dqe_assets.core.schema import IMAGE, ORIGINAL, REFINED, REVIEWED
from dqe_assets.dedup.settings import DuplicateRules
from dqe_assets.evaluation.settings import Evaluation
from dqe_assets.evaluation.targets import Targets, check_targets
from dqe_assets.evaluation.task_source import TaskSource
from dqe_assets.filtering.settings import (
    DEFAULT_FILTERS,
    DEFAULT_SUBSETS,
    CaptionMix,
    FilterName,
    Mixture,
    Subset,
    check_mixes,
    check_mixtures,
    check_selection,
    is_taken,
)
from dqe_assets.grounding.settings import Grounding
from dqe_assets.improve.best_settings import BestRule
from dqe_assets.improve.judging_settings import Judging
from dqe_assets.improve.refining_settings import Refining, check_refining
from dqe_assets.ingest.fetch.settings import Fetching, Refetch
from dqe_assets.ingest.takedowns.settings import AnyTakedowns, Takedowns
from dqe_assets.scaling.curves import Scaling
from dqe_assets.score.imported import PreferenceImport
from dqe_assets.score.scorer_settings import asking_scorer, check_scorers
from dqe_assets.score.tables import SAMPLE_SCORES
from dqe_assets.search.topics import MapSettings
from dqe_assets.signals.settings import SignalTable, check_signals
from dqe_assets.signals.source_metadata import SOURCE_METADATA, metadata_signals
from dqe_assets.training.settings import BEST, Training, check_training
from dqe_resources.cache import data_directory
from dqe_resources.captioners import AnyCaptioner
from dqe_resources.captioners.served_engine import ServedEngine
from dqe_resources.cluster import AnyCluster
from dqe_resources.configurable import Strict, files_may_be_away, in_words
from dqe_resources.errors import UsageError, one_line
from dqe_resources.models.image_model import ImageModel
from dqe_resources.models.text_detector import TextDetector
from dqe_resources.scorers import AnySampleScorer, AnyScorer
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.sources import AnySource, Source
from dqe_resources.store import Store
from dqe_resources.vectors import AnyVectors
from dqe_resources.vectors.embedded import EmbeddedQdrant
from dqe_resources.vectors.server import ServerQdrant
from dqe_resources.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    import pyarrow as pa

    from dqe_assets.signals.source_metadata import MetadataSignals
    from dqe_resources.sources.metadata_types import MetadataType

from dqe_assets.caption.settings import CaptionSources, check_captioners
from dqe_assets.ingest.settings import ImageLimits, IngestSettings

CONFIGURATION_FILE = "dqe.yaml"


class SettingsError(UsageError):
    """The settings are wrong: says the file, the key and what is allowed, a line for each fault."""


def _as_written(value: Any) -> Any:
    # YAML reads a bare off as false.
    return "off" if value is False else value


Automation = Annotated[
    Literal["off", "eager"], BeforeValidator(_as_written, json_schema_input_type=Literal["off", "eager", False])
]


class Concurrency(Strict):
    """How much of the work in Dagster is done side by side on this machine.

    Attributes:
        steps: Steps of a run; by default as many as there are cores, at least 2.
        runs: Runs.
        pools: Steps in each pool, over all runs: ``model`` (one that runs a model), ``collection`` (one that opens the
            collection), ``judge``, ``training``. What is not named has 1.
    """

    steps: Annotated[int, Field(ge=1)] = Field(default_factory=lambda: max(2, os.cpu_count() or 1))
    runs: Annotated[int, Field(ge=1)] = 2
    pools: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)


class Settings(Strict):
    """Everything that data/dqe.yaml configures.

    Attributes:
        sources: Where the image-caption pairs come from.
        captioners: Models that write a caption for each image. Each is an asset of its own,
            ``synthetic_captions/<name>``.
        engines: Models that ``dqe engine up`` serves on the GPUs of this machine.
        image_model: The model that gives image features and ImageNet labels.
        scorer: The model that says how well a caption fits an image.
        scorers: What else samples are chosen by: each is a column of its name, and an asset ``scores/<name>``; one
            of kind vqa or vqa_transformers scores the captions of all sources (the assets ``vqa_scores/<source>``), and
            best captions can be chosen by it. By default they are chosen by ``scorer`` alone.
        refining: Ask a captioner again for captions that fit badly (the asset refined_captions). Off by default.
        image_text: Find the text in each image (the assets image_text and masked_similarity); null leaves both out.
        preference_imports: Tables of preferences that were computed elsewhere.
        vectors: Where the Qdrant collection is kept.
        warehouse: The DuckDB file that is queried.
        store: Where the tables of all assets are kept: a path from the data folder, or an fsspec URL such as
            s3://bucket/store.
        images: Limits on images.
        fetching: How images are fetched from the web.
        refetch: Which rows are fetched again when a shard of raw_samples is made again: transient failures, all
            failures, or all rows.
        takedowns: What is to be taken down: such rows keep nothing but their uid, and are never fetched.
        best: How the best caption of each sample is chosen.
        duplicates: When two images are duplicates, and which one is kept.
        reference_sets: Sets that nothing may be trained on, such as those that models are evaluated on: sources of any
            kind, or tasks of evaluation by their names. Samples that are in them are found (the asset contamination).
        contamination: When a sample counts as one of a reference set.
        filters: Filters by name: each is an expression of built-in filters and of other names in this list.
        compression: Describe images by codes, and cluster the codes (the assets codebook, image_codes and
            code_clusters), so that a share of alike images is enough. Off by default.
        targets: Images that data is to be like, for the score ``normsim``: each is an asset ``targets/<name>``.
        signals: Tables with values of samples, such as scores that were computed elsewhere: each is an asset
            ``signals/<name>``.
        subsets: Subsets to make: each is an asset ``subsets/<name>``.
        mixtures: Subsets that are drawn from sources and other subsets by weights: each is an asset ``subsets/<name>``.
        caption_mixes: Captions to train with, mixed of originals and synthetic ones (the assets caption_thresholds and
            ``mixed_captions/<name>``).
        concepts: Which concepts are counted, and what is made of their frequencies.
        map: The map of the images.
        grounding: Look for the things that captions name in their images (the asset grounding). Off by default.
        judging: A model that marks the captions of a few samples of each shard. Off by default.
        scaling: Measured training curves, and the compute to recommend data for.
        training: What is trained on the subsets.
        evaluation: What trained models, and others, are evaluated on.
        shards_per_run: The most shards that one run of a backfill makes.
        automation: ``eager`` materialises each asset by itself as soon as what it is made of is new; ``off`` waits for
            a person.
        concurrency: How many steps and runs Dagster does at once.
        cluster: Workers that make shards side by side, on this machine or on several. By default the process of a run
            makes them, one after another.
    """

    sources: Annotated[list[AnySource], Field(min_length=1)]
    captioners: list[AnyCaptioner] = Field(default_factory=list)
    engines: list[ServedEngine] = Field(default_factory=list)
    image_model: ImageModel = Field(default_factory=ImageModel)
    scorer: AnyScorer = Field(default_factory=LabelSpace)
    scorers: list[AnySampleScorer] = Field(default_factory=list)
    refining: Refining | None = None
    image_text: TextDetector | None = Field(default_factory=TextDetector)
    preference_imports: list[PreferenceImport] = Field(default_factory=list)
    vectors: AnyVectors = Field(default_factory=EmbeddedQdrant)
    warehouse: Warehouse = Field(default_factory=Warehouse)
    store: str = "store"
    images: ImageLimits = ImageLimits()
    fetching: Fetching = Fetching()
    refetch: Refetch = "transient"
    takedowns: AnyTakedowns = Takedowns()
    best: BestRule = BestRule()
    duplicates: DuplicateRules = DuplicateRules()
    reference_sets: list[AnyReferenceSet] = Field(default_factory=list)
    contamination: ContaminationRules = ContaminationRules()
    filters: dict[FilterName, str] = Field(default_factory=lambda: dict(DEFAULT_FILTERS))
    compression: Compression | None = None
    targets: list[Targets] = Field(default_factory=list)
    signals: list[SignalTable] = Field(default_factory=list)
    subsets: list[Subset] = Field(default_factory=lambda: list(DEFAULT_SUBSETS))
    mixtures: list[Mixture] = Field(default_factory=list)
    caption_mixes: list[CaptionMix] = Field(default_factory=list)
    concepts: ConceptSettings = Field(default_factory=ConceptSettings)
    map: MapSettings = MapSettings()
    grounding: Grounding | None = None
    judging: Judging | None = None
    scaling: Scaling = Field(default_factory=Scaling)
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    shards_per_run: Annotated[int, Field(ge=1)] = 16
    automation: Automation = "off"
    concurrency: Concurrency = Field(default_factory=Concurrency)
    cluster: AnyCluster | None = None

    @model_validator(mode="after")
    def _captions_of_one_answer_are_sources(self) -> Self:
        self.captioners[:] = [one for captioner in self.captioners for one in (captioner, *captioner.more_sources)]
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, names in (
            ("sources", [source.name for source in self.sources]),
            ("captioners", self.captioner_names),
            ("engines", [engine.name for engine in self.engines]),
            ("scorers", [scorer.name for scorer in self.scorers]),
            ("targets", [targets.name for targets in self.targets]),
        ):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise PydanticCustomError(
                    "repeated",
                    "{what}: the name '{name}' is used twice; rename one",
                    {"what": what, "name": repeated[0]},
                )
        reserved = {ORIGINAL, IMAGE, REFINED, REVIEWED} & set(self.captioner_names)
        if reserved:
            raise PydanticCustomError(
                "reserved", "captioners: the name '{name}' is reserved; choose another", {"name": min(reserved)}
            )
        countable = [*self.caption_sources, IMAGE]
        if self.concepts.count_by not in countable:
            raise PydanticCustomError(
                "count_by",
                "concepts.count_by: there is no '{name}' to count by; allowed: {allowed}",
                {"name": self.concepts.count_by, "allowed": ", ".join(countable)},
            )
        return self

    @model_validator(mode="after")
    def _an_embedded_collection_is_of_one_machine(self) -> Self:
        if isinstance(self.vectors, EmbeddedQdrant) and "://" in self.store and not self.store.startswith("file://"):
            raise PydanticCustomError(
                "vectors",
                "vectors: kind embedded keeps the collection in a folder of one machine, and the store {store} is for "
                "several, of which each would have another one; set: {fix}",
                {"store": self.store, "fix": "vectors: {kind: server, url: 'http://HOST:6333'}"},
            )
        return self

    @model_validator(mode="after")
    def _best_is_chosen_from_what_there_is(self) -> Self:
        allowed = [*self.caption_sources, *([REFINED] if self.refining else [])]
        unknown = [name for name in self.best.sources or () if name not in allowed]
        if unknown:
            raise PydanticCustomError(
                "sources",
                "best.sources: there are no captions of '{name}'; allowed: {allowed}",
                {"name": unknown[0], "allowed": ", ".join(allowed)},
            )
        if "vqa" in self.best.by and asking_scorer(self.scorers) is None:
            raise PydanticCustomError(
                "by", "best.by: vqa is the score of a scorer of kind vqa or vqa_transformers; scorers lists none"
            )
        return self

    @model_validator(mode="after")
    def _imports_are_of_two_sources(self) -> Self:
        seen: set[frozenset[str]] = set()
        for one in self.preference_imports:
            allowed = ", ".join(self.caption_sources)
            if len(one.pair) != 2 or not one.pair <= {*self.caption_sources} or one.pair in seen:
                raise PydanticCustomError(
                    "preference_imports",
                    "preference_imports: {a} and {b} must be two of {allowed}, each pair once",
                    {"a": one.source_a, "b": one.source_b, "allowed": allowed},
                )
            seen.add(one.pair)
        return self

    @model_validator(mode="after")
    def _scorers_have_their_models(self) -> Self:
        check_scorers(self.scorers)
        check_targets(self.targets, self.scorers, [source.name for source in self.sources], self.evaluation)
        return self

    @model_validator(mode="after")
    def _captioners_have_what_they_read(self) -> Self:
        check_captioners(self.captioners)
        return self

    @model_validator(mode="after")
    def _refining_is_sound(self) -> Self:
        if self.refining is not None:
            check_refining(self.refining, self.captioners)
        return self

    @model_validator(mode="after")
    def _selection_is_sound(self) -> Self:
        check_signals(self.signals, [one.name for one in self.scorers], list(self.metadata_signals.types))
        check_selection(
            self.filters,
            self.subsets,
            self.signal_types,
            self.metadata_signals.left_out,
            {one.name: one.scorer for one in self.targets},
            text_is_masked=self.image_text is not None,
            has_codes=self.compression is not None,
            has_references=bool(self.reference_sets),
        )
        captions = [*self.caption_sources, BEST]
        check_mixes(self.caption_mixes, self.captioner_names, [*captions, IMAGE, REFINED, REVIEWED])
        mixed = [mix.name for mix in self.caption_mixes]
        check_mixtures(self.mixtures, [one.name for one in self.subsets], [source.name for source in self.sources])
        check_training(self.training, self.subset_names, [*captions, *mixed])
        return self

    @model_validator(mode="after")
    def _reference_sets_are_there(self) -> Self:
        check_reference_sets(self.reference_sets, self.evaluation.task_keys)
        return self

    @model_validator(mode="after")
    def _trained_is_trained(self) -> Self:
        for key, one in (("scaling", self.scaling), ("concepts", self.concepts)):
            if one.is_trained and not self.training.runs:
                raise PydanticCustomError(
                    "trained",
                    "{key}.measurements: 'trained' are the results of training runs, and training.runs lists none",
                    {"key": key},
                )
        return self

    @model_validator(mode="after")
    def _tasks_are_of_scales_that_are_trained(self) -> Self:
        trained = list(dict.fromkeys(run.scale for run in self.training.runs))
        for task in self.evaluation.tasks:
            unknown = [name for name in task.scales or () if name not in trained]
            if unknown:
                raise PydanticCustomError(
                    "scale",
                    "evaluation.tasks: {task}: no run of training.runs has the scale '{name}'; there are: {trained}",
                    {"task": task.key, "name": unknown[0], "trained": ", ".join(trained) or "none"},
                )
        return self

    @property
    def subset_names(self) -> list[str]:
        """Names of the subsets and the mixtures."""
        return [*(subset.name for subset in self.subsets), *(mixture.name for mixture in self.mixtures)]

    @property
    def captioner_names(self) -> list[str]:
        """Names of the captioners, in the order of the file."""
        return [captioner.name for captioner in self.captioners]

    @property
    def caption_sources(self) -> list[str]:
        """``original`` and the captioners' names."""
        return [ORIGINAL, *self.captioner_names]

    @property
    def signal_types(self) -> dict[str, pa.DataType]:
        """The type of each signal, by its name."""
        scores = {one.name: SAMPLE_SCORES.field("score").type for one in self.scorers}
        scores |= self.metadata_signals.arrow_types
        return scores | {name: kind for table in self.signals for name, (_, kind) in table.signals.items()}

    @cached_property
    def metadata_signals(self) -> MetadataSignals:
        """What the sources say of their rows that is signals."""
        return metadata_signals(self.sources, lambda name: is_taken(name, self.filters), self._stored_metadata_types)

    def _stored_metadata_types(self) -> Mapping[str, MetadataType]:
        """The types of the sources' metadata as the store has them; none if it has not."""
        for shard in sorted(self.opened_store.partitions(SOURCE_METADATA))[-1:]:
            stored = self.opened_store.get(SOURCE_METADATA, shard)
            return stored.stamp.facts["types"] if stored else {}
        return {}

    @property
    def judged_by_their_own(self) -> frozenset[str]:
        """Caption sources that share an image backbone with the scorer, whose preference then proves nothing.

        Captioners, by name; and ``refined``, where the captioner that was asked again shares one, or was told labels
        by a classifier that does.
        """
        shared = set(self.sharing_backbones(self.scorer.backbones))
        tells = (
            self.refining is not None and self.refining.labels and self.image_model.backbone in self.scorer.backbones
        )
        if self.refining is not None and (tells or self.refining.captioner in shared):
            shared.add(REFINED)
        return frozenset(shared)

    def sharing_backbones(self, backbones: frozenset[str]) -> frozenset[str]:
        """Names of captioners that have one of these image backbones."""
        shared: set[str] = set()
        for one in self.captioners:
            # What is made of captions knows of the image what they do.
            if one.backbones & backbones or shared & set(one.captions_read.values()):
                shared.add(one.name)
        return frozenset(shared)

    @cached_property
    def opened_store(self) -> Store:
        """The store: a path counts from the data folder, anything with a scheme is an fsspec URL."""
        return Store(self.store if "://" in self.store else str(data_directory() / self.store))

    def as_it_is_now(self) -> Settings:
        """The same settings, whose sources are listed once and whose store is looked at once.

        Later changes are not seen. To ask about each partition then takes time in proportion to their number.
        """
        copy = self.model_copy(update={"sources": [source.as_it_is_now() for source in self.sources]})
        vars(copy)["opened_store"] = self.opened_store.as_it_is_now()
        return copy

    @property
    def captions(self) -> CaptionSources:
        """The caption sources, as stages are told of them."""
        return CaptionSources(captioners=tuple(self.captioner_names), shared=tuple(sorted(self.judged_by_their_own)))

    @property
    def references(self) -> ReferenceSets:
        """The reference sets as sources."""
        return ReferenceSets(sources=tuple(map(self._as_source, self.reference_sets)))

    def _as_source(self, reference: Source | EvaluationTask) -> Source:
        if isinstance(reference, EvaluationTask):
            return TaskSource(name=reference.name, url=self.evaluation.task(reference.name).url)
        return reference

    @property
    def ingest(self) -> IngestSettings:
        """What raw samples are made by."""
        return IngestSettings(
            sources=list(self.sources),
            images=self.images,
            fetching=self.fetching,
            refetch=self.refetch,
            takedowns=self.takedowns,
            max_distance=self.duplicates.max_distance,
            min_contrast=self.duplicates.min_contrast,
        )


def configuration_path() -> Path:
    """Where the settings are read from: dqe.yaml in the data folder."""
    return data_directory() / CONFIGURATION_FILE


def load_settings(environment: Mapping[str, str] | None = None, *, sources_may_be_away: bool = False) -> Settings:
    """Read and check the settings.

    ``DQE_<KEY>`` overrides a top-level key, its value read as YAML (``DQE_STORE=s3://bucket/store``,
    ``DQE_SCORER='{kind: label_space}'``); ``DQE_QDRANT_URL`` is short for a Qdrant server, whose key
    is ``DQE_QDRANT_API_KEY``.

    Args:
        environment: the environment; by default that of this process.
        sources_may_be_away: take a source whose files are not there, which then raises SourceError when it is read: so
            it holds up nothing that does not read it.

    Raises:
        SettingsError: a fault, with the file, the key and what is allowed.
    """
    path = configuration_path()
    environment = os.environ if environment is None else environment
    values = _read(path)
    origins: dict[str, str] = {}
    for key in Settings.model_fields:
        variable = f"DQE_{key.upper()}"
        if variable in environment:
            values[key], origins[key] = yaml.safe_load(environment[variable]), variable
    if url := environment.get("DQE_QDRANT_URL"):
        api_key = environment.get("DQE_QDRANT_API_KEY") or None
        values["vectors"] = {"kind": ServerQdrant.kind, "url": url, "api_key": api_key}
        origins["vectors"] = "DQE_QDRANT_URL"
    try:
        with files_may_be_away() if sources_may_be_away else nullcontext():
            return Settings.model_validate(values)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            location = [str(part) for part in fault["loc"]]
            origin = origins.get(location[0], str(path)) if location else str(path)
            key = ".".join(location)
            faults.append(f"{origin}: {key + ': ' if key else ''}{_with_value(fault)}")
        raise SettingsError("\n".join(faults)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path}: not there; run this in the project's folder, or set DQE_DATA to the folder that holds it"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path}: expected keys and values; allowed keys: {', '.join(sorted(Settings.model_fields))}"
        )
    return values


def _with_value(fault: Any) -> str:
    if fault["type"] == "missing" or fault["loc"][-1:] == ("api_key",):
        return in_words(fault)
    value = "" if isinstance(fault["input"], dict | list) else f" (found {fault['input']!r})"
    return f"{in_words(fault)}{value}"


__all__ = ["Settings", "SettingsError", "configuration_path", "load_settings"]
