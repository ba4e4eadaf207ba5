"""What is compared: small apps with one route, GET /hello, that answers the same body.

Each module has `prepared(variant, data=…, database=…)`: the app, and what to send. For GET that
is headers, one set or several that take turns; for POST one `{"type": …, "body": …}` a connection.
"""

import json
from typing import Any

CONNECTIONS = 16


def posted(**fields: Any) -> dict[str, str]:
    """A JSON body to send."""
    return {"type": "application/json", "body": json.dumps(fields)}
