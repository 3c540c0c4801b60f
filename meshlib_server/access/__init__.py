"""Who gets as far as being asked for a token: TLS, foreign pages, and files that change.

tls.py       certificates of this node and of its peers, and how they are replaced
foreign.py   without tokens: whom the pages of other sites may not speak for
caps.py      what one address may ask in a second, and have under way
watching.py  files that are read again when they change
"""

from __future__ import annotations

from meshlib_server.access.foreign import RefuseForeign
from meshlib_server.access.tls import PEER_NAMES, Tls, TlsSettings, names_of
from meshlib_server.access.watching import watch_files

__all__ = ["PEER_NAMES", "RefuseForeign", "Tls", "TlsSettings", "names_of", "watch_files"]
