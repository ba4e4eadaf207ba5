"""What the doctor looks at, and what it says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from watchword.kernel.settings import CoreSettings, Settings
from watchword.sources import Setting

Grade = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that is set, wherever it came from, and how it is run."""

    core: CoreSettings
    sections: Mapping[str, Settings]  # of the features that are installed, and of the core
    report: tuple[Setting, ...]
    public_url: str
    workers: int = 1
    keeps_secret: bool = False  # the secret is made and kept by `watchword serve`
    sends_mail: bool | None = None  # does a sender of the app's own? None: the settings say
    roots: tuple[str, ...] = ()  # folders whose modules are the app's own

    @property
    def is_production(self) -> bool:
        """Is it?"""
        return self.core.environment == "production"

    def of(self, section: str, name: str, default: Any = None) -> Any:
        """A setting of a feature or section; the default where there is none."""
        return getattr(self.sections.get(section), name, default)

    def has(self, section: str) -> bool:
        """Is this feature installed?"""
        return section in self.sections

    def is_on(self, feature: str) -> bool:
        """Is this feature installed, and not switched off?"""
        return self.has(feature) and bool(self.of(feature, "enabled", default=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was looked at."""

    check: str
    grade: Grade
    found: str  # what is, in a few words
    why: str = ""  # what could come of it
    setting: str | None = None  # the one to change: `tokens.access_ttl`
    remedy: str = ""  # what to set it to
    rows: tuple[str, ...] = ()  # of which checklists and standards


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check says of one configuration."""

    grade: Grade
    found: str
    why: str = ""
    setting: str | None = None
    remedy: str = ""


Judge = Callable[[Configuration], Finding | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that is looked at. `judge` says nothing where it has no bearing."""

    name: str
    rows: tuple[str, ...]
    settings: tuple[str, ...]  # what it looks at; faults of these are its faults
    judge: Judge

    def line(self, configuration: Configuration) -> Line | None:
        """What it says."""
        finding = self.judge(configuration)
        if finding is None:
            return None
        return Line(
            check=self.name,
            grade=finding.grade,
            found=finding.found,
            why=finding.why,
            setting=finding.setting,
            remedy=finding.remedy,
            rows=self.rows,
        )


def ok(found: str) -> Finding:
    """Nothing to do."""
    return Finding(grade="ok", found=found)


def warn(found: str, *, why: str, setting: str, remedy: str) -> Finding:
    """Worth a look: there may be a reason for it."""
    return Finding(grade="warn", found=found, why=why, setting=setting, remedy=remedy)


def fail(found: str, *, why: str, setting: str, remedy: str) -> Finding:
    """Not to be left so."""
    return Finding(grade="fail", found=found, why=why, setting=setting, remedy=remedy)
