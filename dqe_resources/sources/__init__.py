"""The kinds of source. To add one: a file here with a subclass of Source, and its name in this list."""

from __future__ import annotations

from typing import Annotated

from dqe_resources.configurable import SerializeAsAny, one_of
from dqe_resources.sources.datacomp import DatacompSource
from dqe_resources.sources.folder import FolderSource
from dqe_resources.sources.hf import HfSource
from dqe_resources.sources.parquet import ParquetSource
from dqe_resources.sources.protocol import Source, SourceError
from dqe_resources.sources.sample import SampleSource
from dqe_resources.sources.sbu import SbuSource
from dqe_resources.sources.urls import UrlsSource
from dqe_resources.sources.webdataset import WebdatasetSource
from dqe_resources.sources.world import WorldSource

__all__ = ["SOURCES", "AnySource", "Source", "SourceError"]

SOURCES: tuple[type[Source], ...] = (
    SampleSource,
    FolderSource,
    ParquetSource,
    UrlsSource,
    SbuSource,
    HfSource,
    WebdatasetSource,
    DatacompSource,
    WorldSource,
)
"""Every kind of source."""

AnySource = Annotated[SerializeAsAny[Source], one_of(*SOURCES)]
