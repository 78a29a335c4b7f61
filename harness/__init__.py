"""A challenge benchmarking harness for full-reference image quality assessment."""
