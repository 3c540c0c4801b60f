"""Who is there: joining, leaving, probing, and the news of it.

roster.py            how membership news is applied and told
failure_detector.py  probes, indirect probes, suspicion
news.py              how news spreads
claims.py            who may have a name
dialler.py           whom a node dials without knowing whether anybody is there
"""
