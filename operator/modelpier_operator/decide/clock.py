"""Times as Kubernetes writes them (RFC 3339, UTC); `now` always comes from outside."""

from __future__ import annotations

from datetime import UTC, datetime


def parse(text: str | None) -> datetime | None:
    """None for nothing, and for what is no time: an annotation can be edited by anyone."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def stamp(now: datetime) -> str:
    """To the microsecond: two promotions within a second keep their order."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def second(now: datetime) -> str:
    """To the second, as metav1.Time."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def elapsed(since: str | None, now: datetime) -> float:
    """Seconds since a time; 0 for an unknown one and for one in the future (another machine's clock)."""
    moment = parse(since)
    return max(0.0, (now - moment).total_seconds()) if moment else 0.0


def later(*times: str | None) -> str | None:
    """The latest of times that may be unknown."""
    known = [(moment, text) for text in times if (moment := parse(text))]
    return max(known)[1] if known else None
