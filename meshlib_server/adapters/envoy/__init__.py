"""Envoy: its rate limit service and the endpoint picker, without a store. Extra `envoy`.

serving.py    the gRPC port: which services are there
bounds.py     how many calls are answered at one time
certificates.py  TLS on that port
health.py     gRPC health, of the node and of each service
ratelimit.py  `envoy.service.ratelimit.v3`: a request in, a status for each descriptor out
answering.py  what is told of them, and of a request that comes again with what changes filled in
counting.py   what is asked of the node's limits, and how a refused request burns nothing
picker.py     `envoy.service.ext_proc.v3`: the endpoint picker
exchange.py   one request of it and its response, message by message
choosing.py   which endpoints a request may go to, in order
protocol.py   the generated messages, by their names
rules.py      rule files in the format of envoyproxy/ratelimit
"""

from __future__ import annotations

from meshlib_server.adapters.envoy.rules import Rule, RuleBook, counter_key, load_rules
from meshlib_server.adapters.envoy.serving import EnvoyPlug, plug

__all__ = ["EnvoyPlug", "Rule", "RuleBook", "counter_key", "load_rules", "plug"]
