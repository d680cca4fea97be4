"""What all jobs of a study need, loaded: their processes are forked from one that has imported this module."""

from __future__ import annotations

from contextlib import suppress

from dqe_assets.study import worker
from dqe_resources.models.open_clip_loading import import_open_clip
from dqe_resources.models.packages import PackageError

__all__ = ["worker"]

# Where it is not installed, the first job that needs it says so.
with suppress(PackageError):
    import_open_clip()
