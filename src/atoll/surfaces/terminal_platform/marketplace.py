"""The marketplace of the Agent Workspace API: workers are published, found, installed, rated and run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput
from atoll.domain.money import micro_usd
from atoll.domain.principal import Principal
from atoll.domain.sandbox import NetworkMode, Resources
from atoll.domain.worker import Worker
from atoll.services.marketplace.marketplace import Marketplace
from atoll.services.marketplace.publishing import Offer
from atoll.services.marketplace.runs import RunRequest, WorkerRun
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model, unless_disconnected
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.money import JsonAmount, OptionalAmount, amount_of, dollars, money_response
from atoll.surfaces.operation import Answer, InvalidQuery, Once, Operation, Parameter
from atoll.surfaces.terminal_platform.errors import DetailError
from atoll.surfaces.words import words

Q = Parameter("q", "text in the name or the description, in any case", max_chars=256)
TAGS = Parameter("tags", "any of these, with commas between them", max_chars=4096)
AUTHOR = Parameter("author", "only this author's", max_chars=128)
MAX_PRICE = Parameter("max_price", "what a run may cost, in dollars; 0: free ones", max_chars=32)
LIMIT = Parameter("limit", "how many at most", int, minimum=1, maximum=1000)
OFFSET = Parameter("offset", "how many to leave out", int, minimum=0, maximum=1_000_000)
VERSION = Parameter("version", "this version instead of the current one", max_chars=256)
Word = Annotated[str, Field(max_length=131_072)]


class PublishBody(AnswerModel):
    """POST /marketplace/publish. One of endpoint_url and command is required."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: Annotated[str, Field(max_length=4096)]
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=32)] | None = None
    endpoint_url: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="where it can be called: kept and told, never called by this server"
    )
    pricing: dict[str, Any] | None = Field(None, description="per_run: dollars for one run; other names are only told")
    template: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="the image of the sandbox that the command runs in; default: host"
    )
    command: Annotated[list[Word], Field(max_length=256)] | Word | None = Field(
        None, description="what runs: the argv, or one text that is split by shell-word rules"
    )
    version: Annotated[str, Field(max_length=256)] | None = Field(None, description="SemVer; default: the next patch")
    visibility: Literal["public", "private"] = Field("public", description="private: nobody else sees it")


class RunBody(AnswerModel):
    """POST /marketplace/{worker_id}/run."""

    input: Any = Field(None, description="its standard input: a text, or any other value as JSON")
    args: Annotated[list[Word], Field(max_length=256)] | None = Field(None, description="words after its command")
    env: Annotated[dict[str, str], Field(max_length=256)] | None = None
    timeout: Annotated[float, Field(gt=0, le=86_400)] | None = Field(None, description="seconds")
    workspace: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="one of your own, by name or id: it may read and write its files"
    )
    network: Literal["none", "outgoing"] = Field("none", description="what the worker may reach")
    version: Annotated[str, Field(max_length=256)] | None = None
    max_price: OptionalAmount = None


class RateBody(AnswerModel):
    """POST /marketplace/{worker_id}/rate."""

    rating: Annotated[int, Field(ge=1, le=5, strict=True)]


class WorkerAnswer(AnswerModel):
    """One version of a worker, with what is counted of all of them."""

    worker_id: str
    name: str
    description: str
    author: str
    version: str
    tags: list[str]
    endpoint_url: str | None
    pricing: dict[str, Any]
    rating: float
    installs: int
    ratings: int
    template: str | None
    command: list[str] | None
    visibility: Literal["public", "private"]
    created_at: datetime
    updated_at: datetime


class WorkersAnswer(AnswerModel):
    results: list[WorkerAnswer]


class VersionsAnswer(AnswerModel):
    versions: list[WorkerAnswer]


class UnpublishedAnswer(AnswerModel):
    deleted: Literal[True]


class RunAnswer(AnswerModel):
    run_id: str
    worker_id: str
    version: str
    sandbox_id: str
    status: Literal["completed", "failed", "timed_out"]
    stdout: str
    stderr: str
    exit_code: int
    truncated: bool
    duration_s: float
    charged: JsonAmount


