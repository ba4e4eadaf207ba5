"""The public URL that an App takes, and the secret that it keeps."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.kernel.errors import ConfigurationError
from watchword.starting import kept_secret


def public(url: str) -> Watchword:
    return Watchword(
        "sqlite://",
        environ={},
        environment="development",
        secret=generate_secret(),
        public_url=url,
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://h:99999",
        "https://h:0",
        "https://h:port",
        "https://[::1",
        "https://[v1.x]",
        "https://[fe80::1%25eth0]",
        "https://h\nX:y",
        "https://exa mple.org",
        " https://example.org",
        "https://h?",
        "https://h#",
        "https://h%2Fx",
        "https://h\\x",
        "https://u@h",
        "https://@h",
        "https://a..b",
        "https://b\u00fccher\u2028.example",
        "https://\u2100.example",
        "https://",
    ],
)
def test_what_is_no_public_url_is_refused_in_words(url: str) -> None:
    with pytest.raises(ConfigurationError, match="WATCHWORD_PUBLIC_URL"):
        public(url)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example"),
        ("https://b\u00fccher.example:8443/app", "https://xn--bcher-kva.example:8443/app"),
        ("https://[::1]:8000", "https://[::1]:8000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://id.example.org/app", "https://id.example.org/app"),
    ],
)
def test_a_public_url_is_kept_as_browsers_write_it(url: str, kept: str) -> None:
    made = public(url)
    assert made.public_url == kept
    assert kept.startswith(made.csrf.origin)


def test_the_folder_of_a_kept_secret_is_not_for_a_repository(tmp_path: Path) -> None:
    path = tmp_path / ".watchword" / "secret"
    assert kept_secret(path) == kept_secret(path)
    assert (path.parent / ".gitignore").read_text() == "*\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == [".gitignore", "secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_kept_secret_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    kept_secret(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        kept_secret(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_kept_secret_that_is_none_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="holds no secret"):
        kept_secret(path)


def test_a_folder_in_a_kept_secrets_place_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        kept_secret(tmp_path / "secret")


def test_a_volume_without_hard_links_keeps_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "secret"
    assert kept_secret(path) == kept_secret(path)
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]
    assert path.stat().st_mode & 0o777 == 0o600
