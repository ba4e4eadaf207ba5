"""Tokens that name the phone they were made for, and a route that compares the name with a header.

Run it: watchword dev app:app. The README says what this shows, and what it does not.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field

from watchword import CurrentClaims, User, Watchword, requires
from watchword.features.sessions import Session


class Phone(BaseModel):
    """What a phone says of itself once it is signed in."""

    device_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{8,64}$")]
    device_type: Literal["ios", "android"]


def install(app: FastAPI, auth: Watchword) -> None:
    """Put the claims into tokens, and the routes into the app."""
    phones: dict[str, Phone] = {}  # by session; a table of yours, where there are two workers

    @auth.tokens.claims
    async def name_the_phone(_: User, session: Session) -> Mapping[str, object]:
        phone = phones.get(session.id)
        if phone is None:
            return {"permissions": ["read:data"]}
        return {"permissions": ["read:data", "write:data"], **phone.model_dump()}

    @app.put("/phone", status_code=204)
    async def tell(phone: Phone, claims: CurrentClaims) -> None:
        """The next token of this session names the phone: refresh now. It is said only once."""
        if phones.setdefault(claims["sid"], phone) != phone:
            raise HTTPException(409, "this session has a phone")

    def same_phone(
        claims: CurrentClaims, device_id: Annotated[str | None, Header()] = None
    ) -> None:
        if device_id is None or claims.get("device_id") != device_id:
            raise HTTPException(401, "Device mismatch detected")

    def may_write(claims: Mapping[str, Any]) -> bool:
        return "write:data" in claims.get("permissions", ())

    @app.get("/notes", dependencies=[Depends(same_phone)])
    async def notes(claims: CurrentClaims) -> str:
        return f"the notes of a phone with {claims['device_type']}"

    @app.post("/notes", dependencies=[requires(claims=may_write), Depends(same_phone)])
    async def write() -> str:
        return "written"


app = FastAPI()
auth = Watchword("sqlite:///phones.db", audience="mobile-app")
auth.install(app)
install(app, auth)
