"""Lattices made of lattices: products, pairs, records.

product.py      componentwise join and everything that follows from it
pairs.py        Pair, Lexicographic
record.py       @lattice: a class whose fields are lattices
annotations.py  which class an annotation such as `ORMap[str, ORSet[str]]` means
"""
