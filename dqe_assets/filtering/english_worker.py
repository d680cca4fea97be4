"""Which texts are English, by a language detector; run as a program, it answers another process.

Detectors hold the interpreter's lock, so that only processes use all cores. This file imports nothing of the project:
a process of it takes little memory and starts at once.

    python english_worker.py fasttext MODEL < texts > answers     both as Arrow IPC streams
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = pa.schema([("text", pa.string())])
ANSWERS = pa.schema([("english", pa.bool_())])


def load(kind: str, model: str) -> Callable[[list[str]], list[bool]]:
    """A detector: texts [n] to whether English is their most probable language [n].

    Args:
        kind: ``fasttext`` or ``cld3``. Line feeds are read as spaces by both, as in DataComp's code.
        model: path of a fastText model; CLD3 carries its own.
    """
    if kind == "cld3":
        import gcld3

        # The bounds on bytes that DataComp's code gives.
        identifier = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
        return lambda texts: [identifier.FindLanguage(text=text.replace("\n", " ")).language == "en" for text in texts]
    import fasttext

    predict = fasttext.load_model(model).predict

    return lambda texts: [predict(text.replace("\n", " "))[0][0] == "__label__en" for text in texts]


def _answer(kind: str, model: str) -> None:
    english = load(kind, model)
    out = sys.stdout.buffer
    with pa.ipc.open_stream(sys.stdin.buffer) as texts, pa.ipc.new_stream(out, ANSWERS) as answers:
        for batch in texts:
            answers.write_batch(pa.record_batch([pa.array(english(batch["text"].to_pylist()), pa.bool_())], ANSWERS))
            out.flush()


if __name__ == "__main__":
    _answer(*sys.argv[1:])
