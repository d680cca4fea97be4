"""How images are described by codes, and the codes clustered."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dqe_assets.compression.code_features import Features
from dqe_assets.compression.codebook import MOST_CODES
from dqe_resources.configurable import Configurable, SerializeAsAny, Strict, one_of
from dqe_resources.models.image_towers import AnyImageTower, EfficientNetTower

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class KMeansCodebook(Configurable):
    """Codes are the nearest of k-means centroids over the tokens of a draw. Nothing is trained.

    Attributes:
        codes: Size of the codebook.
        draw: Samples that it is made of: those with the lowest hashes of their uids, over all shards.
        seed: Of k-means.
    """

    kind: ClassVar[str] = "kmeans"

    codes: Annotated[int, Field(ge=2, le=MOST_CODES)] = 1024
    draw: Annotated[int, Field(ge=2)] = 4000
    seed: Seed = 0


class SmallDecoder(Configurable):
    """A small transformer over the words of the captions, trained from the beginning: minutes on a CPU.

    Attributes:
        words: The most frequent words that it can write; others are one word.
        width: Of its vectors.
        layers: Of the transformer.
        heads: Of its attention.
        tokens: Words that are read of a caption, as in TL;DR.
    """

    kind: ClassVar[str] = "small"

    words: Annotated[int, Field(ge=1)] = 4000
    width: Annotated[int, Field(ge=8)] = 128
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 4
    tokens: Annotated[int, Field(ge=2)] = 30


class BertDecoder(Configurable):
    """A BERT of Transformers with cross-attention to the image, as published: bert-base-uncased.

    Attributes:
        model: Name of the model on the Hugging Face hub, or a folder with it.
        tokens: Tokens that are read of a caption, as in TL;DR.
    """

    kind: ClassVar[str] = "bert"

    model: Annotated[str, Field(min_length=1)] = "bert-base-uncased"
    tokens: Annotated[int, Field(ge=2)] = 30


AnyDecoder = Annotated[SerializeAsAny[Configurable], one_of(SmallDecoder, BertDecoder)]


class CaptionerCodebook(Configurable):
    """Codes through which a captioner has to look at the image (TL;DR): tokens, quantiser, decoder of the caption.

    A projection, the codes and the decoder are trained; with ``tower_learning_rate`` the image tower too.

    Attributes:
        codes: Size of the codebook: 1,024 in TL;DR's code, 3,000 in its paper.
        dimension: Length of a code's vector.
        decoder: What writes the caption.
        update: ``ema``: a code is the running mean of its tokens; ``gradient``: it is trained, pulled to its tokens as
            they are to it.
        commitment: Weight of the distance of tokens to their codes. With ``gradient`` the codes' side has the same
            weight, which the paper calls symmetric.
        decay: Of the running means.
        revive_below: With ``ema``: a code that is used more seldom than this in a batch, on average, takes the place of
            a random token.
        initial: The codes at the beginning: ``kmeans`` of the first batch, ``uniform`` within 1 / codes, or
            ``key_words``: the embeddings of the most frequent key words of the captions.
        draw: Samples that are trained on: those with the lowest hashes of their uids, over all shards.
        held_out: Share of them that is only measured.
        epochs: Passes over them.
        batch_size: Samples in a batch.
        learning_rate: The highest; it falls by a cosine.
        tower_learning_rate: With it the image tower is trained too, at this rate, which falls as the other does: as in
            the paper. A hundredth of ``learning_rate`` is a good begin. By default the tower stays as it is.
        weight_decay: Of AdamW.
        seed: Of weights and order.
        device: ``cpu``, ``cuda`` ...; ``auto`` takes a CUDA device if there is one.
    """

    kind: ClassVar[str] = "captioner"
    without_effect: ClassVar[frozenset[str]] = frozenset({"device"})

    codes: Annotated[int, Field(ge=2, le=MOST_CODES)] = 1024
    dimension: Annotated[int, Field(ge=2)] = 64
    decoder: AnyDecoder = Field(default_factory=SmallDecoder)
    update: Literal["ema", "gradient"] = "ema"
    commitment: Annotated[float, Field(ge=0)] = 1.0
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9
    revive_below: Annotated[float, Field(ge=0)] = 1.0
    initial: Literal["kmeans", "uniform", "key_words"] = "kmeans"
    draw: Annotated[int, Field(ge=2)] = 4000
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    tower_learning_rate: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    seed: Seed = 0
    device: Annotated[str, Field(min_length=1)] = "auto"


AnyCodebook = Annotated[SerializeAsAny[Configurable], one_of(KMeansCodebook, CaptionerCodebook)]


class ClusterSettings(Strict):
    """How the codes of images are clustered.

    Attributes:
        clusters: How many; by default 3,000, or one for each 100 samples if that is less.
        features: What is clustered: ``histogram`` (how often each code stands in the image), ``numbers`` (the code
            numbers, as TL;DR published it) or ``embedding`` (the mean of the codes' vectors).
        seed: Of k-means.
    """

    clusters: Annotated[int, Field(ge=1)] | None = None
    features: Features = "histogram"
    seed: Seed = 0


class Compression(Strict):
    """How images are described by codes, after TL;DR (arXiv 2305.20087), and which share of alike images is enough.

    Attributes:
        tower: The network that describes the parts of an image.
        codebook: ``kmeans``, or ``captioner`` as in the paper.
        clustering: Of the codes.
    """

    tower: AnyImageTower = Field(default_factory=EfficientNetTower)
    codebook: AnyCodebook = Field(default_factory=KMeansCodebook)
    clustering: ClusterSettings = ClusterSettings()
