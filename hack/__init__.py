"""What the demo, the tests and the benchmarks stand on: real systems, on loopback only."""
