"""The law kit: what a type must obey, tried on histories that hypothesis draws.

spec.py            CRDTSpec: what a user says about a type
suite.py           laws(spec): one test for each law
algebra.py, delivery.py, representation.py
the laws
foreign.py         bytes that no encoder wrote and a decoder may still take
trial.py           one try of one law, and the words when it does not hold
watching.py        tells when something changes a state that it was only given to read
shortening.py      makes a counterexample shorter, step by step
history.py         what a few replicas did, replayed from plain steps
strategies.py      hypothesis strategies for histories, states, deltas
machine.py         machine(spec): replicas on a bad network
profile.py         how long the kit looks
references.py      where another process finds a spec
processes.py       other processes, so that bytes are compared across PYTHONHASHSEED
"""
