"""Hashing, keys, sealing and signatures: what must be right to be worth anything."""