class MarketplaceHandlers:
    """One method for each operation."""

    def __init__(self, marketplace: Marketplace, settings: Settings) -> None:
        self._marketplace = marketplace
        self._body_bytes = settings.server.body_bytes
        self._run_s = settings.marketplace.run_s
        self._resources: Resources = settings.limits.defaults.resources()

    async def publish(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, PublishBody, self._body_bytes)
        offer = Offer(
            body.name,
            body.description,
            tuple(body.tags or ()),
            body.endpoint_url,
            () if body.command is None else words(body.command, "command"),
            body.template or "host",
            body.pricing or {},
            body.version,
            body.visibility == "public",
        )
        return json_response(_worker(await self._marketplace.publish(principal, offer)))

    async def search(self, request: Request, principal: Principal) -> Response:
        tags = [tag.strip() for tag in (TAGS.text(request) or "").split(",") if tag.strip()]
        found = await self._marketplace.search(
            principal,
            Q.text(request) or "",
            tags,
            author=AUTHOR.text(request),
            price_max_micro_usd=_price_in(MAX_PRICE.text(request)),
            limit=LIMIT.number(request) or 100,
            offset=OFFSET.number(request) or 0,
        )
        return json_response({"results": [_worker(one) for one in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        found = await self._marketplace.get(principal, _id(request), VERSION.text(request))
        return json_response(_worker(found))

    async def versions(self, request: Request, principal: Principal) -> Response:
        found = await self._marketplace.versions(principal, _id(request))
        return json_response({"versions": [_worker(one) for one in found]})

    async def unpublish(self, request: Request, principal: Principal) -> Response:
        await self._marketplace.unpublish(principal, _id(request))
        return json_response({"deleted": True})

    async def install(self, request: Request, principal: Principal) -> Response:
        return json_response(_worker(await self._marketplace.install(principal, _id(request))))

    async def rate(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, RateBody, self._body_bytes)
        return json_response(_worker(await self._marketplace.rate(principal, _id(request), body.rating)))

    async def run(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, RunBody, self._body_bytes, optional=True)
        asked = RunRequest(
            tuple(body.args or ()),
            _stdin(body.input),
            body.env or {},
            body.timeout or self._run_s,
            body.workspace,
            NetworkMode(body.network),
            _price(body.max_price),
            body.version,
        )
        worker = await self._marketplace.get(principal, _id(request), body.version)
        work = self._marketplace.runs.run(principal, worker, asked, self._resources)
        return money_response(_ran(await unless_disconnected(request.receive, work)))


def _id(request: Request) -> str:
    return request.path_params["worker_id"]


def _stdin(value: Any) -> bytes:
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else bytes(json_response(value).body)


def _price(value: Any) -> int | None:
    if value is None:
        return None
    return _checked(amount_of(value, field="max_price"))


def _price_in(text: str | None) -> int | None:
    try:
        return None if text is None else _checked(micro_usd(text, field="max_price"))
    except InvalidInput as error:
        raise InvalidQuery(error.message, field=error.field) from None


def _checked(amount: int | None) -> int:
    if amount is None or amount < 0:
        raise InvalidInput("max_price must be a number of dollars, 0 or more", field="max_price")
    return amount


def _worker(one: Worker) -> dict[str, Any]:
    return {
        "worker_id": one.id,
        "name": one.name,
        "description": one.description,
        "author": one.author,
        "version": one.version,
        "tags": list(one.tags),
        "endpoint_url": one.endpoint_url,
        "pricing": dict(one.pricing),
        "rating": one.rating,
        "installs": one.installs,
        "ratings": one.ratings,
        "template": one.template if one.command else None,
        "command": list(one.command) or None,
        "visibility": "public" if one.public else "private",
        "created_at": one.created_at,
        "updated_at": one.updated_at,
    }


def _ran(run: WorkerRun) -> dict[str, Any]:
    end = run.result.exit
    return {
        "run_id": run.id,
        "worker_id": run.worker.id,
        "version": run.worker.version,
        "sandbox_id": run.sandbox.id,
        "status": "timed_out" if end.timed_out else "failed" if end.code else "completed",
        "stdout": run.result.stdout.decode(errors="replace"),
        "stderr": run.result.stderr.decode(errors="replace"),
        "exit_code": end.code,
        "truncated": run.result.truncated,
        "duration_s": round(end.duration_s, 6),
        "charged": dollars(run.charged),
    }


def marketplace_operations(marketplace: Marketplace, settings: Settings) -> list[Operation]:
    """What is served below /marketplace."""
    of = MarketplaceHandlers(marketplace, settings)
    tag, error, path = "marketplace", DetailError, "/marketplace/{worker_id}"
    body, lost = (400, 413, 422), (404, 503, 504)
    worker = Answer(200, "the worker", WorkerAnswer)
    return [
        Operation(
            "POST", "/marketplace/publish", of.publish, "publishWorker",
            "Publish a worker, or the next version of one of your own",
            answers=(worker,), body=PublishBody, errors=(*body, 404, 409, 429, 503, 504),
            tag=tag, error=error, once=Once.MADE,
        ),
        Operation(
            "GET", "/marketplace/search", of.search, "searchWorkers", "Find workers",
            answers=(Answer(200, "those found, the most installed first", WorkersAnswer),),
            parameters=(Q, TAGS, AUTHOR, MAX_PRICE, LIMIT, OFFSET), errors=(400, 422, 503, 504), tag=tag, error=error,
        ),
        Operation(
            "GET", path, of.get, "getWorker", "Look at a worker", answers=(worker,), parameters=(VERSION,),
            errors=(400, 422, *lost), tag=tag, error=error,
        ),
        Operation(
            "GET", path + "/versions", of.versions, "listWorkerVersions", "Its versions, newest first",
            answers=(Answer(200, "the versions", VersionsAnswer),), errors=lost, tag=tag, error=error,
        ),
        Operation(
            "DELETE", path, of.unpublish, "unpublishWorker", "Take back a worker of your own",
            answers=(Answer(200, "it is gone", UnpublishedAnswer),), errors=lost, tag=tag, error=error,
        ),
        Operation(
            "POST", path + "/install", of.install, "installWorker", "Say that you use it", answers=(worker,),
            errors=lost, tag=tag, error=error,
        ),
        Operation(
            "POST", path + "/rate", of.rate, "rateWorker", "Rate a worker that you installed or ran",
            answers=(worker,), body=RateBody, errors=(*body, 409, *lost), tag=tag, error=error,
        ),
        Operation(
            "POST", path + "/run", of.run, "runWorker",
            "Run it in a fresh sandbox of yours; its price goes to its author once it has begun",
            answers=(Answer(200, "how it ended and what it wrote", RunAnswer),), body=RunBody, body_required=False,
            errors=(*body, 402, 409, 429, 501, *lost), tag=tag, error=error, once=Once.RAN,
        ),
    ]  # fmt: skip
