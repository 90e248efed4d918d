"""The Sandbox API's background jobs: commands that run again and again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.services.home_sandboxes import HomeSandboxes
from atoll.services.jobs.jobs import INTERVAL_S_MAX, Job, Jobs
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.moments import moment
from atoll.surfaces.words import words

INTERVAL_S = 5


class JobBody(AnswerModel):
    """POST /sandboxes/{id}/background."""

    command: Annotated[str, Field(min_length=1, max_length=131_072)] = Field(
        description="the program; without args it is split by shell-word rules"
    )
    args: list[str] | None = None
    interval: Annotated[int, Field(ge=1, le=INTERVAL_S_MAX)] = Field(INTERVAL_S, description="seconds between two runs")


class JobStartedAnswer(AnswerModel):
    job_id: str


class JobStoppedAnswer(AnswerModel):
    stopped: Literal[True]


class JobAnswer(AnswerModel):
    """`process` is the id that the process routes know it by: what the command writes is in its log."""

    job_id: str
    process: str
    started_at: datetime
    runs: int
    failed: int
    last_exit_code: int | None


class JobListAnswer(AnswerModel):
    jobs: list[JobAnswer]


class JobHandlers:
    """One method for each operation."""

    def __init__(self, homes: HomeSandboxes, jobs: Jobs, settings: Settings) -> None:
        self._homes = homes
        self._jobs = jobs
        self._body_bytes = settings.server.body_bytes

    async def start(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, JobBody, self._body_bytes)
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        argv = (body.command, *body.args) if body.args else words(body.command, "command")
        return json_response({"job_id": await self._jobs.start(principal, sandbox_id, argv, interval_s=body.interval)})

    async def list(self, request: Request, principal: Principal) -> Response:
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        return json_response({"jobs": [_job(one) for one in await self._jobs.list(principal, sandbox_id)]})

    async def stop(self, request: Request, principal: Principal) -> Response:
        sandbox_id = await self._homes.resolve(principal, request.path_params["id"])
        await self._jobs.stop(principal, sandbox_id, request.path_params["job"])
        return json_response({"stopped": True})


def _job(one: Job) -> dict[str, Any]:
    return {
        "job_id": one.id,
        "process": one.process.id,
        "started_at": moment(one.process.started_at),
        "runs": one.report.runs,
        "failed": one.report.failed,
        "last_exit_code": one.report.last_exit_code,
    }
