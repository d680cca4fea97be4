"""The kinds of source. To add one: a file here with a subclass of Source, and its name in this list."""

from __future__ import annotations

from typing import Annotated

from dqe_assets.ingest.sources.datacomp import DatacompSource
from dqe_assets.ingest.sources.folder import FolderSource
from dqe_assets.ingest.sources.hf import HfSource
from dqe_assets.ingest.sources.parquet import ParquetSource
from dqe_assets.ingest.sources.protocol import Source, SourceError
from dqe_assets.ingest.sources.sample import SampleSource
from dqe_assets.ingest.sources.sbu import SbuSource
from dqe_assets.ingest.sources.urls import UrlsSource
from dqe_assets.ingest.sources.webdataset import WebdatasetSource
from dqe_resources.component import SerializeAsAny, one_of

__all__ = ["AnySource", "Source", "SourceError"]

AnySource = Annotated[
    SerializeAsAny[Source],
    one_of(
        SampleSource,
        FolderSource,
        ParquetSource,
        UrlsSource,
        SbuSource,
        HfSource,
        WebdatasetSource,
        DatacompSource,
    ),
]
