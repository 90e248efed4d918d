"""`atoll marketplace`: workers that people publish, and others find, install, rate and run; through the server."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli import output

if TYPE_CHECKING:
    from atoll.sdk import AsyncMarketplace, WorkerInfo

Worker = Annotated[str, typer.Argument(metavar="WORKER", help="The worker's id.")]
Version = Annotated[str | None, typer.Option("--version", help="This version instead of the current one.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag; several times for more.")]


def add_to(app: typer.Typer) -> None:
    market = typer.Typer(help="Workers that others run in sandboxes of their own.", no_args_is_help=True)
    market.command("publish", no_args_is_help=True)(publish)
    market.command("search")(search)
    market.command("show", no_args_is_help=True)(show)
    market.command("install", no_args_is_help=True)(install)
    market.command("rate", no_args_is_help=True)(rate)
    market.command("run", no_args_is_help=True, context_settings={"allow_interspersed_args": False})(run)
    market.command("unpublish", no_args_is_help=True)(unpublish)
    app.add_typer(market, name="marketplace", rich_help_panel="Server")


def publish(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called; again: its next version.")],
    command: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="What runs, after --.")] = None,
    description: Annotated[str, typer.Option("--description", help="What it does.")] = "",
    template: Annotated[str | None, typer.Option("--template", help="The image of its sandbox.")] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="A URL where it can be called instead.")] = None,
    tag: Tags = None,
    price: Annotated[float | None, typer.Option("--price", help="Dollars for one run.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="SemVer; default: the next patch.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Nobody else sees it.")] = False,
    as_json: output.Json = False,
) -> None:
    """Publish a worker, or the next version of one of your own."""
    work = _market().publish(
        name,
        description,
        command=command or None,
        template=template,
        endpoint_url=endpoint,
        tags=tag or (),
        price_usd=price,
        version=version,
        public=not private,
    )
    _told(asyncio.run(work), as_json)


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Text in the name or the description.")] = "",
    tag: Tags = None,
    author: Annotated[str | None, typer.Option("--author", help="Only this author's.")] = None,
    max_price: Annotated[float | None, typer.Option("--max-price", help="What a run may cost, in dollars.")] = None,
    as_json: output.Json = False,
) -> None:
    """Find workers, the most installed first."""
    found = asyncio.run(_market().search(text, tags=tag or (), author=author, max_price_usd=max_price))
    if as_json:
        output.print_json(list(found))
        return
    rows = [
        (
            one.id,
            one.name,
            one.version,
            _price(one),
            f"{one.rating:.1f}" if one.ratings else "-",
            one.installs,
            one.description[:48],
        )
        for one in found
    ]
    columns = ("ID", "NAME", "VERSION", "PRICE", "RATING", "INSTALLS", "DESCRIPTION")
    output.print_table(columns, rows, empty="no workers")


def show(worker: Worker, version: Version = None, as_json: output.Json = False) -> None:
    """Look at a worker and its versions."""

    async def look() -> tuple[WorkerInfo, list[WorkerInfo]]:
        market = _market()
        return await market.get(worker, version=version), list(await market.versions(worker))

    found, versions = asyncio.run(look())
    if as_json:
        output.print_json(found)
        return
    runs = " ".join(found.command) if found.command else f"called at {found.endpoint_url}"
    rows = [
        ("name", f"{found.name} {found.version}"),
        ("author", found.author),
        ("description", found.description),
        ("runs", runs),
        ("template", found.template or ""),
        ("price", _price(found)),
        ("rating", _rating(found)),
        ("installs", found.installs),
        ("tags", ", ".join(found.tags)),
        ("versions", ", ".join(one.version for one in versions)),
    ]
    output.print_table(("", ""), [row for row in rows if row[1] != ""])


def install(worker: Worker, as_json: output.Json = False) -> None:
    """Say that you use a worker."""
    _told(asyncio.run(_market().install(worker)), as_json)


def rate(
    worker: Worker,
    stars: Annotated[int, typer.Argument(metavar="STARS", min=1, max=5, help="1 to 5.")],
    as_json: output.Json = False,
) -> None:
    """Rate a worker that you installed or ran."""
    _told(asyncio.run(_market().rate(worker, stars)), as_json)


def run(
    worker: Worker,
    words: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENT", help="Words after its command.")] = None,
    input_: Annotated[str | None, typer.Option("--input", help="Its standard input; -: that of this command.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, or NAME alone.")] = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help="How long it may take, such as 30s.")] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", help="One of yours, for it to work in.")] = None,
    network: Annotated[str, typer.Option("--network", help="none or outgoing.")] = "none",
    version: Version = None,
    max_price: Annotated[float | None, typer.Option("--max-price", help="Dollars; dearer, it does not run.")] = None,
    as_json: output.Json = False,
) -> None:
    """Run a worker in a fresh sandbox of yours; exit with its code."""
    from atoll.cli.amounts import environment, seconds

    if max_price is None and version is None and input_ != "-" and sys.stdin.isatty():
        max_price = _agreed(worker)
    work = _market().run(
        worker,
        input=sys.stdin.read() if input_ == "-" else input_,
        args=words or (),
        env=environment(env or []),
        timeout_s=seconds(timeout, "--timeout"),
        workspace=workspace,
        network=network,
        version=version,
        max_price_usd=max_price,
    )
    found = asyncio.run(work)
    if as_json:
        output.print_json(found)
    else:
        sys.stdout.write(found.stdout)
        sys.stderr.write(found.stderr)
    raise typer.Exit(found.exit_code)


def unpublish(worker: Worker) -> None:
    """Take back a worker of yours, with all its versions and ratings."""
    asyncio.run(_market().unpublish(worker))
    typer.echo(worker)


def _market() -> AsyncMarketplace:
    from atoll.sdk import AsyncMarketplace

    return AsyncMarketplace()


def _agreed(worker: str) -> float:
    """The price, once whoever sits there has seen it: others name --max-price, or are told to."""
    found = asyncio.run(_market().get(worker))
    price: Any = found.pricing.get("per_run", 0)
    if price:
        typer.confirm(
            f"A run of {found.name} {found.version} costs up to {_price(found)}. Run it?", abort=True, err=True
        )
    return price


def _price(one: WorkerInfo) -> str:
    price: Any = one.pricing.get("per_run", 0)
    return f"${price:g}" if price else "free"


def _rating(one: WorkerInfo) -> str:
    return f"{one.rating:.1f} of 5 ({output.count(one.ratings, 'rating', 'ratings')})" if one.ratings else "none"


def _told(found: WorkerInfo, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
    else:
        typer.echo(f"{found.id}  {found.name} {found.version}")
