"""The filters and subsets that data/dqe.yaml names."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_assets.filtering.expression import NAMED, ExpressionError, parse
from dqe_assets.filtering.filters import FILTERS
from dqe_assets.filtering.filters.cluster_share import CODE_CLUSTER
from dqe_assets.filtering.filters.comparison import Comparison
from dqe_assets.filtering.filters.contaminated import OF_REFERENCE_SETS
from dqe_assets.filtering.filters.pool_scores import POOL_SCORES
from dqe_assets.filtering.filters.protocol import Seed
from dqe_assets.filtering.filters.tmars import MASKED_SIMILARITY
from dqe_assets.filtering.pool import SCORES, DataCompPool, Pool, PoolError
from dqe_assets.filtering.store_pool import COLUMNS, STORE, StorePool, what_instead
from dqe_resources.configurable import FileName, Strict, matching
from dqe_resources.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence
    from typing import Self

    import pyarrow as pa

    from dqe_assets.filtering.expression import Expression

FilterName = Annotated[
    str,
    matching(r"^[a-z][a-z0-9_]*$", "a name: a small letter a to z, then small letters, digits and _", max_length=60),
]

DEFAULT_FILTERS = {
    "basic": "basic_filter",
    "best_30": "caption_quality(fraction=0.3)",
    "best": "basic & best_30",
    "unique": "unique()",
}
"""What works on any store, whichever its scorer: a fraction needs no threshold to be known."""


class Subset(Strict):
    """A subset to make.

    Attributes:
        name: Name of the asset ``subsets/<name>`` and of its file.
        expression: Which samples: filters by name, joined by ``&``, ``|`` and ``~``.
        pools: Where they are taken from: ``store`` for our own store, and folders or URLs of DataComp metadata.
    """

    name: FileName
    expression: str
    pools: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: [STORE])


class MixturePart(Strict):
    """What a mixture is drawn from: a subset, or all samples of a source that have an image.

    Attributes:
        subset: Name of one of ``subsets``.
        source: Name of one of ``sources``.
        weight: How much of the mixture it is, relative to the other parts.
        max_repeats: How often a sample of it is in the mixture at most; one that the subset has several times counts
            as several. Up to 4 passes over the same text were about as good as new text (arXiv 2305.16264).
    """

    subset: str | None = None
    source: str | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    max_repeats: Annotated[int, Field(ge=1)] = 4

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.subset is None) == (self.source is None):
            raise PydanticCustomError("part", "give either subset or source", {})
        return self

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"subset {self.subset}" if self.subset else f"source {self.source}"


class Mixture(Strict):
    """A subset that is drawn from sources and other subsets by weights.

    Attributes:
        name: Name of the asset ``subsets/<name>`` and of its file.
        parts: What it is drawn from.
        samples: How many samples it has, repeats counted; by default as many as its parts have together.
        seed: Another seed draws other samples.
    """

    name: FileName
    parts: Annotated[list[MixturePart], Field(min_length=1)]
    samples: Annotated[int, Field(ge=1)] | None = None
    seed: Seed = 0

    def pools(self, subsets: Sequence[Subset]) -> list[str]:
        """The pools that its samples are of."""
        own = {part.subset for part in self.parts}
        of_source = [STORE] if any(part.source for part in self.parts) else []
        return list(dict.fromkeys([*of_source, *(pool for one in subsets if one.name in own for pool in one.pools)]))


class CaptionMix(Strict):
    """Captions to train with, mixed of originals and those of a captioner.

    Attributes:
        name: Name of the asset ``mixed_captions/<name>``, by which training runs ask for the captions.
        captioner: Whose captions take the place of originals that fit badly.
        fraction: Share of the samples whose original captions fit best: these keep it. Another sample gets the
            captioner's caption if that is as similar to the image as the last of them; else it is left out.
    """

    name: FileName
    captioner: str
    fraction: Annotated[float, Field(ge=0, le=1)] = 0.3


DEFAULT_SUBSETS = (
    # Filters in full, so that it holds whatever the filters of the settings are called.
    Subset(name="best", expression=f"{DEFAULT_FILTERS['basic']} & {DEFAULT_FILTERS['best_30']}"),
)


def parsed(text: str, filters: Mapping[str, str]) -> Expression:
    """An expression in which the filters of the settings may be called by their names.

    Raises:
        ExpressionError: it is wrong.
    """
    return parse(text, {**NAMED, **filters})


def open_pools(names: Sequence[str], store: StorePool | None, folder: Path) -> list[Pool]:
    """The pools of these names: ``store``, or folders and URLs of DataComp metadata.

    Args:
        names: what to open.
        store: our own store.
        folder: where paths count from.

    Raises:
        PoolError: the store is asked for and there is none.
    """
    pools: list[Pool] = []
    for name in names:
        if name != STORE:
            pools.append(DataCompPool(_url(name, folder), name))
        elif store is not None:
            pools.append(store)
        else:
            raise PoolError(
                "there is no store here: run this in the project's folder, or set DQE_DATA to the data folder"
            )
    return pools


def pool_state(name: str, folder: Path) -> list[list[Any]]:
    """Name, size and time of each file of a pool: they show whether it has changed.

    Raises:
        PoolError: the folder cannot be listed.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(_url(name, folder))
        entries = filesystem.ls(path, detail=True)
    except (OSError, ValueError, ImportError) as error:
        raise PoolError(f"{name}: cannot be listed ({one_line(error)})") from error
    changed = ("mtime", "LastModified", "updated", "created")
    return sorted(
        [entry["name"], entry["size"], str(next((entry[key] for key in changed if key in entry), ""))]
        for entry in entries
        if entry["name"].endswith((".parquet", ".npz"))
    )


