"""A service that cannot be had: each call says why."""

from typing import NoReturn

import trio

from agent_dispatch.errors import DispatchError


class RefusingService:
    """Stands in for a `Service` when the environment names no configuration that can be used."""

    def __init__(self, error: DispatchError) -> None:
        """Raise `error` at every call."""
        self._error = error

    async def _refuse(self, *_args: object, **_fields: object) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise self._error

    list_agents = inspect_agent = add_agent = update_agent = remove_agent = _refuse
    parallel = dialogue = cache_stats = cache_clear = _refuse
    dispatch = submit = job = wait = cancel = jobs = gc = result = _refuse
