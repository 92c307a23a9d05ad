"""A procedural world, rendered on the spot: things that do something somewhere, and a nano CLIP that knows them."""
