"""How often the checks are right and wrong: on generated pictures, and on real ones of every domain."""
