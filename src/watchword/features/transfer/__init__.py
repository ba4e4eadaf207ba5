"""Users come in from other systems, with the hashes of their passwords, and leave again."""

from typing import Any, Unpack

from watchword.features.passwords import Passwords
from watchword.features.transfer.arrivals import (
    FIELDS,
    PRESETS,
    TABLES,
    FirebaseParameters,
    Origin,
    Reading,
    looks_plain,
)
from watchword.features.transfer.departures import as_csv, as_json, columns_of
from watchword.features.transfer.files import CsvFile, FirebaseExport, JsonLines
from watchword.features.transfer.rows import Place, Row, Source, Unreadable
from watchword.features.transfer.service import Refusal, Step, Tally, Transfer
from watchword.features.transfer.settings import TransferOptions, TransferSettings
from watchword.features.users import Users
from watchword.kernel.feature import Feature

__all__ = [
    "FIELDS",
    "PRESETS",
    "TABLES",
    "CsvFile",
    "FirebaseExport",
    "FirebaseParameters",
    "JsonLines",
    "Origin",
    "Place",
    "Reading",
    "Refusal",
    "Row",
    "Source",
    "Step",
    "Tally",
    "Transfer",
    "Unreadable",
    "as_csv",
    "as_json",
    "columns_of",
    "looks_plain",
    "transfer",
]


def transfer(**options: Unpack[TransferOptions]) -> Feature[Transfer]:
    """The feature of import and export; it has no routes."""

    def service(wiring: Any) -> Transfer:
        return Transfer(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            users=wiring.get(Users),
            passwords=wiring.get(Passwords),
        )

    return Feature(
        name="transfer",
        needs=("users", "passwords"),
        service=service,
        settings=TransferSettings,
        given=dict(options),
    )
