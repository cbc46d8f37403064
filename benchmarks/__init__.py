"""What the figures in docs/performance.md come from. Each prints ratios against a reference in the same run."""
