"""Imported by the server that forks reading processes, and by nobody else: one that dies says
nothing, as another is started.

Where the system refuses a fork, the server ends with an error of its own, which whoever asked for
the process sees as well.
"""

import sys

sys.excepthook = lambda kind, error, trace: None
