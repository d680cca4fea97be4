"""What a terminal shows while shards are made."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from dqe_assets.cli import terminal
from dqe_resources.progress import Step, report

if TYPE_CHECKING:
    import pytest


def shown(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> list[str]:
    """The lines that are left once two shards and what is made over all of them have ended."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=80, color_system=None, legacy_windows=False)
    monkeypatch.setattr(terminal, "console", console)
    with terminal.progress_by_shard():
        for partition in ("sample-00000", "sample-00001", None):
            for asset in ("raw_samples", "image_features"):
                report(Step(asset, partition, 0, 0))
                report(Step(asset, partition, 3, 64))
                is_bad = partition == "sample-00001" and asset == "image_features"
                report(Step(asset, partition, 1, 1, "failed: complete" if is_bad else "64 rows, 0.1 s"))
    marks = ("✓", "✗")
    lines = output.getvalue().replace("\r", "\n").splitlines()
    return [" ".join(line[line.index(mark) :].split()) for line in lines for mark in marks if mark in line]


def test_a_terminal_shows_one_line_for_each_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, is_terminal=True)
    assert lines == [
        "✓ sample-00000 2 assets, 0 s",
        "✗ sample-00001 image_features failed: complete",
        "✓ all shards 2 assets, 0 s",
    ]


def test_without_a_terminal_each_asset_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, is_terminal=False)
    assert len(lines) == 6
    assert lines[0] == "✓ raw_samples sample-00000 64 rows, 0.1 s"
