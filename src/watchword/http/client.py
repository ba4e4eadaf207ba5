"""What a request says of the device behind it."""

from starlette.requests import Request

from watchword.kernel.principal import Client

MAX_USER_AGENT = 256  # letters kept


def client_of(request: Request) -> Client:
    """Read the peer's address and what it calls itself."""
    agent = request.headers.get("user-agent", "")[:MAX_USER_AGENT]
    printable = "".join(letter if letter.isprintable() else "\ufffd" for letter in agent)
    return Client(address=request.client.host if request.client else None, user_agent=printable)
