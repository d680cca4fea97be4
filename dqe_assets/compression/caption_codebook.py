"""Trains a captioner that sees an image through a codebook: tokens, quantiser, decoder of the caption (TL;DR)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dqe_assets.compression.caption_decoders import decoder_of, words
from dqe_assets.compression.codebook import Codebook, health
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dqe_assets.compression.settings import CaptionerCodebook

_STATE = "state.pt"
_TOWER = "tower."
_WARM_UP = 0.05
_NOT_KEY_WORDS = frozenset(
    {
        *("a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "in", "is", "it", "its", "of", "on"),
        *("or", "that", "the", "this", "to", "was", "with"),
    }
)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass gave.

    Attributes:
        epoch: which, from 1.
        caption_loss: mean loss of the captions that are trained on, in nats a token.
        quantiser_loss: mean loss of the quantiser, weighted as it is trained.
        held_out_loss: mean loss of the held-out captions, in nats a token.
        perplexity: of the codes of the held-out images.
        codes_used: codes that occur in the held-out images.
    """

    epoch: int
    caption_loss: float
    quantiser_loss: float
    held_out_loss: float
    perplexity: float
    codes_used: int


@dataclass(frozen=True)
class TrainedCodebook:
    """A codebook, and how its training went.

    Attributes:
        codebook: what codes are found with.
        epochs: of training.
        unigram_loss: loss of the held-out captions by the frequency of words alone, in nats a token.
    """

    codebook: Codebook
    epochs: tuple[Epoch, ...]
    unigram_loss: float


