"""One owner at a time of what is made over all shards, among all machines that use a store."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dqe_resources.errors import one_line
from dqe_resources.locks import HeldError, held
from dqe_resources.store.atomic import StorageError
from dqe_resources.store.remote import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dqe_resources.store.place import Place

OWNER = ".owner"
"""In the folder of an asset: the lock file, or the folder of claims."""

LEASE_SECONDS = 30.0
"""After so long without a sign of life, an owner on an object store has lost what it owns."""

_SIGN_SECONDS = 5.0
_LOOK_SECONDS = 2.0


@contextmanager
def owned(place: Place, asset: str, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Own an asset, alone; waits as long as another owner lives.

    Of a folder of this machine, the system's own lock on a file is held, which ends with its process. In an object
    store there are claims, see ``_Claims``.

    Args:
        place: where the store is.
        asset: its name.
        say: is told once of each other owner that is waited for.

    Yields:
        A function that raises StorageError if another one has become the owner since.

    Raises:
        StorageError: the store cannot be written.
    """
    if place.is_local:
        with _locked(Path(place.folder) / asset / OWNER, asset, say):
            yield lambda: None
        return
    claims = _Claims(place, asset)
    claims.win(say)
    ended = threading.Event()
    signs = threading.Thread(target=claims.give_signs, args=(ended,), name=f"owner of {asset}", daemon=True)
    signs.start()
    try:
        yield claims.require
    finally:
        ended.set()
        signs.join()
        claims.give_up()


@contextmanager
def _locked(path: Path, asset: str, say: Callable[[str], None]) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(held(path, wait=0))
            except HeldError:
                say(f"{asset}: {_in_words(_written(path))} makes it; waiting until that ends")
                stack.enter_context(held(path))
            path.write_text(json.dumps(_myself()))
        except OSError as error:
            raise StorageError(f"{path}: cannot be locked ({one_line(error)}); allow writing there") from error
        yield


def _written(path: Path) -> Mapping[str, Any] | None:
    """Who holds a lock file, as it says."""
    try:
        found: Mapping[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found


@dataclass
class _Claims:
    """Claims to an asset: objects with numbers, of which the highest is that of the owner, or of who was it last.

    A claim is only ever written where there is none, which object stores do atomically, so of several that write the
    next number one wins. Its owner changes it every few seconds. Whoever has seen it unchanged for a whole lease, by a
    clock of their own that only goes forward, writes the next number: no two clocks are compared. An owner that stood
    still meanwhile finds the higher number before it writes anything.
    """

    place: Place
    asset: str
    number: int = 0
    token: str = field(default_factory=lambda: uuid4().hex)
    signs: int = 0

    def win(self, say: Callable[[str], None]) -> None:
        """Become the owner."""
        last: Mapping[str, Any] | None = None
        seen_at = 0.0
        with self._writing():
            while True:
                numbers, claim = self._highest()
                if claim is not None and claim["token"] == self.token:
                    # Also if it was written although the answer said otherwise, or got lost.
                    *below, self.number = numbers
                    for number in below:
                        self.place.filesystem.rm_file(self._path(number))
                    return
                now = time.monotonic()
                if claim is not None and claim["is_held"] and claim != last:
                    if last is None or claim["token"] != last["token"]:
                        say(
                            f"{self.asset}: {_in_words(claim)} makes it; waiting until that ends, "
                            f"or has given no sign of life for {LEASE_SECONDS:g} s"
                        )
                    last, seen_at = claim, now
                elif claim is None or not claim["is_held"] or now - seen_at > LEASE_SECONDS:
                    self._claim(numbers[-1] + 1 if numbers else 1)
                    continue
                time.sleep(_LOOK_SECONDS)

    def _claim(self, number: int) -> None:
        with suppress(FileExistsError):
            try:
                self.place.filesystem.pipe_file(self._path(number), self._content(), mode="create")
            except storage_errors():
                # Not every server says in the same words that another one was faster.
                if not self.place.filesystem.exists(self._path(number)):
                    raise

    def require(self) -> None:
        """Raise StorageError unless this is the owner."""
        numbers, claim = self._highest()
        if numbers[-1:] != [self.number]:
            raise StorageError(
                f"{self.asset}: {_in_words(claim)} has taken over, as this process gave no sign of life for "
                f"{LEASE_SECONDS:g} s; run the same command again"
            )

    def give_signs(self, ended: threading.Event) -> None:
        """Change the claim every few seconds until that has ended."""
        while not ended.wait(_SIGN_SECONDS):
            self.signs += 1
            # What fails is tried again; if it fails for too long, another one takes over.
            with suppress(*storage_errors()):
                self.place.filesystem.pipe_file(self._path(self.number), self._content())

    def give_up(self) -> None:
        """Be no owner any more; if that cannot be written, the lease ends by itself."""
        with suppress(*storage_errors()):
            self.place.filesystem.pipe_file(self._path(self.number), self._content(is_held=False))

    def _highest(self) -> tuple[list[int], Mapping[str, Any] | None]:
        """The numbers of all claims, ascending, and the claim with the highest; None if there are none."""
        while numbers := self._numbers():
            try:
                return numbers, json.loads(self.place.filesystem.cat_file(self._path(numbers[-1]), start=0))
            except FileNotFoundError:
                continue  # removed since there is a higher one
            except storage_errors() as error:
                raise self.place.unreadable(self._path(numbers[-1]), error) from error
        return [], None

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self.place.entries(self._folder) if name.isdecimal())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except storage_errors() as error:
            raise self.place.unwritable(self._folder, error) from error

    def _content(self, *, is_held: bool = True) -> bytes:
        claim = {**_myself(), "token": self.token, "signs": self.signs, "is_held": is_held}
        return json.dumps(claim).encode()

    @property
    def _folder(self) -> str:
        return f"{self.place.folder}/{self.asset}/{OWNER}"

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:08d}"


def _myself() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _in_words(who: Mapping[str, Any] | None) -> str:
    return f"process {who['pid']} on {who['host']}" if who else "another process"
