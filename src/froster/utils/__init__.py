"""What every room uses: files that are whole or not there, a pool of processes, Ctrl-C, progress."""
