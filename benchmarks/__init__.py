"""Speed and memory of the suite as JSON: `python -m benchmarks --help`; the bars they are held to: `python -m benchmarks.bars --help`; coverage of the
intervals: `python -m benchmarks.coverage --help`."""
