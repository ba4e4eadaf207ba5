"""`python -m benchmarks COMMAND`: each command is a module with a `main` of its own."""

import sys
from importlib import import_module

COMMANDS = {
    "http": ("web", "requests/s and CPU a request, beside FastAPI alone and beside peers"),
    "lookup": ("lookup", "CPU of a look-up in the store, and of a miss of the gate's cache"),
    "signin": ("signin", "sign-ins/s beside raw argon2, and the delay of a plain route meanwhile"),
    "revocation": ("revocation", "how long an ended session is believed elsewhere, by store"),
    "growth": ("growth", "what the same work costs with 10^3 and with 10^6 people, and plans"),
    "headers": ("headers", "CPU of what stands around an app, beside FastAPI alone"),
    "limits": ("limits", "CPU that a limit adds to a route, and round trips with Redis"),
    "import": ("imports", "import time beside FastAPI's"),
    "passwords": ("passwords", "CPU and memory of the password policy"),
    "jose": ("jose", "CPU of verifying a token, by library"),
}


def main(arguments: list[str]) -> None:
    """Run one command, or say which there are."""
    if not arguments or arguments[0] not in COMMANDS:
        print("usage: python -m benchmarks COMMAND [--help]\n")
        for name, (_, purpose) in COMMANDS.items():
            print(f"  {name:10} {purpose}")
        raise SystemExit(0 if arguments[:1] in ([], ["--help"], ["-h"]) else 2)
    import_module(f"benchmarks.{COMMANDS[arguments[0]][0]}").main(arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
