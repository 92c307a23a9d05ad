"""Before torch loads: waiting OpenMP threads that spin make a busy machine crawl."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# No test asks the hub; where one is about the hub, it says so.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
