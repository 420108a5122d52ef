"""The command line: parse, call, print, exit. No verb holds logic."""

import click

from gate import __version__
from gate.cli.action import action
from gate.cli.attesting import attest, verify
from gate.cli.baseline import baseline
from gate.cli.bundle import bundle
from gate.cli.calibrate import calibrate
from gate.cli.dashboard import dashboard
from gate.cli.detect import detect
from gate.cli.diagnosing import diagnose
from gate.cli.evaluation import check, compare, demo, doctor, evaluate
from gate.cli.history import history
from gate.cli.importing import import_
from gate.cli.init import init
from gate.cli.merging import merge
from gate.cli.publish import publish
from gate.cli.pushing import push
from gate.cli.reporting import report
from gate.cli.static import explain, lint, list_tables

EXIT_CODES = """
\b
Exit codes:
  0   PASS
  1   FAIL: judged, and not good enough
  2   command line or settings wrong
  3   could not judge
  4   INCONCLUSIVE, only where the settings ask for it
  130 interrupted
"""


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quant-gate")
def cli() -> None:
    """The quality gate for quantized LLM checkpoints."""


for command in (
    lint,
    check,
    detect,
    evaluate,
    merge,
    compare,
    calibrate,
    diagnose,
    explain,
    list_tables,
    doctor,
    bundle,
    demo,
    init,
    import_,
    baseline,
    history,
    dashboard,
    report,
    attest,
    verify,
    push,
    publish,
    action,
):
    cli.add_command(command)
