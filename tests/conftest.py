"""Before torch loads: waiting OpenMP threads that spin make a busy machine crawl."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
