"""Hashing as cheap as it gets, so that a test suite does not spend its day on argon2."""

from contextlib import ExitStack

from watchword.crypto.hashing import set_test_cost


def cheap_hashing() -> ExitStack:
    """Let Hashers made from now on hash at the test cost: argon2id t=1, 8 KiB; bcrypt 4 rounds.

    Works at once; used with `with`, it ends where the block does. Never for real passwords.
    """
    undo = ExitStack()
    undo.callback(set_test_cost, enabled=set_test_cost(enabled=True))
    return undo
