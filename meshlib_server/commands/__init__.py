"""The commands of `meshlib-server`.

cli.py                  the command line: serve, demo, simulate, and those that ask a node
remote.py, tables.py, printing.py
what is asked of a node that runs, and how its answers are shown
demo.py, processes.py   three nodes as three processes, walked through what they do
nats.py                 a nats-server for that demonstration
plan.py                 what a cluster will take
simulate.py, screen.py, charts.py
                        a cluster under faults, and how a person sees it
simulate_routing.py     routing policies on a trace
"""
