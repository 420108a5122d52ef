"""`gate action`: the step of a workflow."""

import os

import click


@click.command()
def action() -> int:
    """What action.yml runs.

    Takes its inputs from the environment, QUANT_GATE_INPUT_NAME for the input `name`.
    """
    from gate.github.action import action as act

    return act(os.environ)
