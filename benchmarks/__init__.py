"""Benchmarks: what this project costs beside what else there is. `python -m benchmarks --help`."""
