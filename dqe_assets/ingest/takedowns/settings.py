"""What is to be taken down: the key ``takedowns`` of data/dqe.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from dqe_assets.ingest.takedowns.entries import SUFFIXES
from dqe_resources.cache import in_data_directory
from dqe_resources.configurable import Strict


def _list_file(path: Path) -> Path:
    resolved = in_data_directory(path)
    # Whatever else may be away: a list that is not there must not pass for one that lists nothing.
    if resolved.suffix.lower() not in SUFFIXES or not resolved.is_file():
        raise PydanticCustomError(
            "takedowns",
            "{path}: expected a file that is there, ending in {suffixes}",
            {"path": str(resolved), "suffixes": ", ".join(SUFFIXES)},
        )
    return resolved


ListFile = Annotated[Path, AfterValidator(_list_file)]


class Takedowns(Strict):
    """What is to be taken down. A list of files alone is short for ``files``.

    Attributes:
        files: Lists of URLs, hosts, uids and image hashes. A .txt file has one in each line; CSV, TSV, JSON Lines and
            Parquet files have the columns url, host, uid, sha256 and perceptual_hash, or some of them.
        copies: Take down copies of these images too: the same file, the same pixels, or a perceptual hash within
            ``duplicates.max_distance`` bits.
    """

    files: tuple[ListFile, ...] = ()
    copies: bool = False


def _from_list(value: Any) -> Any:
    return {"files": value} if isinstance(value, list | tuple) else value


AnyTakedowns = Annotated[Takedowns, BeforeValidator(_from_list, json_schema_input_type=Takedowns | list[ListFile])]
