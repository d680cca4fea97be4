"""Scores that are found over the whole pool, for where a filter takes a score: ``score_top(0.3, score=s_clip_loss)``.

Each gives a number for every row, NaN where it can say nothing. No number depends on the order of the rows.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from dqe_assets.core.arrow import to_matrix
from dqe_assets.filtering.embedding_files import read_embeddings
from dqe_assets.filtering.filters.protocol import Call, FilterError, Seed
from dqe_assets.filtering.pool import UID, PoolError, batches_of, numbers, whole
from dqe_assets.filtering.scores import mix, normsim, normsim_d, s_clip_loss
from dqe_assets.filtering.subset import UID_TYPE, order_of, parse_uids
from dqe_resources import progress
from dqe_resources.cache import in_data_directory
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from dqe_assets.filtering.pool import Pool

TARGETS_PREFIX = "targets/"

_FILES = (".npy", ".npz", ".pt", ".pth")
_ROWS_AT_ONCE = 65_536

M_FLYT: dict[str, float] = {"dfn": 0.80, "normsim": 0.55, "s_clip_loss": 0.51, "clip_l14": 0.21, "clip_b32": 0.08}
"""The five largest weights that M-FLYT learned (Shechter and Carmon 2025, arXiv 2503.08805)."""

_COLUMNS = {
    "dfn": ("dfn",),
    "clip_l14": ("clip_l14", "l14", "clip_l14_similarity_score"),
    "clip_b32": ("clip_b32", "b32", "clip_b32_similarity_score"),
}
"""What columns that M-FLYT mixes may be called; the first that is there is taken."""


def targets_path(name: str) -> Path:
    """Where the asset ``targets/<name>`` keeps its embeddings."""
    return in_data_directory(f"{TARGETS_PREFIX}{name}.npy")


class PoolRows:
    """All rows of some pools, taken as one: a column is read when it is first asked for, and kept.

    Embeddings are kept in temporary files of 16-bit floats, which are mapped, so that memory does not grow with them.

    Args:
        pools: the pools, in order.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        self.pools = pools
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._vectors: dict[str, NDArray[np.float16]] = {}

    @cached_property
    def uids(self) -> NDArray[np.void]:
        """``u8,u8`` [n]."""
        return np.concatenate(
            [np.empty(0, UID_TYPE), *(parse_uids(one.column(UID)) for one in batches_of(self.pools, [UID]))]
        )

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """All rows, in the order of their uids, which are hashes."""
        return order_of(self.uids)

    def has(self, column: str) -> bool:
        """Whether every pool has a column, as far as its first part tells."""
        try:
            for part in (part for pool in self.pools for part in pool.parts[:1]):
                next(iter(part.batches([column], 1)), None)
        except (PoolError, StorageError, LookupError):
            return False
        return True

    @property
    def read(self) -> frozenset[str]:
        """The columns of numbers and embeddings that were read."""
        return frozenset({*self._numbers, *self._vectors})

    def numbers(self, column: str) -> NDArray[np.float64]:
        """A column of numbers: [n], null as NaN.

        Raises:
            FilterError: it is none of numbers.
        """
        if column not in self._numbers:
            found = [np.empty(0), *(numbers(batch.column(column)) for batch in batches_of(self.pools, [column]))]
            try:
                self._numbers[column] = np.concatenate([values.astype(np.float64) for values in found])
            except (ValueError, TypeError) as error:
                raise FilterError(f"{column} is no column of numbers: it cannot be a score") from error
        return self._numbers[column]

    def vectors(self, column: str) -> NDArray[np.float16]:
        """A column of embeddings as unit vectors: [n, d], mapped from a file; NaN where there is none.

        Raises:
            FilterError: no row has one, or they differ in length.
        """
        if column not in self._vectors:
            self._vectors[column] = self._mapped(column)
        return self._vectors[column]

    def _mapped(self, column: str) -> NDArray[np.float16]:
        total = width = 0
        with tempfile.TemporaryFile() as file:
            for batch in batches_of(self.pools, [column]):
                rows, vectors = to_matrix(whole(batch.column(column)))
                if len(rows) and not width:
                    width = vectors.shape[1]
                    np.full((total, width), np.nan, "<f2").tofile(file)
                if len(rows) and vectors.shape[1] != width:
                    raise FilterError(f"{column}: vectors of {width} numbers and of {vectors.shape[1]}")
                total += batch.num_rows
                if width:
                    placed = np.full((batch.num_rows, width), np.nan, "<f2")
                    with np.errstate(divide="ignore", invalid="ignore"):
                        placed[rows] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
                    placed[~np.isfinite(placed).all(axis=1)] = np.nan
                    placed.tofile(file)
            if not width:
                raise FilterError(f"none of the {total:,} rows has {column}")
            file.flush()
            return np.memmap(file, np.dtype("<f2"), "r", shape=(total, width))


