"""Settings that stand in files of their own, and what is shown of those that hold passwords."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from watchword.features.mail import mail
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.settings import CookieSettings, CsrfSettings
from watchword.sources import MAX_FILE, Loaded, load

SECRET = "x" * 40


def loaded(**environ: str) -> Loaded:
    return load({}, [mail()], environ=environ)


def faults(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(**environ)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_an_empty_secret_file_is_a_fault_and_not_no_secret(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    assert "WATCHWORD_SECRET_FILE" in faults(WATCHWORD_SECRET_FILE=str(file))
    assert "secret" in faults(WATCHWORD_SECRETS_DIR=str(tmp_path))


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xff" * 40)
    for name in ("a\0b", str(tmp_path), str(tmp_path / "none"), str(tmp_path / "latin")):
        assert "WATCHWORD_SECRET_FILE" in faults(WATCHWORD_SECRET_FILE=name)


def test_a_file_too_long_is_a_fault_and_not_cut(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("x" * MAX_FILE)
    assert loaded(WATCHWORD_SECRET_FILE=str(file)).core.secret is not None
    file.write_text("x" * (MAX_FILE + 1))
    assert "longer" in faults(WATCHWORD_SECRET_FILE=str(file))


def test_names_that_are_not_known_in_the_secrets_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "..data").mkdir()
    (tmp_path / ".hidden").write_text("anything")
    assert loaded(WATCHWORD_SECRETS_DIR=str(tmp_path)).core.secret is not None
    (tmp_path / "sercet").write_text(SECRET)
    (tmp_path / "prefix").write_text("/auth")
    said = faults(WATCHWORD_SECRETS_DIR=str(tmp_path))
    assert "sercet is not known" in said
    assert "prefix is no secret" in said


@pytest.mark.parametrize("in_directory", [True, False])
def test_what_holds_a_password_may_stand_in_a_file(tmp_path: Path, in_directory: bool) -> None:
    texts = {
        "database": "postgresql://u:hunter2@h/d\n",
        "mail__url": "smtp://u:hunter2@mail.example.org:587\n",
        "old_secrets": f"{'y' * 40}\n{'z' * 40}, {'w' * 40}\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = loaded(
        **{"WATCHWORD_SECRETS_DIR": str(tmp_path)}
        if in_directory
        else {f"WATCHWORD_{name.upper()}_FILE": str(tmp_path / name) for name in texts}
    )
    assert found.core.database == "postgresql://u:hunter2@h/d"
    assert [each.reveal()[0] for each in found.core.old_secrets] == ["y", "z", "w"]
    shown = {each.key: each.value for each in found.report}
    assert shown["mail.url"].startswith("smtp://u:***@mail.example.org")
    assert "hunter2" not in str(shown)


@pytest.mark.parametrize(
    "query",
    [
        "sslpassword=hunter2",
        "PassWord=hunter2",
        "p%61ssword=hunter2",
        "my+secret=hunter2",
        "user=u&api_token=hunter2",
        "password=a#hunter2",
        "password=x=hunter2",
    ],
)
def test_values_of_a_query_that_tell_a_secret_are_masked(query: str) -> None:
    found = loaded(WATCHWORD_DATABASE=f"postgresql:///db?sslmode=require&{query}")
    shown = next(each.value for each in found.report if each.key == "database")
    assert "hunter2" not in shown
    assert "sslmode=require" in shown


def test_sections_of_the_core_come_from_every_source(tmp_path: Path) -> None:
    (tmp_path / "watchword.toml").write_text(
        '[csrf]\nttl = "30m"\nrotate = true\nexempt = ["/hooks/*"]\n[cookies]\nsession = "mine"\n'
    )
    given = {"csrf": {"ttl": "20m"}, "binding": {"address": "network"}}
    environ = {"WATCHWORD_CSRF__ROTATE": "false", "WATCHWORD_COOKIES__CSRF": "form"}
    made = load(given, [mail()], environ=environ, directory=tmp_path)
    csrf, cookies = made.features["csrf"], made.features["cookies"]
    assert isinstance(csrf, CsrfSettings)
    assert isinstance(cookies, CookieSettings)
    assert (csrf.ttl, csrf.rotate, csrf.exempt) == (timedelta(minutes=20), False, ("/hooks/*",))
    assert (cookies.session, cookies.csrf) == ("mine", "form")
    told = {each.key: (each.value, each.source) for each in made.report}
    assert told["csrf.ttl"] == ("20m", "argument")
    assert told["csrf.rotate"] == ("false", "environment WATCHWORD_CSRF__ROTATE")
    assert told["csrf.exempt"] == ("/hooks/*", "watchword.toml")
    assert told["binding.address"] == ("network", "argument")
    several = load({}, [mail()], environ={"WATCHWORD_CSRF__EXEMPT": "/a/*, /b"}).features["csrf"]
    assert isinstance(several, CsrfSettings)
    assert several.exempt == ("/a/*", "/b")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"csrf": {"tll": "1h"}}, "csrf.tll (argument) is not known"),
        ({"csrf": "1h"}, "csrf (argument) is not known"),
        ({"csrf": {"ttl": 3600}}, "csrf.ttl (argument; WATCHWORD_CSRF__TTL)"),
        ({"csrf": {"ttl": "8d"}}, "csrf.ttl"),
        ({"csrf": {"exempt": ["/api*"]}}, "'/api*' is no pattern"),
        ({"csrf": {"exempt": ["api"]}}, "'api' is no pattern"),
        ({"csrf": {"exempt": ["/a//b"]}}, "'/a//b' is no pattern"),
        ({"csrf": {"exempt": ["/a/../b"]}}, "'/a/../b' is no pattern"),
        ({"csrf": {"exempt": ["/**/a/**"]}}, "'/**/a/**' is no pattern"),
        ({"csrf": {"exempt": ["/a\n"]}}, "is no pattern"),
        ({"csrf": {"exempt": ["/**"]}}, "csrf.enabled=false"),
        ({"binding": {"address": "always"}}, "binding.address"),
    ],
    ids=str,
)
def test_faults_of_a_section_are_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(given, [mail()], environ={})
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["csrf", "cookies", "binding"])
def test_a_feature_is_not_called_as_a_section(name: str) -> None:
    with pytest.raises(ConfigurationError, match="rename it"):
        load({}, [replace(mail(), name=name)], environ={})
