"""One file or stream to frames."""
