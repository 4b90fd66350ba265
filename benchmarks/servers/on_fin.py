"""flambeau in one process, with another rule for clients that send a FIN.

    python -m benchmarks.servers.on_fin RULE [flags of python -m app]

`closes` drops what such a client has asked for, `answers` computes all of it. The server itself sends the first bytes
of an answer ahead, and drops what it has asked for if it resets the connection then.
"""

import sys

from app.__main__ import main
from app.http import half_closed
from app.http.protocol import LimitedProtocol

if __name__ == "__main__":
    match sys.argv[1]:
        case "closes":
            setattr(LimitedProtocol, "eof_received", lambda _: False)  # noqa: B010  mypy allows no assignment
        case "answers":
            half_closed.FEW, half_closed.FIRST_SECONDS = 10**9, 1e6
        case other:
            sys.exit(f"no such rule: {other}")
    sys.exit(main([*sys.argv[2:], "--front-ends", "0"]))
