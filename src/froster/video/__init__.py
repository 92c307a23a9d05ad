"""Files to frames: reading, sampling, resizing, datasets."""
