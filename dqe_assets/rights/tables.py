"""The table of rights."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema

RIGHTS = table_schema(
    [
        UID,
        Column("license", pa.string(), "licence: of the row, if its source says, else of the whole source"),
        Column("attribution", pa.string(), "whom the source says to name"),
        Column("notice", pa.string(), "copyright notice in the image file (XMP, IPTC or EXIF)"),
        Column("creator", pa.string(), "who made the image, as its file says"),
        Column("credit", pa.string(), "whom to name, as the image file says"),
        Column("terms", pa.string(), "how the image may be used, in the words of its file"),
        Column("web_statement", pa.string(), "URL in the image file of a page about its rights"),
        Column(
            "data_mining",
            pa.string(),
            "what the image file says of data mining, in PLUS's words: DMI-ALLOWED, DMI-PROHIBITED ...",
        ),
        Column(
            "source_type",
            pa.string(),
            "how the image came to be, in IPTC's words: digitalCapture, trainedAlgorithmicMedia ...",
        ),
        Column("c2pa", pa.bool_(), "whether the image file holds a C2PA manifest, valid or not; null without an image"),
    ]
)

SAID_IN_FILE = ("notice", "creator", "credit", "terms", "web_statement", "data_mining", "source_type")
"""The columns that image files fill."""

PREFIX = "rights_"
"""What the columns begin with in ``samples`` and in expressions of filters."""
