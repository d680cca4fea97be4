"""``dqe verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dqe_assets.cli.terminal import clear_errors, counting, say


def verify(
    target: Annotated[str, typer.Argument(metavar="DIR", help="What dqe publish wrote: a folder or a URL.")],
    key: Annotated[
        Path | None, typer.Option(help="PEM file of the Ed25519 public key of who is to have signed it.")
    ] = None,
) -> None:
    """Compare every file of a publication with its manifest, and with --key the manifest with its signature."""
    with clear_errors():
        from dqe_assets.publish.signing import verify as compare

        with counting("bytes") as progress:
            manifest = compare(target, key, progress)
        say(
            f"[b]{{}}[/b]: {manifest['samples']:,} samples, {len(manifest['files']):,} files as they were written"
            + (", and signed by the key" if key else "; without --key nobody says by whom"),
            target,
        )
