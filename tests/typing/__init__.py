"""Read by the type checker; run by pytest only to see that it imports."""
