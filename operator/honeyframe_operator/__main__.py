"""The command `honeyframe-operator`."""

import asyncio
import gc
import logging
import sys

import uvloop
from kubernetes.aio.config.config_exception import ConfigException
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from honeyframe_connectors.errors import ConnectorError
from honeyframe_operator.app import serve
from honeyframe_operator.kube import UNANSWERED, ApiError
from honeyframe_operator.logs import configure
from honeyframe_operator.settings import Settings, explain

WRONG_USAGE = 2
_GC = (50_000, 20, 20)
"""Objects here live long and hold few cycles: at the default of 700, collecting costs 0.4 ms of CPU an object."""


def main() -> None:
    """Read the flags and run; a wrong flag is a sentence and exit code 2, no API server exit code 1."""
    try:
        settings = CliApp.run(Settings)
    except ValidationError as error:
        sys.exit(_say(explain(error), WRONG_USAGE))
    except SettingsError as error:
        sys.exit(_say(f"honeyframe-operator: {error}", WRONG_USAGE))
    configure(settings.log_level)
    gc.set_threshold(*_GC)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except ConnectorError as error:
        sys.exit(_say(f"honeyframe-operator: {error.message}", WRONG_USAGE))
    except BaseExceptionGroup:
        logging.getLogger(__name__).exception("the operator ends by a fault of its own")
        sys.exit(1)
    except ConfigException as error:
        sys.exit(_say(f"honeyframe-operator: {error}", WRONG_USAGE))
    except (ApiError, *UNANSWERED) as error:
        logging.getLogger(__name__).error("the API server does not let the operator start: %s", error)  # noqa: TRY400
        sys.exit(1)


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)  # noqa: T201 - before logging is set up, and for people
    return code


if __name__ == "__main__":
    main()
