"""What every room uses: files that are whole or not, a pool of processes, Ctrl-C, progress."""
