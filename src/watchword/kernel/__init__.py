"""What the rest is built on: values, rules and names, and no input or output."""
