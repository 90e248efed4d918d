"""The operations of the sidekick API that keep something: watchers, signals, servers, overlays, .env files.

served.py makes routes of them; `tools_handlers` has their handlers.
"""

from __future__ import annotations

from atoll.services.daemon.tools import Tools
from atoll.settings import Settings
from atoll.surfaces.addresses import Addresses
from atoll.surfaces.operation import Answer, Operation
from atoll.surfaces.sidekick import tools_answers as answers
from atoll.surfaces.sidekick import tools_bodies as bodies
from atoll.surfaces.sidekick.declared import declared
from atoll.surfaces.sidekick.server_handlers import STREAM, ServerHandlers
from atoll.surfaces.sidekick.tools_handlers import FILE, EnvHandlers, OverlayHandlers, SignalHandlers, WatcherHandlers

MADE = (413, 429, 503, 504)


def tool_operations(tools: Tools, settings: Settings) -> list[Operation]:
    """What this part of the dialect serves."""
    size, addresses = settings.server.body_bytes, Addresses(settings)
    return [
        *_watchers(WatcherHandlers(tools.watchers, addresses, size)),
        *_signals(SignalHandlers(tools.signals, addresses, size)),
        *_env(EnvHandlers(tools.env_files, size)),
        *_servers(ServerHandlers(tools.servers, tools.urls, addresses, size)),
        *_overlays(OverlayHandlers(tools.overlays, size)),
    ]


def _watchers(of: WatcherHandlers) -> list[Operation]:
    one = answers.WatcherAnswer
    return [
        declared(
            "POST", "/watchers", of.create, "daemonCreateWatcher", "Tell what changes below a folder",
            (Answer(201, "it is in place", one),), body=bodies.WatcherBody, errors=MADE,
        ),
        declared(
            "GET", "/watchers", of.list, "daemonListWatchers", "The watchers of a sandbox",
            (Answer(200, "oldest first", answers.WatchersAnswer),),
        ),
        declared(
            "GET", "/watchers/{watcher}", of.get, "daemonGetWatcher", "Look at a watcher",
            (Answer(200, "it", one),),
        ),
        declared(
            "DELETE", "/watchers/{watcher}", of.remove, "daemonDeleteWatcher", "End a watcher",
            (Answer(204, "it is gone"),),
        ),
    ]  # fmt: skip


def _signals(of: SignalHandlers) -> list[Operation]:
    state = (Answer(200, "whether they are told, and where", answers.SignalsAnswer),)
    told = (Answer(200, "what was told", answers.PortSignalAnswer),)
    return [
        declared(
            "POST", "/signals/start", of.start, "daemonStartSignals", "Tell of ports, servers and errors", state,
        ),
        declared("POST", "/signals/stop", of.stop, "daemonStopSignals", "Tell of them no more", state),
        declared("GET", "/signals/status", of.status, "daemonSignalsStatus", "Whether signals are told", state),
        declared(
            "POST", "/signals/port", of.port, "daemonSignalPort", "Tell of a port", told,
            body=bodies.PortBody, errors=(413,),
        ),
        declared(
            "POST", "/signals/port/{port}/{type}", of.port_in_path, "daemonSignalPortBy", "Tell of a port",
            told, body=bodies.PortUrlBody, body_required=False, errors=(413,),
        ),
        declared(
            "POST", "/signals/server-ready", of.ready, "daemonSignalServerReady", "Tell that a server answers",
            (Answer(200, "what was told", answers.ServerReadyAnswer),), body=bodies.ReadyBody, errors=(413,),
        ),
        declared(
            "POST", "/signals/error", of.error, "daemonSignalError", "Tell of an error",
            (Answer(200, "what was told", answers.ErrorSignalAnswer),), body=bodies.ErrorBody, errors=(413,),
        ),
    ]  # fmt: skip


def _env(of: EnvHandlers) -> list[Operation]:
    keys = (Answer(200, "which", answers.EnvKeysAnswer),)
    return [
        declared(
            "GET", "/env", of.read, "daemonReadEnv", "The variables of an environment file",
            (Answer(200, "as they stand there", answers.EnvVariablesAnswer),), parameters=(FILE,), errors=(413, 504),
        ),
        declared(
            "HEAD", "/env", of.exists, "daemonHasEnv", "Whether there is such a file",
            (Answer(200, "there is"),), parameters=(FILE,),
        ),
        declared(
            "POST", "/env", of.set, "daemonSetEnv", "Set variables; comments and order stay", keys,
            parameters=(FILE,), body=bodies.EnvSetBody, errors=(413, 504),
        ),
        declared(
            "DELETE", "/env", of.unset, "daemonUnsetEnv", "Take variables out", keys,
            parameters=(FILE,), body=bodies.EnvUnsetBody, errors=(413, 504),
        ),
    ]  # fmt: skip


def _servers(of: ServerHandlers) -> list[Operation]:
    one = (Answer(200, "it", answers.ServerAnswer),)
    return [
        declared(
            "GET", "/servers", of.list, "daemonListServers", "The servers of a sandbox",
            (Answer(200, "oldest first", answers.ServersAnswer),),
        ),
        declared(
            "POST", "/servers", of.start, "daemonStartServer",
            "Keep a program running; one of that slug gives way", (Answer(201, "it", answers.ServerAnswer),),
            body=bodies.ServerBody, errors=(402, *MADE),
        ),
        declared("GET", "/servers/{slug}", of.get, "daemonGetServer", "Look at a server", one),
        declared(
            "DELETE", "/servers/{slug}", of.remove, "daemonDeleteServer", "Stop a server and forget it",
            (Answer(204, "it is gone"),), errors=(503, 504),
        ),
        declared(
            "POST", "/servers/{slug}/stop", of.stop, "daemonStopServer", "Stop a server: TERM, wait, KILL",
            (Answer(200, "which", answers.StoppedAnswer),), errors=(503, 504),
        ),
        declared(
            "POST", "/servers/{slug}/restart", of.restart, "daemonRestartServer", "Stop a server and start it",
            one, errors=(402, 429, 503, 504),
        ),
        declared(
            "GET", "/servers/{slug}/logs", of.logs, "daemonServerLogs", "What a server wrote lately",
            (Answer(200, "as far as it is kept", answers.LogsAnswer),), parameters=(STREAM,), errors=(504,),
        ),
        declared(
            "PATCH", "/servers/{slug}/status", of.set_status, "daemonSetServerStatus",
            "What a program says of itself, until its supervision knows better",
            (Answer(200, "which", answers.StatusAnswer),), body=bodies.StatusBody, errors=(413,),
        ),
    ]  # fmt: skip


def _overlays(of: OverlayHandlers) -> list[Operation]:
    path = "/filesystem/overlays"
    return [
        declared(
            "POST", path, of.create, "daemonCreateOverlay", "Copy a template folder into another",
            (Answer(201, "the copy goes on by itself", answers.OverlayAnswer),), body=bodies.OverlayBody, errors=MADE,
        ),
        declared(
            "GET", path, of.list, "daemonListOverlays", "The overlays of a sandbox",
            (Answer(200, "oldest first", answers.OverlaysAnswer),),
        ),
        declared(
            "GET", path + "/{overlay}", of.get, "daemonGetOverlay", "Look at an overlay, and how far its copy is",
            (Answer(200, "it", answers.OverlayAnswer),),
        ),
        declared(
            "DELETE", path + "/{overlay}", of.remove, "daemonDeleteOverlay",
            "Take away what an overlay made and nobody has changed since", (Answer(204, "it is gone"),),
            errors=(503, 504),
        ),
    ]  # fmt: skip
