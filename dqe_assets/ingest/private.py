"""What is nobody's business leaves with no publication: paths of machines, credentials, addresses inside a network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.ingest.fetch.addresses import AddressRules
from dqe_assets.ingest.outcomes import host_of
from dqe_resources.cache import data_directory
from dqe_resources.web_url import without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ABSOLUTE = re.compile(
    r"(?<![\w./~\\-])(?:~?/|[A-Za-z]:[\\/])(?:[^\s/\\,;'\"()]+[\\/])+([^\s/\\,;'\"()]*)|file://\S*/(\S*)"
)
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,11}://[^\s'\"<>()]+", re.IGNORECASE)
_INSIDE = (".local", ".localdomain", ".localhost", ".internal", ".intranet", ".lan", ".corp", ".home.arpa")
# Signed URLs of object stores and of content networks, and tokens as most services call them.
_SECRET = re.compile(
    r"(?<=[?&])(x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|signature|sig|token|access_token|auth|apikey|"
    r"api_key|key-pair-id|policy|password|secret)=[^&#]*&?",
    re.IGNORECASE,
)
_GLOBAL = AddressRules([])


@dataclass(frozen=True)
class Private:
    """Takes out of texts what says something of this machine, its network or its users.

    Attributes:
        folders: of this machine, whose paths are taken out wherever they stand.
        hosts: names of hosts that others cannot reach, in lower case.
    """

    folders: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: dict[str, Any], hosts: Iterable[str]) -> Private:
        """What the settings and this process know of the machine.

        Args:
            settings: all of them, as they are dumped.
            hosts: what ``fetching.allow`` lists: hosts and networks inside.
        """
        named = {*_paths(settings), data_directory().resolve(), Path.home(), Path.cwd()}
        folders = {str(folder) for folder in named if len(folder.parts) > 2}
        return cls(
            tuple(sorted(folders, key=lambda folder: (-len(folder), folder))),
            frozenset(entry.lower() for entry in hosts if not _is_network(entry)),
        )

    def record(self, value: Any) -> Any:
        """The same JSON, each text in it as ``text`` has it."""
        if isinstance(value, dict):
            return {name: self.record(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.record(one) for one in value]
        return self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """A text without these folders, and without what URLs in it must not tell."""
        for folder in self.folders:
            text = text.replace(f"{folder}/", "").replace(folder, Path(folder).name)
        return _URL.sub(lambda match: self.url(match[0]) or "(an internal URL)", text)

    def name(self, text: str) -> str:
        """The name of a model or of a file: of paths in it, the last part is left."""
        return self.text(_ABSOLUTE.sub(lambda match: match[1] or match[2] or "", text))

    def url(self, url: str) -> str | None:
        """A URL without credentials and signatures; None if it leads into a network that is not open to all."""
        return None if self.is_inside(host_of(url)) else _SECRET.sub("", without_credentials(url)).rstrip("?&")

    def facts(self, facts: pa.Table) -> pa.Table:
        """What is published of samples: ``FACTS``, or some of its columns."""
        urls = [url and self.url(url) for url in facts["url"].to_pylist()]
        names = [name and self.name(name) for name in facts["image_name"].to_pylist()]
        for column, values in (("url", urls), ("image_name", names)):
            place = facts.schema.get_field_index(column)
            facts = facts.set_column(place, facts.schema.field(column), pa.array(values, pa.string()))
        return facts

    def is_inside(self, host: str) -> bool:
        """Whether a host, in lower case, is one that others cannot reach."""
        if not host:
            return False
        if ":" in host or host.replace(".", "").isdigit():
            return not _GLOBAL.permits(host)
        return "." not in host or host in self.hosts or host.endswith(_INSIDE)


def _paths(value: Any) -> Iterator[Path]:
    """The folders of all paths in settings, and those paths that are folders."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _paths(one)
    elif isinstance(value, Path) and value.is_absolute():
        yield value if value.is_dir() else value.parent


def _is_network(entry: str) -> bool:
    return "/" in entry or ":" in entry or entry.replace(".", "").isdigit()
