"""Who is there: joining, leaving, probing, and the news of it.

roster.py            how membership news is applied and told
admission.py         who is let in, and how this node gets in
own_record.py        what this node says of itself
failure_detector.py  probes, indirect probes, suspicion
news.py              how news spreads
claims.py            who may have a name
dialler.py           whom a node dials without knowing whether anybody is there
links.py             addresses that could not be reached
"""
