"""What several tests share: clusters, networks, clocks and bugs, each in a module of its own.

Fixtures stay in the `conftest.py` files and are made of what is here, so that a test can name
the type of each. `tests` is on the path of pytest and of mypy: `from support.world import World`.
"""
