"""Clients, as processes of their own; only the standard library, so that they cost little.

    python -m benchmarks.client load URL SECONDS HEADERS
    python -m benchmarks.client posts URL SECONDS BODIES
    python -m benchmarks.client signers URL SECONDS CLIENTS BODIES CONTENT-TYPE
    python -m benchmarks.client probe URL SECONDS

Each prints one line, `RESULT` and JSON.
"""

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Generator
from urllib.parse import SplitResult, urlsplit

CONNECTIONS = 16
PAUSE = 0.02  # between two requests of the probe


Line = Generator[bytes, bytes, None]  # requests of one connection, told the body of each answer


def kept_busy(url: str, seconds: float, lines: list[Line]) -> dict[str, float]:
    """One connection a line, asking again as soon as it is answered."""
    parts = urlsplit(url)
    delays: list[float] = []
    refused = 0
    until = time.monotonic() + seconds

    async def one(line: Line) -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        request = next(line)
        while time.monotonic() < until:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            body = await reader.readexactly(int(length or b"0"))
            delays.append((time.perf_counter() - began) * 1e3)
            refused += head[9:10] in b"45"
            request = line.send(body)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def all_of_them() -> None:
        await asyncio.gather(*(one(line) for line in lines))

    began = time.monotonic()
    asyncio.run(all_of_them())
    delays.sort()
    return {
        "requests": len(delays),
        "seconds": time.monotonic() - began,
        "refused": refused,
        "broken": 0,
        "p50": delays[len(delays) // 2],
        "p99": delays[int(len(delays) * 0.99)],
    }


def load(url: str, seconds: float, headers: list[dict[str, str]]) -> dict[str, float]:
    """The generator that stands in for wrk: keep 16 connections busy."""
    parts = urlsplit(url)
    start = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    requests = itertools.cycle(
        (start + "".join(f"{n}: {v}\r\n" for n, v in each.items()) + "\r\n").encode("latin-1")
        for each in headers
    )

    def line() -> Line:
        while True:
            yield next(requests)

    return kept_busy(url, seconds, [line() for _ in range(CONNECTIONS)])


def posts(url: str, seconds: float, sent: list[dict[str, str]]) -> dict[str, object]:
    """Post a body a connection. Who gets another refresh token presents that one next.

    What is then to be sent, the next time, is `left`.
    """
    parts = urlsplit(url)
    left = list(itertools.islice(itertools.cycle(sent), CONNECTIONS))

    def line(number: int) -> Line:
        while True:
            kind, body = left[number]["type"], left[number]["body"]
            head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            answer = yield (head + body).encode("ascii")
            if '"refresh_token"' in body and b'"refresh_token"' in answer:
                token = json.loads(answer)["refresh_token"]
                left[number] = {"type": kind, "body": json.dumps({"refresh_token": token})}

    return {**kept_busy(url, seconds, [line(n) for n in range(CONNECTIONS)]), "left": left}


def signers(
    url: str, seconds: float, clients: int, bodies: list[str], content_type: str
) -> dict[str, object]:
    """Sign in again and again; when each sign-in was done, and how many were turned away."""
    parts = urlsplit(url)
    done: list[float] = []
    delays: list[float] = []
    statuses: dict[int, int] = {}
    unexplained = 0  # 503 without Retry-After
    until = time.monotonic() + seconds
    lock = threading.Lock()

    def one(number: int) -> None:
        nonlocal unexplained
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        turn = number
        while time.monotonic() < until:
            body = bodies[turn % len(bodies)]
            turn += clients
            began = time.monotonic()
            connection.request("POST", parts.path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            answer.read()
            ended = time.monotonic()
            with lock:
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
                if 200 <= answer.status < 300:
                    done.append(ended)
                    delays.append((ended - began) * 1e3)
                elif answer.status == 503 and not answer.getheader("Retry-After"):
                    unexplained += 1
            if answer.status >= 400:
                time.sleep(0.2)
        connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"done": sorted(done), "delays": delays, "statuses": statuses, "bare": unexplained}


def probe(url: str, seconds: float) -> dict[str, object]:
    """Ask for a plain route fifty times a second, whatever the last answer took.

    A delay counts from the moment the request was due, so that a stall is seen as often as it
    would be by people, and not once.
    """
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # what is measured is the server's delay, not that of this process
    parts: SplitResult = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    delays: list[float] = []
    began = time.monotonic()
    due = began
    while due < began + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        connection.sendall(request)
        answer = b""
        while b"}" not in answer:
            answer += connection.recv(65536)
        delays.append((time.monotonic() - due) * 1e3)
        due += PAUSE
    connection.close()
    return {"delays": delays}


def main(given: list[str]) -> None:
    """Be one of the clients."""
    found: object
    if given[0] == "load":
        found = load(given[1], float(given[2]), json.loads(given[3]))
    elif given[0] == "posts":
        found = posts(given[1], float(given[2]), json.loads(given[3]))
    elif given[0] == "signers":
        bodies = json.loads(given[4])
        found = signers(given[1], float(given[2]), int(given[3]), bodies, given[5])
    else:
        found = probe(given[1], float(given[2]))
    print("RESULT", json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
