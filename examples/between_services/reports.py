"""The one that is called: figures for services, a page for people."""

from fastapi import FastAPI

from watchword import CurrentPrincipal, CurrentUser, Watchword, requires

ISSUER = "http://localhost:8000"  # one address for both: they are of one pool

auth = Watchword("sqlite:///pool.db", public_url=ISSUER, client_id="reports", audience="reports")
app = FastAPI()
auth.install(app)


@app.get("/figures", dependencies=[requires(accepts=("service",), scope="figures:read")])
async def figures(principal: CurrentPrincipal) -> dict[str, object]:
    """Only a service that was granted `figures:read` here."""
    return {"for": principal.id, "figures": [3, 1, 4]}


@app.get("/mine")
async def mine(user: CurrentUser) -> str:
    """Only people: a route takes services where it says so, and nowhere else."""
    return user.email