def train_codebook(
    tokens: NDArray[np.floating],
    captions: Sequence[str],
    settings: CaptionerCodebook,
    folder: Path,
    version: str,
    report: Callable[[int, str], None] = lambda _, __: None,
    *,
    tower: Any = None,
) -> TrainedCodebook:
    """Train a projection, codes and a decoder to write captions, and the image tower if it is given.

    Captions are written from the codes of all tokens of the image, by cross-entropy, next to the quantiser's loss. A
    held-out share is only measured. After each pass the whole state is saved: a killed training goes on to the same
    end.

    Args:
        tokens: [n, tokens, d], such as a memory map of 16-bit floats; with a tower, its pixels [n, 3, height, width].
        captions: of the n images.
        settings: how.
        folder: where the state is kept.
        version: of all that goes into it: a state of another version is not used.
        report: is told after each pass how many samples are done and how it went.
        tower: a torch module that gives tokens of pixels (``ImageTower.network``); it is trained in place, in
            evaluation mode.

    Raises:
        ValueError: fewer than four samples.
        DecoderError: the decoder cannot be loaded.
    """
    import torch

    count = len(captions)
    if count < 4:
        raise ValueError(f"{count} samples with an image and a caption: a captioner's codebook needs four or more")
    random = np.random.default_rng(settings.seed)
    order = random.permutation(count)
    kept_out = min(max(1, round(count * settings.held_out)), count - 2)
    held_out, seen = np.sort(order[:kept_out]), np.sort(order[kept_out:])
    decoder = decoder_of(settings.decoder, [captions[row] for row in seen])
    texts = decoder.numbered(captions)
    device = _device(settings.device)
    torch.manual_seed(settings.seed)
    model = _captioner(decoder.network(settings.dimension), tower, _width(tokens, tower), settings).to(device)
    steps = settings.epochs * -(-len(seen) // settings.batch_size)
    optimizer = torch.optim.AdamW(_groups(model, settings), settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    history = _resumed(folder / _STATE, version, model, optimizer, scheduler)
    if not history:
        _standardise(model, tokens, seen)
        if settings.initial != "kmeans":
            _set_codes(model, settings, [captions[row] for row in seen])
    for epoch in range(len(history) + 1, settings.epochs + 1):
        model.train()
        if tower is not None:
            tower.eval()
        losses = []
        for rows in _batches(seen, settings.batch_size, settings.seed, epoch):
            caption_loss, quantiser_loss, _ = model.losses(*_tensors(tokens, texts, rows, device), decoder.padding)
            optimizer.zero_grad()
            (caption_loss + quantiser_loss).backward()
            optimizer.step()
            scheduler.step()
            losses.append((float(caption_loss.detach()), float(quantiser_loss.detach())))
        mean = np.mean(losses, axis=0)
        loss, used = _measured(model, tokens, texts, held_out, settings, decoder.padding, device)
        history.append(Epoch(epoch, float(mean[0]), float(mean[1]), loss, used["perplexity"], used["codes_used"]))
        _save(folder / _STATE, version, model, optimizer, scheduler, history)
        report(epoch * len(seen), f"loss {mean[0]:.3f}, held out {loss:.3f}, perplexity {used['perplexity']:.0f}")
    unigram = decoder.unigram_loss(texts[seen], texts[held_out])
    return TrainedCodebook(_codebook_of(model), tuple(history), unigram)


def _width(tokens: NDArray[np.floating], tower: Any) -> int:
    import torch

    if tower is None:
        return tokens.shape[-1]
    with torch.inference_mode():
        pixels = torch.from_numpy(np.asarray(tokens[:1], np.float32))
        return int(tower(pixels.to(next(tower.parameters()).device)).shape[-1])


def _groups(model: Any, settings: CaptionerCodebook) -> list[dict[str, Any]]:
    own = [weight for name, weight in model.named_parameters() if not name.startswith(_TOWER)]
    groups: list[dict[str, Any]] = [{"params": own}]
    if model.tower is not None:
        groups.append({"params": list(model.tower.parameters()), "lr": settings.tower_learning_rate})
    return groups


def _captioner(decoder: Any, tower: Any, width: int, settings: CaptionerCodebook) -> Any:
    import torch
    from vector_quantize_pytorch import VectorQuantize

    by_mean = settings.update == "ema"
    quantiser = VectorQuantize(
        settings.dimension,
        settings.codes,
        decay=settings.decay,
        commitment_weight=settings.commitment,
        kmeans_init=settings.initial == "kmeans",
        threshold_ema_dead_code=settings.revive_below if by_mean else 0,
        ema_update=by_mean,
        learnable_codebook=not by_mean,
        rotation_trick=False,
    )

    class Captioner(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower
            self.projection = torch.nn.Linear(width, settings.dimension)
            self.quantiser = quantiser
            self.decoder = decoder

        def projected(self, seen: Any) -> Any:
            """Vectors that are compared with codes, of tokens or pixels."""
            return self.projection(seen if self.tower is None else self.tower(seen))

        def losses(self, seen: Any, texts: Any, padding: int) -> tuple[Any, Any, Any]:
            """Loss of the captions, loss of the quantiser, and the codes."""
            rounded, codes, loss = self.quantiser(self.projected(seen))
            logits = self.decoder(texts, rounded)
            written = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), texts[:, 1:].flatten(), ignore_index=padding
            )
            return written, loss.sum(), codes

    return Captioner()


def _rate(step: int, steps: int) -> float:
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _device(wanted: str) -> str:
    import torch

    return wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _batches(rows: NDArray[np.int64], size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    shuffled = np.random.default_rng((seed, epoch)).permutation(rows)
    return [shuffled[start : start + size] for start in range(0, len(shuffled), size)]


def _tensors(
    tokens: NDArray[np.floating], texts: NDArray[np.int64], rows: NDArray[np.int64], device: str
) -> tuple[Any, Any]:
    import torch

    return (
        torch.from_numpy(np.asarray(tokens[rows], np.float32)).to(device),
        torch.from_numpy(texts[rows]).to(device),
    )


def _standardise(model: Any, tokens: NDArray[np.floating], seen: NDArray[np.int64]) -> None:
    """Let the projection begin with outputs of mean 0 and deviation 1, whatever the tower's numbers are like."""
    import torch

    with torch.no_grad():
        found = model.projected(
            torch.from_numpy(np.asarray(tokens[seen[:256]], np.float32)).to(model.projection.weight)
        )
        mean, deviation = found.mean(dim=(0, 1)), found.std(dim=(0, 1)).clamp_min(1e-6)
        model.projection.weight.div_(deviation[:, None])
        model.projection.bias.sub_(mean).div_(deviation)


def _set_codes(model: Any, settings: CaptionerCodebook, captions: Sequence[str]) -> None:
    import torch

    codes = model.quantiser._codebook  # noqa: SLF001 - it offers no way to set the running means too
    if settings.initial == "uniform":
        generator = torch.Generator().manual_seed(settings.seed)
        values = (torch.rand(codes.embed.shape, generator=generator) * 2 - 1) / settings.codes
    else:
        values = torch.from_numpy(key_word_vectors(captions, settings.codes, settings.dimension, settings.seed))
    with torch.no_grad():
        for array in (codes.embed, codes.embed_avg):
            array.copy_(values)


def key_word_vectors(captions: Sequence[str], codes: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """A vector for each of the most frequent key words: their text embeddings, float32 [codes, dimension].

    The embeddings are MiniLM's, brought to the dimension by a random projection and to mean 0 and deviation 1. Where
    there are fewer words than codes, the rest are random mixtures of two of them.

    Args:
        captions: which the words are of.
        codes: how many vectors.
        dimension: of a vector.
        seed: of projection and mixtures.
    """
    from dqe_resources.models.text_encoders.minilm import MiniLM

    counted = Counter(word for caption in captions for word in set(words(caption)) if word.isalpha())
    ranked = sorted((word for word in counted if word not in _NOT_KEY_WORDS), key=lambda word: (-counted[word], word))
    random = np.random.default_rng(seed)
    found = MiniLM().encode(ranked[:codes] or ["image"]).vectors
    if len(found) < codes:
        pairs = random.integers(len(found), size=(2, codes - len(found)))
        found = np.concatenate([found, (found[pairs[0]] + found[pairs[1]]) / 2])
    projected = found @ random.normal(size=(found.shape[1], dimension))
    return ((projected - projected.mean(axis=0)) / np.maximum(projected.std(axis=0), 1e-6)).astype(np.float32)


def _measured(  # noqa: PLR0917
    model: Any,
    tokens: NDArray[np.floating],
    texts: NDArray[np.int64],
    rows: NDArray[np.int64],
    settings: CaptionerCodebook,
    padding: int,
    device: str,
) -> tuple[float, Any]:
    """Loss of the held-out captions, and how their images use the codes."""
    import torch

    model.eval()
    total, weight = 0.0, 0
    counts = np.zeros(settings.codes, np.int64)
    with torch.inference_mode():
        for start in range(0, len(rows), settings.batch_size):
            some = rows[start : start + settings.batch_size]
            loss, _, codes = model.losses(*_tensors(tokens, texts, some, device), padding)
            written = int((texts[some][:, 1:] != padding).sum())
            total, weight = total + float(loss) * written, weight + written
            counts += np.bincount(codes.cpu().numpy().ravel(), minlength=settings.codes)
    return total / max(weight, 1), health(counts)


def _codebook_of(model: Any) -> Codebook:
    vectors, weight, bias = map(_as_array, (model.quantiser.codebook, model.projection.weight, model.projection.bias))
    tower = {} if model.tower is None else dict(model.tower.named_parameters())
    return Codebook(vectors, weight, bias, {name: _as_array(one) for name, one in tower.items()})


def _as_array(weight: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = weight.detach().float().cpu().numpy().copy()
    return found


def _save(path: Path, version: str, model: Any, optimizer: Any, scheduler: Any, history: list[Epoch]) -> None:
    import torch

    state = {
        "version": version,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": torch.get_rng_state(),
        "history": [asdict(one) for one in history],
    }

    def write(target: IO[bytes]) -> None:
        torch.save(state, target)

    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write)


def forget_training(folder: Path) -> None:
    """Let the next training begin anew."""
    (folder / _STATE).unlink(missing_ok=True)


def _resumed(path: Path, version: str, model: Any, optimizer: Any, scheduler: Any) -> list[Epoch]:
    import torch

    if not path.exists():
        return []
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["version"] != version:
        return []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["random"])
    return [Epoch(**one) for one in state["history"]]
