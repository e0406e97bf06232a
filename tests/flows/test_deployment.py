"""docs/deploy/compose.yaml, read: what would start, open to whom, with which options."""

import re
import shlex
import tomllib

import click
import pytest
import yaml
from distributed.cli.dask_scheduler import main as dask_scheduler
from mlflow.cli import cli as mlflow
from whole_way import REPOSITORY

DEPLOY = REPOSITORY / "docs" / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
SERVICES = yaml.safe_load(TEXT)["services"]


def distributions(extra: str) -> set[str]:
    """Return what uv.lock installs for the project with an extra, without its dev group."""
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text(encoding="utf-8"))
    known = {package["name"]: package for package in lock["package"]}
    own = known["affectgap"]
    found, left = set(), [*own["dependencies"], *own["optional-dependencies"][extra]]
    while left:
        entry = left.pop()
        if entry["name"] not in found:
            found.add(entry["name"])
            left += known[entry["name"]].get("dependencies", [])
        for name in entry.get("extra", []):
            left += known[entry["name"]].get("optional-dependencies", {}).get(name, [])
    return found


def test_every_server_is_open_to_this_machine_alone():
    servers = {name for name, service in SERVICES.items() if "ports" in service}
    assert servers == {"postgres", "s3", "mlflow", "dask"}
    for name, service in SERVICES.items():
        assert "network_mode" not in service, name
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), f"{name}: {port}"


def test_what_is_named_is_there():
    whole = yaml.safe_load(TEXT)
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", [])) <= set(SERVICES), name
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert volumes <= set(whole["volumes"]), name
        assert {config["source"] for config in service.get("configs", [])} <= set(whole["configs"])
        build = service.get("build")
        if build:
            context = (DEPLOY / build["context"]).resolve()
            assert context == REPOSITORY and (context / build["dockerfile"]).is_file(), name
        else:
            assert re.search(r":[^:]*\d", service["image"]), f"{name}: no fixed version"
    heading = TEXT.partition("name: ")[0]  # how .env is made
    variables = set(re.findall(r"\$\{(\w+)", TEXT.removeprefix(heading)))
    assert variables == set(re.findall(r"([A-Z][A-Z0-9_]+)=", heading))


def test_postgres_counts_as_healthy_when_it_is_open_to_others():
    """While its image makes the databases, a server answers that only its own socket reaches."""
    assert "-h 127.0.0.1 " in SERVICES["postgres"]["healthcheck"]["test"][-1]


@pytest.mark.parametrize(
    ("service", "words", "command"),
    [
        ("mlflow", ["mlflow", "server"], mlflow.commands["server"]),
        ("dask", ["dask", "scheduler"], dask_scheduler),
    ],
)
def test_the_installed_servers_take_these_options(service, words, command):
    given = shlex.split(SERVICES[service]["command"])
    assert given[:2] == words
    context = command.make_context(service, given[2:])
    port = SERVICES[service]["ports"][0].rpartition(":")[2]
    source = context.get_parameter_source("port")
    assert source is click.core.ParameterSource.COMMANDLINE
    assert (context.params["host"], str(context.params["port"])) == ("0.0.0.0", port)


def test_the_image_has_what_its_servers_import():
    """boto3 for MLflow's artefacts and the buckets, psycopg2 for its database, Dask's scheduler."""
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    (extra,) = re.findall(r"uv sync .*--no-dev --extra (\w+)", dockerfile)
    needed = {"mlflow", "boto3", "psycopg2-binary", "distributed"}
    assert needed <= distributions(extra)