class PoolScore(Call):
    """A score of each row that is found over the whole pool."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is computed from, as far as they can be told without the pool."""
        raise NotImplementedError

    @property
    def may_read(self) -> tuple[str, ...]:
        """Columns that it reads where they are there."""
        return ()

    @property
    def versions(self) -> dict[str, str]:
        """Versions of everything else that decides, apart from its parameters."""
        return {}

    @property
    def named_targets(self) -> tuple[tuple[str, str | None], ...]:
        """The names of the key ``targets`` that it needs, each with the scorer whose embeddings they must be."""
        return ()

    def of(self, rows: PoolRows) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """The scores [n], NaN where there is none, and what is to be said of them, as JSON.

        Raises:
            FilterError: it cannot be computed of these pools.
            PoolError: a pool cannot be read, or lacks a column.
        """
        raise NotImplementedError


def _computed(value: Any) -> Any:
    """A bare name is the score over the pool that is called so, else a column."""
    cls = POOL_SCORES.get(value) if isinstance(value, str) else None
    if cls is None:
        return value
    needed = [name for name, field in cls.model_fields.items() if field.is_required()]
    if needed:
        raise ValueError(f"{value} needs {', '.join(needed)}: {value}({', '.join(f'{name}=...' for name in needed)})")
    return cls()


Score: TypeAlias = Annotated[
    str | SerializeAsAny[PoolScore], Field(union_mode="left_to_right"), BeforeValidator(_computed)
]
"""A score that a filter goes by: the name of a column, or one that is found over the whole pool."""


def image_column(scorer: str | None) -> str:
    """The column of the image embeddings of a scorer, or of the store's own."""
    return "image_embedding" if scorer is None else f"{scorer}_img"


def text_column(scorer: str | None) -> str:
    """The column of the caption embeddings of a scorer, or of the store's own."""
    return "text_embedding" if scorer is None else f"{scorer}_txt"


