"""The checks of `python -m operate doctor`: each reads an environment's account and yields findings."""
