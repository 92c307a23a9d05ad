"""A rendered world of short videos, and the nano encoder that knows its still images."""
