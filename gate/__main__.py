"""The boundary: what goes wrong becomes a message and an exit code, never a traceback."""

import os
import sys
import traceback

import click

from gate.errors import ExitCode, GateError


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_run())


def _run() -> int:
    from gate.cli import cli

    try:
        code = cli.main(standalone_mode=False)
        return int(code or 0)
    except GateError as error:
        _say(error.message, error.hint)
        return int(error.exit_code)
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted: no verdict", "Run the same command again; finished batches are kept.")
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except Exception as error:  # the one place that catches broadly
        if os.environ.get("QUANT_GATE_DEBUG"):
            traceback.print_exc()
        _say(
            f"no verdict: unexpected {type(error).__name__}: {error}",
            "Please report this; QUANT_GATE_DEBUG=1 shows where it happened.",
        )
        return ExitCode.NO_VERDICT


def _say(message: str, hint: str) -> None:
    """Two lines on standard error, without the control characters of untrusted text."""
    for line in (f"gate: {message}", f"  {hint}"):
        clean = "".join(c for c in line if c.isprintable() or c == "\t")
        click.echo(clean[:4000], err=True)


if __name__ == "__main__":
    main()