def _url(name: str, folder: Path) -> str:
    return name if "://" in name else str(folder / Path(name).expanduser())


def check_selection(
    filters: Mapping[str, str],
    subsets: Sequence[Subset],
    signals: Mapping[str, pa.DataType],
    apart: Mapping[str, str],
    targets: Mapping[str, str | None],
    *,
    text_is_masked: bool,
    has_codes: bool,
    has_references: bool,
) -> None:
    """Refuse wrong expressions, impossible subsets and repeated names when the settings are loaded.

    Args:
        filters: of the store's samples, by name.
        subsets: the subsets.
        signals: type of each signal.
        apart: what is in ``source_metadata`` and no signal, and why.
        targets: whose embeddings each target's are: a scorer's, or the store's own.
        text_is_masked: whether the store's images are scored with their text masked.
        has_codes: whether they are described by codes.
        has_references: whether they are compared with reference sets.

    Raises:
        PydanticCustomError: says which filter or subset, and what is wrong.
    """
    expressions = {f"filters.{name}": text for name, text in filters.items()}
    expressions |= {f"subsets.{subset.name}": subset.expression for subset in subsets}
    elsewhere = {f"subsets.{subset.name}" for subset in subsets if STORE not in subset.pools}
    names = [subset.name for subset in subsets]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise PydanticCustomError(
            "repeated", "subsets: two subsets have the name '{name}'; rename one", {"name": repeated[0]}
        )
    built_in = {*NAMED, *FILTERS}
    hiding = sorted((built_in - set(DEFAULT_FILTERS)) & set(filters))
    if hiding:
        raise PydanticCustomError(
            "built_in",
            "filters: the name '{name}' is that of a built-in filter; give yours another name than: {there}",
            {"name": hiding[0], "there": ", ".join(sorted(built_in))},
        )
    _check_names(signals, {*built_in, *filters, *POOL_SCORES})
    if "uid" in filters:
        raise PydanticCustomError("reserved", "filters: the name 'uid' is reserved", {})
    for where, text in expressions.items():
        try:
            expression = parsed(text, filters)
            if where not in elsewhere:
                check_comparisons(expression, signals, apart)
            _check_targets(expression, targets)
        except ExpressionError as error:
            raise PydanticCustomError(
                "expression", "{where}: {error}", {"where": where, "error": str(error)}
            ) from error
        columns = expression.columns
        if where not in elsewhere and MASKED_SIMILARITY in columns and not text_is_masked:
            raise PydanticCustomError(
                "masked",
                "{where}: reads {column}, which is not made with image_text: null",
                {"where": where, "column": MASKED_SIMILARITY},
            )
        if where not in elsewhere and CODE_CLUSTER in columns and not has_codes:
            raise PydanticCustomError(
                "codes",
                "{where}: reads {column}, which is made with the key compression: set {key} in dqe.yaml",
                {"where": where, "column": CODE_CLUSTER, "key": "compression: {}"},
            )
        if where not in elsewhere and not has_references and not OF_REFERENCE_SETS.isdisjoint(columns):
            raise PydanticCustomError(
                "references",
                "{where}: asks what is in a reference set; list the sets under {key} in dqe.yaml",
                {"where": where, "key": "reference_sets"},
            )


