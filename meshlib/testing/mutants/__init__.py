"""Broken variants of a type, by which a specification shows that it has teeth.

variants.py   mutants(spec)
general.py    the bugs that many types can have
changes.py    ways to break a spec
replaying.py  what another process runs, so that it finds mutants too
"""
