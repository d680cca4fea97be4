"""A publication's manifest signed, and a publication compared with its manifest: Ed25519 (RFC 8032)."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_assets.publish.selection import PublishError
from dqe_assets.training.reshard import MANIFEST, parse_record
from dqe_resources.errors import UsageError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import fsspec

SIGNATURE = "manifest.sig.json"
"""The signature of ``manifest.json``, beside it."""

BESIDE = "beside"
"""Key, in a manifest's record of a file, of the images that the file names: their folder, and one digest of all."""

_ALGORITHM = "ed25519"
_AT_ONCE = 1 << 20


class VerifyError(PublishError):
    """A publication is not as its manifest says, or its manifest is not signed by the key."""


def signer(path: Path) -> Callable[[bytes], dict[str, str]]:
    """What signs the bytes of a manifest: gives the content of ``SIGNATURE``.

    Args:
        path: a PEM file with a private Ed25519 key, without a password.

    Raises:
        UsageError: it is none, or the package cryptography is missing.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = _key(path, lambda data: load_pem_private_key(data, None), Ed25519PrivateKey, "private")

    def sign(data: bytes) -> dict[str, str]:
        return {
            "of": MANIFEST,
            "algorithm": _ALGORITHM,
            "public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
            "signature": base64.b64encode(key.sign(data)).decode(),
        }

    return sign


def verify(
    place: str, key: Path | None = None, track: Callable[[int, int], None] = lambda _, __: None
) -> dict[str, Any]:
    """Compare every file of a publication with its manifest, and the manifest with its signature.

    Args:
        place: a folder, or an fsspec URL.
        key: a PEM file with the public key of who is to have signed it; None to look at no signature.
        track: is told how many bytes of how many are read.

    Returns:
        The manifest.

    Raises:
        VerifyError: something is missing, or is not as it was written or signed; says which files.
        UsageError: the key is none, or the package cryptography is missing.
    """
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{place}: {one_line(error)}") from error
    data = _read(filesystem, place, f"{root}/{MANIFEST}")
    if key is not None:
        _check_signature(data, _read(filesystem, place, f"{root}/{SIGNATURE}"), key, place)
    manifest = parse_record(data)
    files = manifest.get("files") if manifest else None
    if manifest is None or not isinstance(files, list):
        raise VerifyError(f"{place}: {MANIFEST} is none of a publication")
    total, done, wrong = sum(file["bytes"] for file in files), 0, []
    for file in files:
        if _digest(filesystem, f"{root}/{file['name']}") != (file["bytes"], file["sha256"]):
            wrong.append(file["name"])
        if BESIDE in file and _digest_beside(filesystem, root, file[BESIDE]["folder"]) != file[BESIDE]["sha256"]:
            wrong.append(f"{file[BESIDE]['folder']}/")
        done += file["bytes"]
        track(done, total)
    if wrong:
        raise VerifyError(
            f"{place}: {len(wrong):,} of {len(files):,} files are missing or not as they were written: "
            f"{', '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''}; fetch them again, or publish again"
        )
    return manifest


def digest_beside(digests: Mapping[str, str]) -> str:
    """One hex digest of many files, whatever their order.

    Args:
        digests: the hex SHA-256 of each, by its name in the place.
    """
    lines = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest_beside(filesystem: fsspec.AbstractFileSystem, root: str, folder: str) -> str:
    found = {}
    for path in filesystem.find(f"{root}/{folder}"):
        read = _digest(filesystem, path)
        found[f"{folder}/{path.rpartition(f'/{folder}/')[2]}"] = read[1] if read else ""
    return digest_beside(found)


def _check_signature(data: bytes, signature: bytes, path: Path, place: str) -> None:
    _require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = _key(path, load_pem_public_key, Ed25519PublicKey, "public")
    record = parse_record(signature) or {}
    try:
        key.verify(base64.b64decode(str(record.get("signature")), validate=True), data)
    except (InvalidSignature, ValueError) as error:
        raise VerifyError(f"{place}: {MANIFEST} is not what the owner of {path} signed") from error


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise UsageError("signatures need the package cryptography: pip install '.[sign]'") from error


def _key(path: Path, load: Callable[[bytes], object], kind: Any, which: str) -> Any:
    try:
        key = load(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (TypeError, ValueError) as error:
        # A key with a password is a TypeError.
        raise UsageError(f"{path}: no {which} key in PEM without a password: {one_line(error)}") from error
    if not isinstance(key, kind):
        raise UsageError(f"{path}: not an Ed25519 key; make one: openssl genpkey -algorithm ed25519 -out key.pem")
    return key


def _read(filesystem: fsspec.AbstractFileSystem, place: str, path: str) -> bytes:
    try:
        return filesystem.cat_file(path)
    except FileNotFoundError as error:
        name = Path(path).name
        why = "it is not finished, or no publication" if name == MANIFEST else "it is not signed"
        raise VerifyError(f"{place}: there is no {name}: {why}") from error


def _digest(filesystem: fsspec.AbstractFileSystem, path: str) -> tuple[int, str] | None:
    """Size and hex digest of a file; None if it is not there."""
    digest, size = hashlib.sha256(), 0
    try:
        with filesystem.open(path, "rb") as file:
            while part := file.read(_AT_ONCE):
                digest.update(part)
                size += len(part)
    except FileNotFoundError:
        return None
    return size, digest.hexdigest()
