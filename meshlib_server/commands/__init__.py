"""The commands of `meshlib-server`.

cli.py                  the command line: serve, demo, simulate
demo.py, processes.py   three nodes as three processes, walked through what they do
simulate.py, screen.py, charts.py
                        a cluster under faults, and how a person sees it
simulate_routing.py     routing policies on a trace
"""
