"""The routes that the operator calls: PUT a plan, GET the report. `process` puts them on the admin port."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

from modelpier_server.contract import PLAN_PATH, SIGNATURE_HEADER, STATE_PATH
from modelpier_server.errors import InvalidRequest
from modelpier_server.lifecycle.board import Board
from modelpier_server.lifecycle.plans import Intake, PlanRefused, PlanStale
from modelpier_server.protocol.http import JSON_TYPE, Request, Response

LONGEST_WAIT = 60.0
"""Seconds: proxies and clients cut longer silences."""

Handler = Callable[[Request], Awaitable[Response]]


def routes(intake: Intake, board: Board[Any]) -> list[tuple[str, str, Handler]]:
    """(method, path, handler) of each."""

    async def put_plan(request: Request) -> Response:
        signature = request.headers.get(SIGNATURE_HEADER.lower(), "")
        try:
            intake.offer(bytes(request.body), signature)
        except PlanStale as stale:
            return _report(board, stale.status)
        except PlanRefused as refused:
            return Response.json({"error": str(refused)}, refused.status)
        return _report(board)

    async def get_state(request: Request) -> Response:
        after = _number(request, "after", default=-1)
        wait = _number(request, "wait", default=0)
        await board.wait(int(after), min(wait, LONGEST_WAIT))
        return _report(board)

    return [("PUT", PLAN_PATH, put_plan), ("GET", STATE_PATH, get_state)]


def _report(board: Board[Any], status: int = 200) -> Response:
    return Response(status, {"content-type": JSON_TYPE}, board.report().encode())


def _number(request: Request, name: str, *, default: float) -> float:
    try:
        value = float(request.query.get(name, default))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e15:
        raise InvalidRequest(f"query parameter {name}: must be a number")
    return value
