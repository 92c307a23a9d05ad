"""Many files: which label each has, how they are split, whether they are sound."""
