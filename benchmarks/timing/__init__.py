"""What the benchmark suite `benchmarks/speed.py` times, a file for each part of it."""
