"""The ServerApp: stage 1 rounds, hand-out, stage 2, evaluation, report."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fed.plain_text import plain
from fed.settings.settings import Settings
from server_strategy.grid.nodes import RunError
from server_strategy.report.run_log import say
from server_strategy.run import run

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation; a broken rule is one `error:` line, and the run fails."""
    try:
        settings = Settings.parse(context.run_config)
        run(grid, settings, settings.run_folder(context.run_id))
    except (RunError, ValueError, OSError) as error:
        say(f"error: {plain(str(error), 1000)}")
        raise
    except Exception as error:  # a defect of ours or of Flower's: the traceback follows in the log
        say(f"error: {type(error).__name__}: {plain(str(error), 300)}")
        raise
