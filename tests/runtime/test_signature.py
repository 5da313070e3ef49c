"""A signed package is known by its key; openssl makes the keys, and verifies what effcc signs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import effcc
from effcc.cli import app
from effcc.errors import InputError, PackageError, UnsupportedError
from effcc.runtime.members import sums_of

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")


def write_keys(folder: Path, name: str) -> Path:
    """A private key, and beside it the public one as `<name>.pub.pem`."""
    key = ed25519.Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub.pem").write_bytes(public)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the key pairs `mine` and `other`."""
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder, "mine")
    write_keys(folder, "other")
    return folder


@pytest.fixture(scope="module")
def signed(keys: Path) -> Path:
    """A folder package that `mine` has signed."""
    torch.manual_seed(0)
    return effcc.export(nn.Linear(3, 2), (torch.zeros(4, 3),), keys / "signed", sign=keys / "mine.pem")


def test_a_package_that_the_key_signed_is_loaded(signed: Path, keys: Path) -> None:
    for verify in (None, keys / "mine.pub.pem"):
        assert effcc.load(signed, verify=verify)(torch.zeros(4, 3)).shape == (4, 2)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_openssl_verifies_it_and_makes_keys_for_it(signed: Path, keys: Path, tmp_path: Path) -> None:
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", keys / "mine.pub.pem"]
    files = ["-in", signed / "SHA256SUMS", "-sigfile", signed / "SHA256SUMS.sig"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=signed, check=True, capture_output=True)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "key.pem"], check=True)
    public = ["openssl", "pkey", "-in", tmp_path / "key.pem", "-pubout", "-out", tmp_path / "key.pub.pem"]
    subprocess.run(public, check=True)
    made = effcc.export(nn.Linear(3, 2), (torch.zeros(4, 3),), tmp_path / "m.effcc", sign=tmp_path / "key.pem")
    effcc.load(made, verify=tmp_path / "key.pub.pem")
    with pytest.raises(PackageError, match="the signature is not of the key"):
        effcc.load(made, verify=keys / "mine.pub.pem")


def change_weights(folder: Path) -> None:
    """Other weights, with digests that agree: what only a signature notices, besides the seal."""
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    (folder / "SHA256SUMS").write_bytes(sums_of({n: (folder / n).read_bytes() for n in names}))


FORGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unsigned": (lambda f: (f / "SHA256SUMS.sig").unlink(), "got one without a signature"),
    "cut": (lambda f: (f / "SHA256SUMS.sig").write_bytes(b"x" * 63), "expected a signature of 64 bytes, got 63"),
    "long": (lambda f: (f / "SHA256SUMS.sig").write_bytes(b"x" * 65), "expected at most 64"),
    "other": (lambda f: (f / "SHA256SUMS.sig").write_bytes(bytes(64)), "the signature is not of the key"),
    "changed": (change_weights, "the package was changed after it was signed"),
    "a broken manifest": (
        lambda f: (f / "manifest.json").write_text("{"),
        "manifest.json is damaged: expected SHA-256",
    ),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_package_that_the_key_did_not_sign_is_refused(forged: str, signed: Path, keys: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(signed, copied)
    forge, message = FORGED[forged]
    forge(copied)
    with pytest.raises(PackageError) as caught:
        effcc.load(copied, verify=keys / "mine.pub.pem")
    assert message in str(caught.value)
    assert str(copied) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_holds_no_key_is_refused_with_how_to_make_one(content: bytes, signed: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(content)
    for use in (
        lambda: effcc.export(nn.Linear(3, 2), (torch.zeros(4, 3),), tmp_path / "m.effcc", sign=tmp_path / "key.pem"),
        lambda: effcc.load(signed, verify=tmp_path / "key.pem"),
    ):
        with pytest.raises(InputError, match="openssl genpkey -algorithm ed25519"):
            use()
    assert not (tmp_path / "m.effcc").exists()


def test_keys_of_the_other_half_or_another_kind_are_refused(signed: Path, keys: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a public Ed25519 key"):
        effcc.load(signed, verify=keys / "mine.pem")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec").generate_private_key(
        pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec").SECP256R1()
    )
    pem, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "ec.pem").write_bytes(rsa.public_key().public_bytes(pem, public))
    with pytest.raises(InputError, match=r"expected a public Ed25519 key in PEM form, got .*"):
        effcc.load(signed, verify=tmp_path / "ec.pem")


def test_without_the_library_signing_says_what_to_install(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [n for n in sys.modules if n.startswith("cryptography")] + ["cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError, match="pip install"):
        effcc.load(signed, verify="key.pem")
    assert effcc.load(signed)


def test_the_command_line_signs_and_verifies(keys: Path, tmp_path: Path) -> None:
    import safetensors.torch

    model = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(4, 3),)), model)
    safetensors.torch.save_file({"input": torch.zeros(4, 3)}, tmp_path / "inputs.safetensors")
    made = str(tmp_path / "model.effcc")
    run = CliRunner().invoke
    assert run(app, ["compile", str(model), "-o", made, "--sign", str(keys / "mine.pem")]).exit_code == 0
    arguments = ["run", made, str(tmp_path / "inputs.safetensors"), "--verify"]
    assert run(app, [*arguments, str(keys / "mine.pub.pem")]).exit_code == 0
    refused = run(app, [*arguments, str(keys / "other.pub.pem")])
    assert refused.exit_code == 2 and "the signature is not of the key" in refused.stderr
