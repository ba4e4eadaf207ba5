"""What Watchword promises, as tests."""
