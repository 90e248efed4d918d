"""Names of what `transport` and `websocket_transport` put into the extensions of a request's scope."""

from __future__ import annotations

END = "atoll.end"  # of every scope: ends the connection, with a close code and a reason; whether it could
LOST = "atoll.lost"  # of a WebSocket: an Event, set when the connection is gone, read or not
GONE = "atoll.gone"  # of a request: takes what is to be called when its connection is lost, or None
ANSWER = "atoll.answer"  # of a request: answers it in one step, as `Http.answer` says
LASTS = "atoll.lasts"  # of a request: says that its answer has no end, as `Http.lasts` does
