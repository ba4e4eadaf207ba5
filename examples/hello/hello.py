from fastapi import FastAPI
from watchword import CurrentUser, Watchword

auth = Watchword("sqlite:///app.db")
app = FastAPI()
auth.install(app)

@app.get("/hello")
async def hello(user: CurrentUser) -> str:
    return user.email
