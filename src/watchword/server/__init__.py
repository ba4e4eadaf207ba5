"""`watchword serve`: Watchword as a server of its own."""
