"""Frames over NATS, where one network is outgrown; needs the extra `nats`.

subjects.py   the subjects of a cluster: an inbox for each node
settings.py   what is set, and what the messages of a link are
carrier.py    the connection to NATS itself, which is kept
dialling.py   the sending side of a link
accepting.py  the receiving side of all links
transport.py  all of it: NatsTransport
"""

from meshlib.aio.nats.settings import NatsConfig, NatsCredentials
from meshlib.aio.nats.transport import NatsTransport

__all__ = ["NatsConfig", "NatsCredentials", "NatsTransport"]
