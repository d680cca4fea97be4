"""Makes example.csv: accuracies that no model was measured for, which follow the law that the paper found, with noise.

They show what the platform does with measurements until there are some: the counts have a long tail from 1 to a few
hundred thousand, and each tenfold count is worth as much accuracy as the paper's models trained on CC-12M gained.
"""

from __future__ import annotations

import numpy as np

from dqe_assets.concepts.accuracies import EXAMPLE_FILE

CONCEPTS = 300
SLOPE = 0.052
"""Accuracy gained for each e-fold of the count."""

INTERCEPT = 0.02
NOISE = 0.12
"""Standard deviation of a concept's accuracy about the line."""

SEED = 7


def example_csv() -> str:
    """The text of the file."""
    random = np.random.default_rng(SEED)
    counts = np.floor(np.exp(random.uniform(0, np.log(300_000), CONCEPTS))).astype(np.int64)
    accuracy = np.clip(INTERCEPT + SLOPE * np.log(counts) + NOISE * random.standard_normal(CONCEPTS), 0, 1)
    lines = [
        "# MADE-UP NUMBERS: no model was measured. An example of the table that concepts.measurements in data/dqe.yaml",
        "# names; written by dqe_assets/concepts/example.py from a known line, with noise.",
        "model,concept,count,accuracy",
        *(
            f"made-up CLIP,concept {place:03d},{count},{value:.4f}"
            for place, (count, value) in enumerate(zip(counts.tolist(), accuracy.tolist(), strict=True), 1)
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    EXAMPLE_FILE.write_text(example_csv(), encoding="utf-8")
