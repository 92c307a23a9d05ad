"""How fast froster is, as ratios to ordinary ways of doing the same work. `python -m benchmarks`
lists the parts."""
