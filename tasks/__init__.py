"""What affectgap does: one package per stage, and `core` for shared code.

Telemetry is switched off here, before any library that has some is imported: a stage that
`dvc repro` starts gets nothing from the Makefile or from the command line.
"""

import os

# Not defaults: whatever the caller's environment says, nothing is sent. MLflow reads only "true".
os.environ.update(
    DO_NOT_TRACK="true",
    DVC_NO_ANALYTICS="1",
    GX_ANALYTICS_ENABLED="false",
    HF_HUB_DISABLE_TELEMETRY="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
)
