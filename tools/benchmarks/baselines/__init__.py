"""The straightforward methods that the benchmarks compare with."""
