"""From a template and its values to subject, text and HTML."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from watchword.kernel.ports import ComposedMail

if TYPE_CHECKING:
    from jinja2 import Environment

_LOCALE = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,8}){0,3}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_PAGES = "pages"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a mail says. Holds links: never shown as text."""

    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)


def plain_locale(locale: str) -> str:
    """The locale in lower case, or `en` for what is none: it becomes part of a file's name."""
    lowered = locale.lower().replace("_", "-")
    return lowered if _LOCALE.fullmatch(lowered) else "en"


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates of all slices, loaded when first used."""

    _environments: dict[str, "Environment"] = field(default_factory=dict[str, "Environment"])

    def render(
        self, mail: ComposedMail, *, locale: str, common: Mapping[str, object] | None = None
    ) -> Rendered:
        """Fill `<template>.subject.txt`, `.txt` and `.html` of the slice's `pages`.

        `<template>.<locale>.…` goes first where it exists. In HTML every value is escaped, in
        all of them it stays on its line; a name that has no value is an error, not a gap. The
        templates also see `locale` and, but for the subject's own, `subject`.
        """
        values: dict[str, object] = {"locale": locale, **(common or {}), **mail.context}
        subject = self._fill(mail, ".subject.txt", locale, values)
        values = {"subject": " ".join(subject.split()), **values}
        return Rendered(
            subject=" ".join(_CONTROL.sub(" ", subject).split()),
            text=self._fill(mail, ".txt", locale, values),
            html=self._fill(mail, ".html", locale, values),
        )

    def _fill(
        self, mail: ComposedMail, ending: str, locale: str, values: Mapping[str, object]
    ) -> str:
        names = [f"{mail.template}.{tag}{ending}" for tag in _narrowing(locale)]
        environment = self._environment(mail.package)
        return environment.select_template([*names, f"{mail.template}{ending}"]).render(values)

    def _environment(self, package: str) -> "Environment":
        made = self._environments.get(package)
        if made is None:
            made = self._environments[package] = _environment_of(package)
        return made


def _narrowing(locale: str) -> list[str]:
    """`de-at` becomes `de-at`, `de`."""
    parts = plain_locale(locale).split("-")
    return ["-".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _environment_of(package: str) -> "Environment":
    from jinja2 import (  # noqa: PLC0415  a process that sends no mail need not pay for it
        ChoiceLoader,
        Environment,
        PackageLoader,
        PrefixLoader,
        StrictUndefined,
        select_autoescape,
    )

    return Environment(
        loader=ChoiceLoader(
            [
                PackageLoader(package, _PAGES),
                PrefixLoader({"mail": PackageLoader(__package__ or "", _PAGES)}),
            ]
        ),
        autoescape=select_autoescape(enabled_extensions=("html",), default=False),
        undefined=StrictUndefined,
        finalize=_on_one_line,
        keep_trailing_newline=True,
        auto_reload=False,
    )


def _on_one_line(value: object) -> object:
    """A value cannot add lines of its own to a mail, such as a name that holds a link below it.

    Markup comes from blocks and macros of the templates themselves and keeps its lines.
    """
    return _CONTROL.sub(" ", value) if type(value) is str else value
