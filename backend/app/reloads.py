"""A reload: the settings are read once more, and workers with the new ones take the place of those with the old."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import uvicorn

from app.core.logs import logger
from app.core.running_servers import ServerRecord
from app.core.settings import ConfigurationError


class Reading(NamedTuple):
    """The settings as they are now, as the configuration of new workers, and what an operator should know of them."""

    config: uvicorn.Config
    warnings: Sequence[str]


Steps = Generator[None, None, None]
"""Work that the main thread does in steps, between which it looks after signals and workers."""


class Reloads:
    """The reloads that were asked for, one after the other.

    `read` raises ConfigurationError, with the sentence for the operator, for settings that cannot be used. Nothing has
    changed then. How each reload ended is in the record and in the log.
    """

    def __init__(self, read: Callable[[], Reading], record: ServerRecord) -> None:
        self._read = read
        self._record = record
        self._asked = 0  # which a signal may raise between any two instructions: nothing else changes it
        self._begun = 0
        self._steps: Steps | None = None

    def ask(self) -> None:
        """Asks for a reload, which reads the settings after this."""
        self._asked += 1

    def advance(self, replace: Callable[[uvicorn.Config], Steps]) -> None:
        """Goes one step on with what was asked for. `replace` is called with the new configuration; its steps end when
        all workers run it, or raise ConfigurationError.
        """
        if self._steps is None and self._begun < self._asked:
            self._begun += 1
            self._steps = self._reload(replace)
        if self._steps is not None:
            try:
                next(self._steps)
            except StopIteration:
                self._steps = None

    def close(self) -> None:
        """Ends the one under way. A worker that is starting for it is killed."""
        if self._steps is not None:
            self._steps.close()

    def _reload(self, replace: Callable[[uvicorn.Config], Steps]) -> Steps:
        self._record.begin()
        logger.info("reload_started")
        try:
            with ThreadPoolExecutor(1) as thread:  # it may wait for a provider or a database
                reading = thread.submit(self._read)
                while not reading.done():
                    yield
            config, warnings = reading.result()
            yield from replace(config)
        except ConfigurationError as error:
            logger.error("reload_refused", reason=str(error))
            self._record.end(str(error), is_refused=True)
        except Exception:  # for example no memory for another process: the old ones go on
            logger.exception("reload_failed")
            self._record.end("The reload failed by a defect; the log has the reason.", is_refused=True)
        else:
            logger.info("reload_ended")
            self._record.end("\n".join([*warnings, "All workers run the new settings."]), is_refused=False)
