"""Ed25519 signatures of packages: who wrote one, which digests cannot tell.

    openssl genpkey -algorithm ed25519 -out key.pem            a key to sign with
    openssl pkey -in key.pem -pubout -out key.pub.pem          what others verify with

A signature is the 64 bytes of the file `SHA256SUMS.sig`, over the bytes of `SHA256SUMS`, which has the digest of every
other file. OpenSSL verifies it as well:

    openssl pkeyutl -verify -rawin -pubin -inkey key.pub.pem -in SHA256SUMS -sigfile SHA256SUMS.sig
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcc.errors import InputError, PackageError, UnsupportedError
from effcc.runtime.files import read_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LENGTH = 64
_LONGEST_KEY = 1 << 16
_HOW = "`openssl genpkey -algorithm ed25519 -out key.pem` makes one, `openssl pkey -in key.pem -pubout` its public half"

KeyFile = str | os.PathLike[str]


def read_signing_key(path: KeyFile) -> Ed25519PrivateKey:
    """The private key of a PEM file.

    Raises InputError for a file that holds no such key, UnsupportedError where the package `cryptography` is missing.
    """
    ed25519, serialization = _library()
    try:
        key = serialization.load_pem_private_key(_content(path), password=None)
    except (ValueError, TypeError) as error:
        raise _no_key(path, "a private", str(error)) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _no_key(path, "a private", type(key).__name__)
    return key


def sign(key: Ed25519PrivateKey, sums: bytes) -> bytes:
    """The signature of a `SHA256SUMS`."""
    return key.sign(sums)


def verify(path: KeyFile, sums: bytes, signature: bytes | None) -> None:
    """Check the signature of a `SHA256SUMS` with the public key of a PEM file.

    Raises PackageError where there is no signature or it is not of that key and these bytes; what `read_signing_key`
    raises for the file.
    """
    ed25519, serialization = _library()
    from cryptography.exceptions import InvalidSignature

    try:
        key = serialization.load_pem_public_key(_content(path))
    except (ValueError, TypeError) as error:
        raise _no_key(path, "a public", str(error)) from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise _no_key(path, "a public", type(key).__name__)
    if signature is None:
        raise PackageError(f"expected a package signed with the key {path}, got one without a signature")
    if len(signature) != LENGTH:
        raise PackageError(f"expected a signature of {LENGTH} bytes, got {len(signature)}")
    try:
        key.verify(signature, sums)
    except InvalidSignature:
        raise PackageError(
            f"the signature is not of the key {path}, or the package was changed after it was signed"
        ) from None


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise UnsupportedError("signatures need the package cryptography: pip install 'effcc[sign]'") from None
    return ed25519, serialization


def _content(path: KeyFile) -> bytes:
    try:
        return read_file(Path(path), _LONGEST_KEY)
    except PackageError as error:
        raise InputError(f"the key {path}: {error}; {_HOW}") from None


def _no_key(path: KeyFile, which: str, got: str) -> InputError:
    return InputError(f"the key {path}: expected {which} Ed25519 key in PEM form, got {got}; {_HOW}")
