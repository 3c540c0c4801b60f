"""Whole clusters in one thread under a virtual clock.

simulation.py          one run of one scenario
scripted.py            scenarios with just the faults that somebody asks for
requests.py            scenarios as a command line asks for them
incidents.py           how each kind of incident happens, and ends
rolls.py               restarts in turn, and what they must not lose
workload.py            what the users of the cluster do
slot_use.py            requests that want slots
prompt_use.py          prompts placed in a tree that is full
runs.py, campaign.py   one run, many runs
minimiser.py           makes a failing scenario smaller
outcome.py, spread.py  what came of a run
"""
