"""Redis, for records that may live outside the database: sessions, counters, challenges."""

from watchword.stores.redis.driver import RedisDriver, driver
from watchword.stores.redis.waker import RedisWaker, waker

__all__ = ["RedisDriver", "RedisWaker", "driver", "waker"]
