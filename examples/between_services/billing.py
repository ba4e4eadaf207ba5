"""The one that calls: asks `reports` with a token of its own."""

import os

import httpx
from fastapi import FastAPI

from watchword import Watchword

ISSUER = "http://localhost:8000"
REPORTS = os.environ.get("REPORTS", "http://localhost:8001")

auth = Watchword("sqlite:///pool.db", public_url=ISSUER, client_id="billing", audience="billing")
app = FastAPI()
auth.install(app)


@app.get("/total")
async def total() -> dict[str, object]:
    """The sum of what `reports` says."""
    token = await auth.services.token("billing", audience="reports")
    async with httpx.AsyncClient(base_url=REPORTS) as client:
        answer = await client.get("/figures", headers={"Authorization": f"Bearer {token}"})
    answer.raise_for_status()
    said = answer.json()
    return {"as": said["for"], "total": sum(said["figures"])}
