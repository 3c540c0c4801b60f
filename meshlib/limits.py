"""Every bound of the package, with its unit and its reason.

Crossing one is a `LimitError` for the caller or a `LimitExceeded` for a peer; nothing is ever
truncated. A number that bounds something from outside must live in this file.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACCEPTED_CONNECTIONS_MAX",
    "ACTORS_MAX",
    "ADDRESS_BYTES_MAX",
    "BLOCKS_MAX",
    "CHANGES_MAX",
    "CLOUD_DOTS_MAX",
    "CLUSTER_NAME_BYTES_MAX",
    "DECODED_TOKENS_MAX",
    "DECODE_DEPTH_MAX",
    "DOCUMENTS_MAX",
    "DOCUMENT_CHANGES_MAX",
    "DOCUMENT_NAME_BYTES_MAX",
    "ENTRY_BYTES_MAX",
    "EVENTS_QUEUED_MAX",
    "FORMATS",
    "FORMAT_MAX",
    "FORMAT_NEWEST",
    "FRAME_BYTES_MAX",
    "FRAME_CLOSED_BYTES",
    "GAP_BUFFER_BYTES_MAX",
    "HELLO_BYTES_MAX",
    "HOLES_MAX",
    "HTTP_HEADERS_MAX",
    "HTTP_HEAD_BYTES_MAX",
    "HTTP_LINGER_BYTES_MAX",
    "HTTP_LINGER_S_MAX",
    "HTTP_REQUEST_BYTES_MAX",
    "INBOX_BYTES_MAX",
    "JSON_BODY_BYTES_MAX",
    "KEY_BYTES_MAX",
    "LIMITS_PER_RULE_MAX",
    "LIMIT_PERIOD_S_MAX",
    "LIMIT_RULES_MAX",
    "LOAD_ROWS_PER_MESSAGE_MAX",
    "LOG_BYTES_MAX",
    "LOG_LINES_QUEUED_BYTES_MAX",
    "MEMBERS_MAX",
    "NODE_NAME_BYTES_MAX",
    "PEER_QUEUE_BYTES_MAX",
    "PREFILL_TOKENS_MAX",
    "PREFIX_HELD_FACTOR",
    "RATE_CEILINGS_MAX",
    "RATE_COSTS_MAX",
    "RATE_KEYS_AT_ONCE_MAX",
    "RATE_KEYS_MAX",
    "RATE_KEYS_PER_MESSAGE_MAX",
    "RATE_KEY_BYTES_MAX",
    "RATE_PENDING_MAX",
    "RATE_RESERVATIONS_MAX",
    "RATE_WAITING_MAX",
    "RENEWALS_PER_MESSAGE_MAX",
    "REQUESTS_IN_FLIGHT_MAX",
    "SLOTS_MAX",
    "SLOT_LEASES_MAX",
    "SUBSCRIPTION_QUEUE_MAX",
    "TENANTS_MAX",
    "TEXT_CHARACTERS_MAX",
    "TRANSFER_PAGE_BYTES_MAX",
    "TRANSFER_WINDOW_BYTES_MAX",
    "TREE_CHARACTERS_MAX",
    "TREE_OPERATIONS_MAX",
    "VALUE_BYTES_MAX",
    "VIRTUAL_NODES_MAX",
    "WINDOWS_MAX",
    "WORKER_TTL_S_MAX",
    "WORKER_TTL_S_MIN",
    "WRITES_MAX",
]

KIB: Final = 1024
MIB: Final = 1024 * KIB

FORMAT_NEWEST: Final = 3
"""The newest format of frames and pages that this release writes, and reads."""

FORMATS: Final = (3, FORMAT_NEWEST)
"""The oldest and the newest format that this release speaks: the one before it, once there is one.

