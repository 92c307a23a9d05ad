"""A model in use: it classifies, finds times, indexes and searches, and is exported."""
