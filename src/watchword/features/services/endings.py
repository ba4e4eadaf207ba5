"""What ends services."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="service_ended",
        what="a service is ended",
        sessions="none",
        refresh_tokens="none",
        services="this",
    ),
)
