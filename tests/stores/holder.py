"""A process that wants a lease: says at first whether it has it, then when it changes.

`python -m tests.stores.holder URL SECONDS`: it must be killed to let go.
"""

import asyncio
import sys
from datetime import timedelta

from tests.stores.opened import store_of
from watchword.kernel.clock import SystemClock
from watchword.starting import driver_of
from watchword.storage.leases import Lease, Leases


async def main() -> None:
    """Tell, once, and once more when the first holder is gone."""
    driver = driver_of(sys.argv[1])
    await driver.open((Lease,))
    leases = Leases(store=store_of(driver), clock=SystemClock())
    lives = timedelta(seconds=float(sys.argv[2]))
    first = await leases.hold("work", lives=lives)
    print("won" if first else "lost", flush=True)
    lease = await leases.store.get(Lease, name="work")
    assert lease is not None
    while True:
        ours = await leases.hold("work", lives=lives)
        now = await leases.store.get(Lease, name="work")
        if now is not None and now.holder != lease.holder:
            print("won" if ours else "lost", flush=True)
            lease = now
        await asyncio.sleep(0.05)


asyncio.run(main())
