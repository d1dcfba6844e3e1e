"""Speed and memory of the suite as JSON: `python -m benchmarks --help`."""