class _Loss(PoolScore):
    """What ``s_clip_loss`` is computed by.

    Attributes:
        scorer: Whose embeddings: ``l14`` or ``b32`` of DataComp's metadata, or the name of a scorer of the store; by
            default those of the store's own scorer.
        batch: Rows of a batch at most.
        temperature: T.
        repeats: How many times the pool is cut into random batches.
        seed: Of the cuts.
    """

    scorer: str | None = None
    batch: Annotated[int, Field(ge=1)] = 32_768
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    repeats: Annotated[int, Field(ge=1)] = 5
    seed: Seed = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The embeddings of images and captions."""
        return (UID, image_column(self.scorer), text_column(self.scorer))

    def _losses(self, rows: PoolRows) -> NDArray[np.float32]:
        images, texts = rows.vectors(image_column(self.scorer)), rows.vectors(text_column(self.scorer))
        if images.shape != texts.shape:
            raise FilterError(f"{self.name}: images have {images.shape[1]} numbers and captions {texts.shape[1]}")
        # A vector that is not there is NaN from its first number on.
        there = ~(np.isnan(images[:, 0]) | np.isnan(texts[:, 0]))
        chosen = rows.order[there[rows.order]]
        meter = progress.Meter(self.name, None, self.repeats * len(chosen), lambda _: None)
        return s_clip_loss(
            images,
            texts,
            batch=self.batch,
            temperature=self.temperature,
            repeats=self.repeats,
            seed=self.seed,
            rows=chosen,
            progress=meter.advance,
        )


class SClipLoss(_Loss):
    """Similarity less what the contrastive loss takes off it: see ``dqe_assets.filtering.scores.s_clip_loss``.

    Wang et al. 2024, arXiv 2405.19547. A caption that fits everything scores low. A row without image or caption has
    no score.
    """

    name: ClassVar[str] = "s_clip_loss"

    def of(self, rows: PoolRows) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """As ``PoolScore.of``."""
        return self._losses(rows).astype(np.float64), {}


class NormSim(PoolScore):
    """How near images are to those of a task: see ``dqe_assets.filtering.scores.normsim``.

    Attributes:
        targets: A name of the key ``targets`` of data/dqe.yaml, or the path of a file of embeddings [m, d], from the
            data folder: .npy, .npz with the array ``image_features``, or .pt.
        p: 2 for f' S f, inf for the largest similarity.
        scorer: Whose embeddings, as in s_clip_loss; the targets must be of the same model.
    """

    name: ClassVar[str] = "normsim"

    targets: str
    p: Annotated[float, Field(allow_inf_nan=True)] = 2
    scorer: str | None = None

    @field_validator("p")
    @classmethod
    def _known(cls, p: float) -> float:
        if p not in {2, math.inf}:
            raise ValueError("p: expected 2 or inf")
        return p

    @property
    def columns(self) -> tuple[str, ...]:
        """The embeddings of images."""
        return (UID, image_column(self.scorer))

    @property
    def named_targets(self) -> tuple[tuple[str, str | None], ...]:
        """The name, where it is none of a file."""
        return () if self.targets.endswith(_FILES) else ((self.targets, self.scorer),)

    @property
    def versions(self) -> dict[str, str]:
        """A digest of the targets; none while they are not there."""
        path = self._path
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            return {path.name: f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"}

    @property
    def _path(self) -> Path:
        return in_data_directory(self.targets) if self.targets.endswith(_FILES) else targets_path(self.targets)

    def of(self, rows: PoolRows) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """As ``PoolScore.of``."""
        if self.named_targets and not self._path.is_file():
            raise FilterError(
                f"normsim: the targets {self.targets} are not there: list them under the key targets of data/dqe.yaml "
                f"and run dqe materialize targets/{self.targets}; or give the path of a file of embeddings (.npy)"
            )
        targets, images = read_embeddings(str(self._path), "image_features"), rows.vectors(image_column(self.scorer))
        if targets.shape[1] != images.shape[1]:
            raise FilterError(
                f"{self._path}: targets of {targets.shape[1]} numbers, and the pool's images have {images.shape[1]}; "
                "both must be of one model"
            )
        targets /= np.maximum(np.linalg.norm(targets, axis=1, keepdims=True), 1e-12)
        there = np.flatnonzero(~np.isnan(images[:, 0]))
        found = np.full(len(images), np.nan)
        for start in range(0, len(there), _ROWS_AT_ONCE):
            some = there[start : start + _ROWS_AT_ONCE]
            found[some] = normsim(images[some], targets, self.p)
        return found, {"targets": len(targets)}


class NormSimD(_Loss):
    """``normsim`` without targets: S over what s_clip_loss keeps; see ``dqe_assets.filtering.scores.normsim_d``.

    Attributes:
        start: The share of the pool, by s_clip_loss, that S is computed from at first.
        share: The share at the end.
        steps: In how many steps it gets there, S computed anew after each.
    """

    name: ClassVar[str] = "normsim_d"

    start: Annotated[float, Field(gt=0, le=1)] = 0.3
    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    steps: Annotated[int, Field(ge=1)] = 10

    @model_validator(mode="after")
    def _shrinks(self) -> Self:
        if self.share > self.start:
            raise ValueError("share is at most start")
        return self

    def of(self, rows: PoolRows) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """As ``PoolScore.of``."""
        images = rows.vectors(image_column(self.scorer))
        found = normsim_d(images, self._losses(rows), start=self.start, share=self.share, steps=self.steps)
        return found.astype(np.float64), {}


class Mix(PoolScore):
    """The weighted sum of scores, each brought to mean 0 and deviation 1 first: ``mix({s_clip_loss: 1, nsfw: -2})``.

    As M-FLYT mixes them; see ``dqe_assets.filtering.scores.mix``. A row that lacks one of them has none.

    Attributes:
        weights: Columns and other such scores, each with its weight; or ``m_flyt``, the weights that M-FLYT learned for
            DFN, NormSim, s-CLIPLoss and two CLIP scores. What of those is not there is left out, and said.
        targets: With m_flyt: of normsim.
        scorer: With m_flyt: whose embeddings normsim and s_clip_loss take.
    """

    name: ClassVar[str] = "mix"

    weights: Literal["m_flyt"] | tuple[tuple[Score, float], ...]
    targets: str | None = None
    scorer: str | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.weights == "m_flyt":
            return self
        if self.targets is not None or self.scorer is not None:
            raise ValueError("targets and scorer belong to m_flyt; of your own weights, each score has its own")
        if not self.weights:
            raise ValueError("no weights")
        if not all(math.isfinite(weight) for _, weight in self.weights):
            raise ValueError("a weight is finite")
        texts = [_text(score) for score, _ in self.weights]
        if len(set(texts)) < len(texts):
            raise ValueError("a score stands twice")
        return self

    @property
    def _weighted(self) -> tuple[tuple[Score, float], ...]:
        """The scores that are known without the pool."""
        if self.weights != "m_flyt":
            return self.weights
        computed: list[tuple[Score, float]] = [(SClipLoss(scorer=self.scorer), M_FLYT["s_clip_loss"])]
        if self.targets is not None:
            computed.append((NormSim(targets=self.targets, scorer=self.scorer), M_FLYT["normsim"]))
        return tuple(computed)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of all scores; without m_flyt's plain columns, which may be missing."""
        read = [(score,) if isinstance(score, str) else score.columns for score, _ in self._weighted]
        return tuple(dict.fromkeys(column for some in read for column in some))

    @property
    def may_read(self) -> tuple[str, ...]:
        """M_flyt's plain columns, by any name that they may have."""
        if self.weights == "m_flyt":
            return tuple(name for names in _COLUMNS.values() for name in names)
        return tuple(name for score, _ in self.weights if isinstance(score, PoolScore) for name in score.may_read)

    @property
    def versions(self) -> dict[str, str]:
        """Those of all scores."""
        computed = (score for score, _ in self._weighted if isinstance(score, PoolScore))
        return {name: version for score in computed for name, version in score.versions.items()}

    @property
    def named_targets(self) -> tuple[tuple[str, str | None], ...]:
        """Those of all scores."""
        computed = (score for score, _ in self._weighted if isinstance(score, PoolScore))
        return tuple(dict.fromkeys(one for score in computed for one in score.named_targets))

    def of(self, rows: PoolRows) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """As ``PoolScore.of``; says the weights that were taken, and which of m_flyt's are missing."""
        weighted: list[tuple[Score, float]] = list(self._weighted)
        missing = ["normsim"] if self.weights == "m_flyt" and self.targets is None else []
        for name, columns in _COLUMNS.items() if self.weights == "m_flyt" else ():
            found = next((column for column in columns if rows.has(column)), None)
            if found is None:
                missing.append(name)
            else:
                weighted.append((found, M_FLYT[name]))
        scores: dict[str, NDArray[np.float64]] = {}
        for score, _ in weighted:
            if isinstance(score, str):
                scores[score] = rows.numbers(score)
            else:
                scores[score.text], said = score.of(rows)
                missing += said.get("missing", [])
        weights = {_text(score): weight for score, weight in weighted}
        try:
            mixed = mix(scores, weights)
        except ValueError as error:
            raise FilterError(f"mix: {error}") from error
        return mixed, {"weights": weights, **({"missing": missing} if missing else {})}


def _text(score: Score) -> str:
    return score if isinstance(score, str) else score.text


POOL_SCORES: dict[str, type[PoolScore]] = {cls.name: cls for cls in (SClipLoss, NormSim, NormSimD, Mix)}
"""Every score over the whole pool, by the name that expressions call it by."""
