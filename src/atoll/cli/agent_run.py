"""`atoll agent run`: an agent does a task on a folder, in a sandbox, and this terminal shows what it does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli import options, output
from atoll.cli.failure import MISUSED, Failed, call_fields, explain, say

if TYPE_CHECKING:
    import asyncio

    from atoll.cli.agent_progress import Lines
    from atoll.sdk import AsyncAgent, AsyncRunStream, RunResult

INTERRUPTED = 130
_OPTIONS = {"session_id": "--session", "task": "TASK", "command": "COMMAND"} | {
    name: f"--{name}" for name in ("agent", "model", "instructions", "budget")
}


def add_run(group: typer.Typer) -> None:
    """To the commands of `atoll agent`."""
    group.command("run", no_args_is_help=True)(run)


def run(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What to do, in quotes; - reads it from the input.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="Of the agent `command`: the program that does it."),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(
            "--workspace", "-W", metavar="DIR", help="A folder, or ws:NAME for one on the server; default: a new one."
        ),
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", help="codex, claude_code or command; default: the server's.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Default: the agent's own.")] = None,
    instructions: Annotated[str | None, typer.Option("--instructions", help="How it should go about it.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="Continue this session (its id).")] = None,
    budget: Annotated[str | None, typer.Option("--budget", metavar="DOLLARS", help="Spend no more than this.")] = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help="End it after this time, such as 10m.")] = None,
    network: Annotated[str | None, typer.Option("--network", help="none or outgoing; default: the server's.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Without a server: in a sandbox of this machine.")] = False,
    no_sync: Annotated[
        bool, typer.Option("--no-sync", help="Work on the server's copy; send and fetch nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Let an agent do a task: [bold]atoll agent run "Create app.py" --workspace ./project[/bold]

    The folder goes to the server (only what changed), the agent works on it in a sandbox, and its files come back. What
    it does is shown on stderr, its last message is the output. Ctrl-C ends the task and brings back what was done.
    """
    import asyncio

    from atoll.cli import amounts
    from atoll.sdk import AsyncAgent, CloudRuntime, LocalRuntime

    call_fields(_OPTIONS)
    if command and "--" not in sys.argv:
        raise Failed("the task must be one argument: put it in quotes (what follows -- is a command)", MISUSED)
    if local and no_sync:
        raise Failed("--local and --no-sync exclude each other", MISUSED)
    if task == "-":
        task = sys.stdin.read()
    limit_s = amounts.seconds(timeout, "--timeout")
    runtime = LocalRuntime(limit_s) if local else CloudRuntime(timeout=limit_s, skip_sync=no_sync)
    made = AsyncAgent(
        runtime=runtime,
        workspace=workspace,
        instructions=instructions,
        agent=agent,
        model=model,
        command=options.words(command) if command else None,
        network=network,
        session_id=session,
    )
    try:
        code = asyncio.run(_run(made, task, budget, quiet=quiet or as_json, as_json=as_json))
    finally:
        if isinstance(runtime, LocalRuntime):
            runtime.close()
    raise typer.Exit(code)


async def _run(agent: AsyncAgent, task: str, budget: str | None, *, quiet: bool, as_json: bool) -> int:
    from atoll.cli.agent_progress import Lines
    from atoll.domain.errors import AtollError

    stream = agent.run_streamed(task, budget=budget)
    lines = Lines(quiet=quiet)
    asked = await _follow(stream, lines)
    result = stream.outcome
    if not as_json:
        lines.result(result.final_output)
    code, failed = 0, None
    try:
        _ = stream.result
    except AtollError as error:
        failed = error
    if as_json:
        output.print_json(_object(result, failed))
    _say_end(lines, result)
    if failed is not None:
        code = INTERRUPTED if asked and result.state == "cancelled" else explain(failed)
    return code


async def _follow(stream: AsyncRunStream, lines: Lines) -> bool:
    """To its end; whether Ctrl-C asked for that. Whatever else ends it, such as output that nobody reads, ends the task
    too."""
    import asyncio
    import contextlib
    import signal

    loop = asyncio.get_running_loop()
    ending = _Ending(stream, lines, asyncio.current_task())
    with contextlib.suppress(NotImplementedError, RuntimeError):
        loop.add_signal_handler(signal.SIGINT, ending.asked)
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(stream)
            try:
                with lines.shown():
                    async for event in stream:
                        lines.event(event)
            except asyncio.CancelledError:
                if ending.times == 0:
                    raise
                if ending.times > 1:
                    stack.pop_all()  # at once
                    raise Failed(f"left; atoll tasks show {stream.task_id} tells how it ended", INTERRUPTED) from None
                raise Failed("cancelled before it began", INTERRUPTED) from None  # it was just being begun
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return ending.times > 0


class _Ending:
    """What Ctrl-C does: the first time it ends the task, and the run goes on to its end; then it leaves."""

    def __init__(self, stream: AsyncRunStream, lines: Lines, caller: asyncio.Task[Any] | None) -> None:
        self.times = 0
        self._stream = stream
        self._lines = lines
        self._caller = caller
        self._cancelling: asyncio.Task[None] | None = None

    def asked(self) -> None:
        import asyncio

        self.times += 1
        if self.times == 1 and self._stream.task_id is not None:
            self._lines.status("cancelling: its work is saved")
            say("cancelling; Ctrl-C again leaves at once")
            self._cancelling = asyncio.get_running_loop().create_task(self._cancel())
        elif self._caller is not None:
            self._caller.cancel()

    async def _cancel(self) -> None:
        from atoll.domain.errors import AtollError

        try:
            await self._stream.cancel()
        except AtollError as error:
            explain(error)


def _say_end(lines: Lines, result: RunResult) -> None:
    from atoll.cli.agent_progress import price

    told = price(result.usage)
    if result.billing is not None:
        told += f"; ${result.billing.balance_after:f} left"
    if result.state == "cancelled":
        came = len(result.after.received) if result.after is not None else 0
        back = f", {output.count(came, 'path', 'paths')} came back" if result.after is not None else ""
        lines.note(f"cancelled: what it did is saved in workspace {result.workspace_id}{back}")
    where = f"; workspace {result.workspace_id}" if result.after is None else ""
    lines.note(f"{told}; session {result.session_id}{where}")


def _object(result: RunResult, failed: Exception | None) -> dict[str, Any]:
    usage = result.usage
    return {
        "output": result.final_output,
        "state": result.state,
        "reason": result.reason,
        "error": None if failed is None else str(failed),
        "task_id": result.task_id,
        "session_id": result.session_id,
        "workspace_id": result.workspace_id,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
            "total_cost": float(usage.total_cost),
        },
        "billing": None
        if result.billing is None
        else {
            "balance_after": float(result.billing.balance_after),
            "total_spent": float(result.billing.total_spent),
        },
        "sent": [] if result.before is None else [path.path for path in result.before.sent],
        "received": [] if result.after is None else [path.path for path in result.after.received],
        "conflicts": [one.path for report in (result.before, result.after) if report for one in report.conflicts],
    }
