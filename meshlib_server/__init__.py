"""meshlib behind a documented HTTP API.

serving.py     one process, one node: start, run, leave, end
app.py         the ASGI application, put together as data
routes/        the endpoints
resources.py   one path, and what each method does there
service.py     what the endpoints work on
bodies.py, structure.py
what comes in with a request, read strictly
problems.py    errors as answers
http/          uvicorn's connections, with bounds
access/        TLS, foreign pages, and files that change
auth.py        who may call
transports/    what carries frames: WebSockets on the port of the API, or NATS
addresses.py   where a node listens, and what it tells its peers to dial
companions.py  what runs beside a node
plugs/         what is started beside HTTP when a setting asks for it
adapters/      plugs for routers that people run already, each with an extra of its own
config.py      settings: file, environment, flags
logs.py        one line for each thing, as JSON or as text
lag.py         how long the event loop is held, and by the garbage collector no longer than it may
describing/    what the API is, said once; the OpenAPI document
dashboard/     what a node shows to somebody who looks on
middleware/    rate limits in front of an application of one's own
client/        a client of the API, for programs and for the command line
metrics/       what a process counts, as Prometheus reads it
tracing.py     a span for each request, for who traces
planning/      what a cluster will take, from what was measured
commands/      serve, demo, simulate, plan
"""
