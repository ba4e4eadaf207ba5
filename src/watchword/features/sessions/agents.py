"""A user agent in words that a person knows. What it says proves nothing, and is only shown."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["mobile", "tablet", "desktop", "other"]

# The first that is found counts: newer browsers name the older ones that they descend from.
_BROWSERS = (
    (("Edg/", "EdgA/", "EdgiOS/", "Edge/"), "Edge"),
    (("OPR/", "OPT/", "OPiOS/", "Opera"), "Opera"),
    (("SamsungBrowser/",), "Samsung Internet"),
    (("Vivaldi/",), "Vivaldi"),
    (("YaBrowser/",), "Yandex"),
    (("DuckDuckGo/", "Ddg/"), "DuckDuckGo"),
    (("Firefox/", "FxiOS/"), "Firefox"),
    (("Chrome/", "CriOS/", "Chromium/"), "Chrome"),
    (("Version/",), "Safari"),
    (("MSIE ", "Trident/"), "Internet Explorer"),
    (("curl/",), "curl"),
    (("PostmanRuntime/",), "Postman"),
)
_SYSTEMS: tuple[tuple[tuple[str, ...], str, Kind], ...] = (
    (("Windows Phone",), "Windows Phone", "mobile"),  # it names Android and iPhone too
    (("iPad",), "iPadOS", "tablet"),
    (("iPhone", "iPod"), "iOS", "mobile"),
    (("Android",), "Android", "mobile"),
    (("CrOS",), "ChromeOS", "desktop"),
    (("Windows",), "Windows", "desktop"),
    (("Macintosh", "Mac OS X"), "macOS", "desktop"),
    (("Linux", "X11"), "Linux", "desktop"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What a client says that it is. Fixed words, whatever it sent."""

    browser: str | None
    system: str | None
    type: Kind

    @property
    def spoken(self) -> str:
        """As a sentence names it: `Firefox on Linux`."""
        if self.browser and self.system:
            return f"{self.browser} on {self.system}"
        return self.browser or self.system or "an unknown device"


def agent_of(user_agent: str) -> Agent:
    """Read a User-Agent header. Anything at all may stand in it."""
    browser = next((word for marks, word in _BROWSERS if _has(user_agent, marks)), None)
    system: str | None = None
    kind: Kind = "other"
    for marks, word, type_ in _SYSTEMS:
        if _has(user_agent, marks):
            system, kind = word, type_
            break
    if system == "Android" and user_agent.startswith("Mozilla/") and "Mobile" not in user_agent:
        kind = "tablet"  # phones say Mobile
    return Agent(browser=browser, system=system, type=kind)


def _has(user_agent: str, marks: tuple[str, ...]) -> bool:
    return any(mark in user_agent for mark in marks)