def check_mixes(mixes: Sequence[CaptionMix], captioners: Collection[str], taken: Collection[str]) -> None:
    """Refuse mixes of captioners that do not exist, and names that other captions have.

    Args:
        mixes: the settings.
        captioners: names of the captioners.
        taken: names of all other captions.

    Raises:
        PydanticCustomError: says which mix, and what is allowed.
    """
    names = [mix.name for mix in mixes]
    for place, mix in enumerate(mixes):
        if mix.name in taken or mix.name in names[:place]:
            raise PydanticCustomError(
                "mix", "caption_mixes: there are other captions called '{name}'; rename the mix", {"name": mix.name}
            )
        if mix.captioner not in captioners:
            raise PydanticCustomError(
                "mix",
                "caption_mixes: there is no captioner '{name}'; allowed: {allowed}",
                {"name": mix.captioner, "allowed": ", ".join(captioners)},
            )


def check_comparisons(expression: Expression, signals: Mapping[str, pa.DataType], apart: Mapping[str, str]) -> None:
    """Refuse to compare what the store's samples have not, and a text with a number.

    Args:
        expression: the expression.
        signals: type of each signal.
        apart: what is in ``source_metadata`` and no signal, and why.

    Raises:
        ExpressionError: says which column, and what there is.
    """
    types = {**COLUMNS, **signals}
    for leaf in expression.leaves:
        if isinstance(leaf, Comparison):
            for name in leaf.columns:
                if name in apart:
                    raise ExpressionError(
                        f"{leaf.text}: {name} is in source_metadata alone, as {apart[name]}; compare it with "
                        f"sql(\"source_metadata->>'{name}' = 'a text'\")"
                    )
                if name not in types:
                    close = difflib.get_close_matches(name, types, n=1)
                    meant = f"did you mean {close[0]}? " if close else ""
                    raise ExpressionError(
                        f"{leaf.text}: samples have no column {name}; {meant}{what_instead(name, signals)}"
                    )
            try:
                leaf.check_types(types)
            except ValueError as error:
                raise ExpressionError(str(error)) from error


def _check_targets(expression: Expression, targets: Mapping[str, str | None]) -> None:
    """Refuse targets that are not there, or are of another model than the images that are compared with them."""
    for name, scorer in expression.targets:
        if name not in targets:
            there = ", ".join(targets) or "none"
            raise ExpressionError(f"normsim: there are no targets {name} under the key targets; there are: {there}")
        if scorer not in {targets[name], *SCORES}:
            of, read = (f"the scorer {one}" if one else "the key scorer" for one in (targets[name], scorer))
            raise ExpressionError(f"normsim: the targets {name} are embeddings of {of}, and the images' are of {read}")


def is_taken(name: str, filters: Container[str]) -> bool:
    """Whether a name is that of a column of samples, of a built-in filter, or of one of these."""
    # To SQL, Width is width.
    return name in filters or name in NAMED or name in FILTERS or name.lower() in {one.lower() for one in COLUMNS}


def _check_names(signals: Iterable[str], filters: Container[str]) -> None:
    """Refuse a signal that is called as a filter or a column of samples: nobody could tell which is meant."""
    for name in signals:
        if is_taken(name, filters):
            is_filter = name in filters or name in NAMED or name in FILTERS
            raise PydanticCustomError(
                "signal",
                "signals, scorers and metadata_types: '{name}' is already the name of a {what}; give the signal "
                "another name, or leave it out: {columns}",
                {
                    "name": name,
                    "what": "filter" if is_filter else "column of samples",
                    "columns": f"columns: {{my_{name}: {name}}}",
                },
            )


def check_mixtures(mixtures: Sequence[Mixture], subsets: Collection[str], sources: Collection[str]) -> None:
    """Refuse mixtures of what does not exist, and names that other subsets have.

    Args:
        mixtures: the settings.
        subsets: names of the subsets.
        sources: names of the sources.

    Raises:
        PydanticCustomError: says which mixture, and what is allowed.
    """
    names = [mixture.name for mixture in mixtures]
    for place, mixture in enumerate(mixtures):
        if mixture.name in subsets or mixture.name in names[:place]:
            raise PydanticCustomError(
                "mixture", "mixtures: two subsets have the name '{name}'; rename one", {"name": mixture.name}
            )
        for part in mixture.parts:
            for what, name, allowed in (("subset", part.subset, subsets), ("source", part.source, sources)):
                if name is not None and name not in allowed:
                    raise PydanticCustomError(
                        "mixture",
                        "mixtures.{mixture}: there is no {what} '{name}'; allowed: {allowed}",
                        {"mixture": mixture.name, "what": what, "name": name, "allowed": ", ".join(allowed)},
                    )
