"""The datasets that `expo-bench data fetch` gets by name: from Minari's server, through the `minari` package's own downloader."""

from __future__ import annotations
def local(n): return None
