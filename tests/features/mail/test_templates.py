"""What a mail says: escaped, on its lines, in the reader's language where there is one."""

from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from watchword.features.mail import templates
from watchword.features.mail.templates import Templates, plain_locale
from watchword.kernel.ports import ComposedMail

LINK = "https://app.example/verify?token=abc&then=/"


def letter(package: str, **context: object) -> ComposedMail:
    return ComposedMail(
        recipient="ada@example.org",
        template="letter",
        package=package,
        context={"name": "Ada", "link": LINK, **context},
    )


def test_subject_text_and_html_are_filled(package: str) -> None:
    made = Templates().render(letter(package), locale="en")
    assert made.subject == "A letter for Ada"
    assert made.text == f"Dear Ada,\n\nopen {LINK}\n"
    assert '<html lang="en">' in made.html
    assert "<title>A letter for Ada</title>" in made.html
    assert "token=abc&amp;then=/" in made.html


@pytest.mark.standard("CVE 33")
def test_markup_in_a_name_is_escaped_in_html(package: str) -> None:
    name = '<a href="https://evil.example">x</a>'
    made = Templates().render(letter(package, name=name), locale="en")
    assert "<a href=&#34;" not in made.text
    assert name in made.text
    assert name not in made.html
    assert "&lt;a href=" in made.html


@pytest.mark.standard("CVE 33")
def test_a_name_cannot_add_lines_or_headers(package: str) -> None:
    made = Templates().render(
        letter(package, name="Ada\r\nBcc: eve@x.example\n\nhttps://evil.example\x1b[2J"),
        locale="en",
    )
    assert made.subject == "A letter for Ada Bcc: eve@x.example https://evil.example [2J"
    assert len(made.text.splitlines()) == 3
    assert "\x1b" not in made.text


def test_a_missing_value_is_an_error_and_not_a_gap(package: str) -> None:
    mail = replace(letter(package), context={"name": "Ada"})
    with pytest.raises(UndefinedError):
        Templates().render(mail, locale="en")


def test_a_missing_template_is_an_error(package: str) -> None:
    with pytest.raises(TemplateNotFound):
        Templates().render(replace(letter(package), template="none"), locale="en")


@pytest.mark.parametrize("locale", ["de", "de-AT", "de_CH", "DE"])
def test_the_readers_language_goes_first_where_it_exists(package: str, locale: str) -> None:
    made = Templates().render(letter(package), locale=plain_locale(locale))
    assert made.text.startswith("Liebe Ada")
    assert made.subject == "A letter for Ada", "there is no German one"


@pytest.mark.parametrize("locale", ["", "../../etc", "x", "de/../../x", "e\u0000n", "a" * 99])
def test_what_is_no_locale_is_english(package: str, locale: str) -> None:
    assert plain_locale(locale) == "en"
    assert Templates().render(letter(package), locale=locale).text.startswith("Dear Ada")


def test_the_layout_asks_the_network_for_nothing() -> None:
    page = Path(templates.__file__).parent / "pages" / "layout.html"
    html = page.read_text("utf-8")
    for outside in ("http:", "https:", "//", "url(", "@import", "<script", "<img", "<link"):
        assert outside not in html
    assert "prefers-color-scheme: dark" in html
