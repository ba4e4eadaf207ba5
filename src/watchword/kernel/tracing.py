"""Spans for OpenTelemetry, where the app that runs us has set it up; never with a secret."""

import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from watchword.kernel.errors import WatchwordError

_NAME: Final = "watchword"
_NOTHING: Final = nullcontext()


class Tracing:
    """Begins the spans of one App.

    Costs next to nothing until a tracer provider is set: OpenTelemetry is looked for among what
    is imported already, for nobody sets one up without importing it. What goes in is a closed
    list: names and numbers that the code knows, never what a person sent. Of an error its class
    and our code, never its words, which may quote an address.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._made: tuple[Any, Any] = (None, None)  # a provider, and its tracer

    def span(self, name: str, **attributes: str | int | bool) -> AbstractContextManager[Any]:
        """A span `watchword.<name>` around a block.

        Args:
            name: one that the code knows.
            attributes: the same; each gets `watchword.` before it.
        """
        tracer = self._tracer() if self._enabled else None
        if tracer is None:
            return _NOTHING
        return _spanning(
            tracer,
            f"{_NAME}.{name}",
            {f"{_NAME}.{key}": value for key, value in attributes.items()},
        )

    @property
    def is_heard(self) -> bool:
        """Does anybody want spans?"""
        return self._enabled and self._tracer() is not None

    def _tracer(self) -> Any:
        trace = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return None
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            return None  # nobody set one
        known, tracer = self._made
        if known is not provider:
            tracer = provider.get_tracer(_NAME)
            self._made = (provider, tracer)
        return tracer


OFF: Final = Tracing(enabled=False)
"""For what is made outside an App."""


@contextmanager
def _spanning(tracer: Any, name: str, attributes: dict[str, str | int | bool]) -> Generator[Any]:
    # What OpenTelemetry would write of an exception by itself holds its words.
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            code = error.code if isinstance(error, WatchwordError) else type(error).__name__
            span.set_attribute("error.type", code)
            raise
