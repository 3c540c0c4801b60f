"""Whole states from node to node: digests find what differs, pages carry it.

digests.py   short answers to "do we have the same", of content and of parts of documents
pages.py     the pages of a transfer, as they are made and read
paging.py    cutting a state into pieces whose bytes fit
arrivals.py  transfers that come in, gathered aside and joined with the vector at their end
"""
