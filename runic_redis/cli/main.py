"""``runic-redis``: the verbs and their exit statuses.

0: done. 1: the thing asked for does not exist, or is damaged. 2: wrong arguments or settings. 3: the server cannot be
reached or rejects writes, or a file or the output cannot be written. 130: interrupted. 141: the reader of the output
has closed it.

This module imports neither typer nor the store, so `--version` starts fast.
"""

import atexit
import gc
import os
import sys
from typing import Any

from runic_redis import __version__
from runic_redis.cli.output import EXIT_NO, EXIT_PIPE, EXIT_UNAVAILABLE, EXIT_USAGE, prepare_streams, stop
from runic_redis.errors import ConfigurationError, InvalidArgument, StoreError, StoreUnavailable, WriteRefused


def main() -> None:
    """Run the command line. Report an error of the store or the system in one line, without a traceback."""
    prepare_streams()
    try:
        try:
            status = _run()
        finally:
            _flush()
        raise SystemExit(status or 0)
    except SystemExit as ended:
        # Rich turns a closed output into an exit.
        if isinstance(ended.__context__, BrokenPipeError):
            raise SystemExit(EXIT_PIPE) from None
        raise
    except (ConfigurationError, InvalidArgument) as error:
        stop(str(error), EXIT_USAGE)
    except (StoreUnavailable, WriteRefused) as error:
        stop(str(error), EXIT_UNAVAILABLE)
    except StoreError as error:
        stop(str(error), EXIT_NO)
    except BrokenPipeError:
        raise SystemExit(EXIT_PIPE) from None
    except OSError as error:
        stop(f"The operating system reports: {error}", EXIT_UNAVAILABLE)


def _run() -> Any:
    """Run the verb that the first argument names. Return its exit status."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first == "--version":
        print(__version__)
        return 0
    # Imports leave no garbage. To search for it during them and at the end takes a fifth of the time of a short verb,
    # and to visit the imported modules later would now and then delay an event of `tail` by 40 ms.
    gc.disable()
    atexit.register(gc.freeze)
    try:
        from runic_redis.cli.app import make_group, run_group  # noqa: PLC0415 - typer is an extra, and slow to import
    except ImportError:
        sys.exit("The command line needs an extra: pip install 'runic-redis[cli,embedded]'.")
    group = make_group(first)
    gc.freeze()
    gc.enable()
    return run_group(group)


def _flush() -> None:
    """Write the buffered output now, so that a failure is reported."""
    try:
        sys.stdout.flush()
    except OSError:
        # When it exits, Python would try again, and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


if __name__ == "__main__":
    main()