Formats 1 and 2 said nothing of what else their sender speaks; nobody speaks them any more."""

FORMAT_MAX: Final = 63
"""A format is six bits of a frame; a node speaks at most two, and says so in the other two."""

FRAME_BYTES_MAX: Final = 1 * MIB
"""One frame between peers. memberlist allows 20 MiB, gRPC 4 MiB; ours pages what is larger."""

FRAME_CLOSED_BYTES: Final = 8 * KIB
"""A frame of several messages is closed at this size: it is taken in one step, and so many bytes
of short texts take 10 ms."""

TRANSFER_PAGE_BYTES_MAX: Final = 256 * KIB
"""One page of a state transfer: small enough that probes are not held up behind it."""

TRANSFER_WINDOW_BYTES_MAX: Final = 2 * MIB
"""Pages of one transfer that are on their way: some 200 Mbit/s over 80 ms, and a quarter of what
may wait for one peer. A slow link gets less, see `gossip/entries/state_transfer.py`."""

ENTRY_BYTES_MAX: Final = 512 * KIB
"""The delta of one log entry: one value at its limit, and a group of small ones, fit a frame."""

HOLES_MAX: Final = 1024
"""Beginnings of texts that one entry leaves out, because its readers know them."""

KEY_BYTES_MAX: Final = 1 * KIB
"""One key or element, in its canonical bytes. etcd and Consul keys are far below this."""

VALUE_BYTES_MAX: Final = 256 * KIB
"""One value, in its canonical bytes. etcd allows 1.5 MiB, Consul 512 KiB, serf 512 B."""

NODE_NAME_BYTES_MAX: Final = 255
"""A node's name, in UTF-8: a DNS name fits."""

ADDRESS_BYTES_MAX: Final = 512
"""A node's address: a DNS name of 253 characters, or an IPv6 literal with a zone, and a port."""

CLUSTER_NAME_BYTES_MAX: Final = 255
"""The cluster's name, in UTF-8."""

DOCUMENT_NAME_BYTES_MAX: Final = 1 * KIB + 64
"""A document's name, in UTF-8: a key at its limit behind a prefix such as `tree:`."""

DECODE_DEPTH_MAX: Final = 32
"""Nesting of a decoded value: deeper ones are refused before they are walked."""

MEMBERS_MAX: Final = 4096
"""Nodes of one cluster that a node keeps, Down ones included."""

ACTORS_MAX: Final = 65_536
"""Writers in one version vector: every start of every node is one until it is forgotten."""

WRITES_MAX: Final = (1 << 48) - 1
"""Writes of one start of a node: a million a second for nine years. A number above it is damage,
and believing it would make every later write of that node look like an old one."""

DOCUMENTS_MAX: Final = 65_536
"""Documents of one replica."""

CLOUD_DOTS_MAX: Final = 65_536
"""Dots above a gap in one causal context; a peer that sends more is asked for its state."""

LOG_BYTES_MAX: Final = 32 * MIB
"""The replication log; what a peer misses beyond it comes as a state transfer."""

GAP_BUFFER_BYTES_MAX: Final = 8 * MIB
"""Entries held back behind a gap or a clock that is ahead; the rest is asked for again."""

PEER_QUEUE_BYTES_MAX: Final = 8 * MIB
"""What waits for one peer's link; beyond it frames are dropped, counted, and repaired later."""

INBOX_BYTES_MAX: Final = 8 * MIB
"""Frames received and not handled yet; beyond it a node stops reading its connections."""

HELLO_BYTES_MAX: Final = 1 * KIB
"""The first frame of a connection, which carries a token: nobody unknown may fill a buffer."""

ACCEPTED_CONNECTIONS_MAX: Final = 4_608
"""Connections that one listener holds: each member at its limit, and an eighth to spare."""

EVENTS_QUEUED_MAX: Final = 65_536
"""Events that nobody has drained yet; the oldest is dropped and counted beyond it."""

DOCUMENT_CHANGES_MAX: Final = 256
"""Deltas of a document that one reader has not taken; beyond it, it reads the whole state anew."""

SUBSCRIPTION_QUEUE_MAX: Final = 65_536
"""Changes that one subscriber has not read yet; it is told how many it missed beyond it."""

WORKER_TTL_S_MIN: Final = 1.0
"""The shortest lease of a worker, in seconds: below it one lost frame would end it."""

WORKER_TTL_S_MAX: Final = 86_400.0
"""The longest lease of a worker, in seconds."""

RENEWALS_PER_MESSAGE_MAX: Final = 256
"""Workers in one message of renewals: with ids at their limit it stays within half a frame."""

LOAD_ROWS_PER_MESSAGE_MAX: Final = 256
"""Workers in one message of shared load: with ids at their limit it stays within half a frame."""

REQUESTS_IN_FLIGHT_MAX: Final = 65_536
"""Requests that one router counts as in flight; the oldest is taken for ended beyond it."""

PREFILL_TOKENS_MAX: Final = (1 << 48) - 1
"""Tokens that are to be prefilled, of one request or of all that one router has at a worker."""

