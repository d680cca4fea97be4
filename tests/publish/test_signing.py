"""A manifest that is signed, and files compared with it."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from dqe_assets.publish.output import write_files
from dqe_assets.publish.places import place_of
from dqe_assets.publish.places.protocol import File
from dqe_assets.publish.signing import SIGNATURE, VerifyError, signer, verify
from dqe_assets.training.reshard import MANIFEST
from dqe_resources.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("cryptography", reason="the extra sign is not installed")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key."""
    return make_keys(tmp_path, "key")


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    pem = forms.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, forms.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def published(folder: Path, key: Path | None) -> Path:
    files = [File(f"data/{n}.bin", 1, lambda target, n=n: target.write(bytes([n]) * 100)) for n in range(3)]
    write_files(place_of(folder), {"samples": 3}, files, sign=signer(key) if key else None)
    return folder


def test_what_is_signed_is_verified_with_the_key_and_no_other(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    folder = published(tmp_path / "out", private)
    assert verify(str(folder), public)["samples"] == 3
    assert verify(f"file://{folder}") == json.loads((folder / MANIFEST).read_text())
    again = (folder / SIGNATURE).read_bytes()
    assert (published(folder, private) / SIGNATURE).read_bytes() == again, "the same manifest has the same signature"
    _, other = make_keys(tmp_path, "other")
    with pytest.raises(VerifyError, match="is not what the owner of"):
        verify(str(folder), other)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"samples": 4}))
    with pytest.raises(VerifyError, match="is not what the owner of"):
        verify(str(folder), public)
    (folder / SIGNATURE).write_text("{}")
    with pytest.raises(VerifyError, match="is not what the owner of"):
        verify(str(folder), public)


def test_a_publication_can_be_signed_later(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    folder = published(tmp_path / "out", None)
    with pytest.raises(VerifyError, match="it is not signed"):
        verify(str(folder), public)
    verify(str(published(folder, private)), public)


def test_files_that_changed_are_named(tmp_path: Path) -> None:
    folder = published(tmp_path / "out", None)
    (folder / "data" / "1.bin").write_bytes(b"x" * 100)
    (folder / "data" / "2.bin").unlink()
    with pytest.raises(VerifyError, match=r"2 of 3 files .*: data/1.bin, data/2.bin; "):
        verify(str(folder))
    (folder / MANIFEST).unlink()
    with pytest.raises(VerifyError, match="not finished"):
        verify(str(folder))
    (folder / MANIFEST).write_text("[]")
    with pytest.raises(VerifyError, match="none of a publication"):
        verify(str(folder))


def test_images_that_a_file_names_are_verified_too(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    images = [(f"images/{n}.png", bytes([n]) * 10) for n in range(3)]
    files = [File("train.json", 3, lambda target: target.write(b"[]"), lambda: images, "images")]
    write_files(place_of(folder), {"samples": 3}, files)
    assert verify(str(folder))["samples"] == 3
    second, more = folder / "images" / "1.png", folder / "images" / "3.png"
    for spoil in (partial(second.write_bytes, b"x" * 10), second.unlink, partial(more.write_bytes, b"more")):
        spoil()
        with pytest.raises(VerifyError, match=r"1 of 1 files .*: images/; "):
            verify(str(folder))


def test_what_is_no_key_is_named(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    def pem(key: X25519PrivateKey | Ed25519PrivateKey, encryption: forms.KeySerializationEncryption) -> bytes:
        return key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, encryption)

    path = tmp_path / "wrong.pem"
    for data, message in (
        (b"nothing", "no private key in PEM"),
        (pem(X25519PrivateKey.generate(), forms.NoEncryption()), "not an Ed25519 key"),
        (pem(Ed25519PrivateKey.generate(), forms.BestAvailableEncryption(b"x")), "without a password"),
        (keys[1].read_bytes(), "no private key in PEM"),
    ):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=message):
            signer(path)
    with pytest.raises(UsageError, match="cannot be read"):
        signer(tmp_path / "away.pem")
