"""Upper bounds, each with its unit and the reason for its size.

Whoever exceeds one gets `LimitExceeded` with the bound's name, the actual size and the unit.
This module is on the path of every short command, so it imports nothing.
"""

# --- messages --------------------------------------------------------------------------------

MESSAGE_BEFORE_LOGIN_MAX_BYTES = 64 * 1024
"""A stranger may not make the server hold more than this."""

MESSAGE_MAX_BYTES = 1024 * 1024
"""Four of the largest values; NATS and etcd bound theirs at 1 and 1.5 MB too."""

ELEMENTS_MAX = 16384
"""Parts of one message or value: 1 MB of empty arrays would become 70 MB of objects."""

DEPTH_MAX = 32
"""Nesting of a value.  msgpack itself gives up at 1024 only."""

# --- the tree --------------------------------------------------------------------------------

VALUE_MAX_BYTES = 224 * 1024
"""One packed value: with its path and stamps it fits into one message of a broker."""

PATH_ELEMENTS_MAX = 64
"""Elements of one path, those of nested tuples included."""

PATH_MAX_BYTES = 2048
"""One path in its packed form, which every record carries."""

INTEGER_MAX_BITS = 1024
"""An integer beyond 64 bit travels as an extension; this much is enough for a key."""

CHAIN_LINKS_MAX = 5
"""Links of a chain.  The peers keep five as well."""

# --- connections -----------------------------------------------------------------------------

CONNECTIONS_MAX = 256
"""Client connections of one server; a board has a few dozen."""

REQUESTS_OPEN_MAX = 1024
"""Unanswered requests of one connection; the server stops reading beyond that."""

STREAMS_MAX = 128
"""Watches and other streams of one connection."""

WATCH_PENDING_MAX = 4096
"""Changed paths kept for one slow watcher; beyond that it is sent the subtree anew."""

STATE_RANGES_MAX = 2048
"""Ranges of changes in one list of a server's state; all lists together stay below a message."""

SEND_BUFFER_MAX_BYTES = 256 * 1024
"""Bytes waiting for one slow reader; beyond that watches conflate and requests wait."""

GREETING_TIMEOUT_S = 10.0
"""A server that accepts but does not greet is not a server."""

REQUEST_TIMEOUT_S = 30.0
"""A request whose answer takes longer is given up, as the client's default."""

# --- servers among each other -----------------------------------------------------------------

BROADCAST_MAX_BYTES = 256 * 1024
"""One message between servers, envelope included; brokers and small boards carry it easily."""

BROADCAST_TOPIC_MAX_CHARS = 255
"""RabbitMQ turns a topic into a routing key, which has no more."""

BROADCAST_WINDOW_MAX = 20
"""Published messages without an acknowledgement.  mosquitto and paho have the same default."""

BROADCAST_WAITING_MAX = 1024
"""Messages waiting in one direction; the oldest are dropped.  mosquitto queues 1000 per client."""

BROADCAST_WAITING_MAX_BYTES = 4 * 1024 * 1024
"""The same in bytes: 1024 of the largest would be half of a small board's memory."""

NODES_MAX = 256
"""Nodes of one network that are followed; tried with 50.  More are told, and are not followed."""

REPLAY_WINDOW = 1024
"""Messages of a sender that may overtake each other; IPsec's windows have 64 to 4096."""

REFUSAL_TOLD_INTERVAL_S = 3600.0
"""Between two lines in the log about refused messages of one cause; all of them are counted."""

BEAT_INTERVAL_S = 2.0
"""Between two beats of a node: half a message per second.  Consul's gossip probes every second."""

SILENCE_MAX_S = 6.0
"""Three intervals without a beat, and a node counts as unseen; two lost beats are borne."""

DIGEST_INTERVAL_MIN_S = 1.0
"""First interval of the digests' timer after a difference: sooner, replies would cross."""

DIGEST_INTERVAL_MAX_S = 60.0
"""Last interval of the digests' timer: what nobody has noticed is found within two of these."""

DIGEST_REDUNDANCY = 2
"""Equal digests heard in an interval that make one's own needless; RFC 6206 names 1 to 5."""

# --- storage ---------------------------------------------------------------------------------

SEGMENT_MAX_BYTES = 4 * 1024 * 1024
"""A journal segment is closed beyond this; small enough to be dropped whole."""

COMMIT_WAITING_MAX = 4096
"""Records waiting for the disk; beyond that the server stops reading requests."""

COMMIT_WAITING_MAX_BYTES = 16 * 1024 * 1024
"""What these take: a slow card must not let large values fill a small board's memory."""

RELAXED_DELAY_MAX_S = 1.0
"""A relaxed write is on disk after this time at the latest."""

# --- jobs ------------------------------------------------------------------------------------

JOB_QUEUE_MAX = 100
"""Events waiting for one job; a job that does not read them gets None and is on its own."""

JOB_OUTPUT_LINES_MAX = 200
"""Lines of output kept per job."""

JOB_OUTPUT_LINE_MAX_CHARS = 1000
"""One kept line; the rest is cut."""

TIME_WORDS_AHEAD_MAX_YEARS = 40
"""How far ahead words for a time are looked for: a 29th of February may be a Monday that rarely."""

CODE_MAX_BYTES = 128 * 1024
"""One stored procedure or module."""
