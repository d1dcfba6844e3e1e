"""Speed and memory of the suite as JSON: `python -m benchmarks --help`; coverage of the intervals: `python -m benchmarks.coverage --help`."""