DECODED_TOKENS_MAX: Final = (1 << 32) - 1
"""Tokens that one request has decoded."""

TENANTS_MAX: Final = 65_536
"""Tenants (workers) of one prefix cache, removed ones included."""

TEXT_CHARACTERS_MAX: Final = 262_144
"""Characters of one text in a prefix tree: about 64 Ki tokens."""

TREE_CHARACTERS_MAX: Final = 67_108_864
"""Characters held by one prefix tree over all tenants, or tokens by one of those: upstream's
command-line default."""

BLOCKS_MAX: Final = 2_097_152
"""Blocks of all tenants in one block index: about 40 MB as chains, 300 MB where they come one by
one."""

PREFIX_HELD_FACTOR: Final = 4
"""How many times a prefix cache may be over its limit by joining what peers hold: each side of
a partition may have filled its own, and eviction follows the join."""

VIRTUAL_NODES_MAX: Final = 4096
"""Points of one node on a hash ring; the specification's default is 150."""

RATE_KEYS_MAX: Final = 100_000
"""Rate-limit keys with a bucket on this node; gubernator's cache default is 50,000."""

RATE_KEY_BYTES_MAX: Final = 1_000
"""A rate-limit key under a rule, in UTF-8: with the mark of its period it is a key of the codec."""

LIMIT_PERIOD_S_MAX: Final = 31 * 86_400
"""The longest period of a limit: 31 days."""

LIMIT_RULES_MAX: Final = 1_000
"""Rules that may be written; a rule is for a pattern of keys, so there are few as a rule."""

LIMITS_PER_RULE_MAX: Final = 8
"""Limits of one rule: one a second, a minute, an hour, a day, a week and a month, and two more."""

RATE_RESERVATIONS_MAX: Final = 100_000
"""Reservations that are open on one node; the oldest one beyond is settled at its estimate."""

RATE_KEYS_AT_ONCE_MAX: Final = 100
"""Keys of one call, all or nothing, and decisions of one batch."""

SLOT_LEASES_MAX: Final = 100_000
"""Slots that other programs hold by name at one node; a further one is refused."""

SLOTS_MAX: Final = 1_000_000
"""The most requests of one key at once that a limit may be."""

RATE_CEILINGS_MAX: Final = 200_000
"""Keys of limits over more than a second of which a node keeps up to what their owners may
grant: all of the cluster that were used in their window, about 300 bytes each."""

RATE_KEYS_PER_MESSAGE_MAX: Final = 256
"""Keys in one message about leases: with keys at their limit it stays within a frame."""

RATE_COSTS_MAX: Final = 256
"""Requests for one key that one question asks for; the others wait for the next one."""

RATE_WAITING_MAX: Final = 4096
"""Requests for one key that wait for its owner's word on one node; more are told at once that
the owner did not answer."""

RATE_PENDING_MAX: Final = 4096
"""Questions that an owner keeps while it has no majority; the others are asked again."""

WINDOWS_MAX: Final = 64
"""Windows kept by one window counter."""

TREE_OPERATIONS_MAX: Final = 1024
"""Operations on a prefix tree in one HTTP request. They are checked at once, which takes some
milliseconds, and applied a few at a time."""

CHANGES_MAX: Final = 256
"""Workers, or keys of the configuration, that one HTTP request changes: as many as are written in
some 20 ms, in which a node answers nobody else."""

JSON_BODY_BYTES_MAX: Final = 1 * MIB
"""One HTTP request body."""

HTTP_HEAD_BYTES_MAX: Final = 64 * KIB
"""Request line and headers of one HTTP request; h11 and nginx allow less, Envoy 60 KiB."""

HTTP_HEADERS_MAX: Final = 100
"""Header lines of one HTTP request, trailers included: Envoy's and Apache's default."""

HTTP_REQUEST_BYTES_MAX: Final = 8 * MIB
"""What one HTTP request may take with its framing: a body at its limit in chunks of one byte."""

HTTP_LINGER_BYTES_MAX: Final = 36 * MIB
"""What is read and thrown away on a connection that is being closed: a refused body of 32 MiB, and
an eighth for its framing."""

HTTP_LINGER_S_MAX: Final = 30.0
"""Seconds for which that is done at most; nginx's `lingering_time` is the same."""

LOG_LINES_QUEUED_BYTES_MAX: Final = 1 * MIB
"""Log lines that wait for standard error; beyond it they are dropped and counted."""
