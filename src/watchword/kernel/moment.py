"""What this task is in the middle of."""

from contextvars import ContextVar

transaction_open: ContextVar[bool] = ContextVar("watchword_transaction_open", default=False)
"""True while this task holds a transaction: hashing and mail refuse to run then (I-04)."""


def refuse_in_transaction(what: str) -> None:
    """Stop a mistake of ours at its first run: slow work never holds a transaction open.

    Raises:
        RuntimeError: a transaction is open in this task.
    """
    if transaction_open.get():
        raise RuntimeError(f"{what} while a transaction is open")
