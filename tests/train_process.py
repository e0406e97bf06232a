"""Be one of several training processes: `torchrun … train_process.py ROOT PARAMS.json KILL_AFTER`.

Runs stage `train`; the process that writes kills itself when so many epochs are on the disk (0:
never).
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tasks.core.parallel.process import PartDone
from tasks.core.paths import Paths
from tasks.core.training import fit
from tasks.train import initial_model, stage


def main(root: Path, params: dict, kill_after: int) -> None:
    save = fit.save_progress

    def save_and_die(folder, progress, fingerprint):
        save(folder, progress, fingerprint)
        if progress.epoch == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    fit.save_progress = save_and_die
    with suppress(PartDone):
        stage.run(initial_model.TrainParams.model_validate(params), Paths(root))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3]))
