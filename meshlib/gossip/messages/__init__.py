"""What nodes say to each other, and how it is laid out in a frame.

frames.py       one packet: a header, messages, and the writer that accounts for each byte
kinds.py        every message type
dialects.py     the formats: how each lays out a header and every message
membership.py   probes, joins, news, conflicts
replication.py  entries, vectors, state transfers, volatile documents
offers.py       what the asker of a state transfer says it has, in one frame
fields.py       what a field of a message may be: how it is read, how it is written
"""
