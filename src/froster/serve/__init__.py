"""The web server: an HTTP API around recognizers, and a page that uses it. Needs
froster-video[web].

A request goes guard -> app -> upload -> limits -> jobs -> models, and nothing that a client sends
is taken for a path.
"""

from pathlib import Path

STATIC = Path(__file__).parent / "static"
"""The pages with their style and scripts."""
