"""Our tasks beside the environments that they are ports of: `python -m benchmarks.parity` (see `__main__`)."""
