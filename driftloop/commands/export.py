"""`driftloop export`"""

from __future__ import annotations

from importlib.metadata import version as read_release
from pathlib import Path

import click

from driftloop.cli import Context
from driftloop.commands.card import find_version
from schemas.errors import ConfigurationError
from store.artifacts import open_artifacts


@click.command(short_help="Write a version for other programs.")
@click.argument("model")
@click.argument("version", required=False)
@click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="New or empty folder."
)
@click.option("--format", "kind", type=click.Choice(["onnx", "mlflow"]), required=True, help="What to write.")
@click.pass_obj
def export(context: Context, model: str, version: str | None, folder: Path, kind: str) -> None:
    """Write VERSION of MODEL (default: the champion) as an ONNX graph, or as a folder that MLflow loads.

    The artifact is verified first. ONNX needs driftloop[onnx]; its graph reads encoded rows.

    \b
    Example:  driftloop export fraud --to fraud-onnx --format onnx
              driftloop export fraud 7 --to fraud-mlflow --format mlflow
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty", key="--to", remedy="Name a new folder")
    row, _ = find_version(context, model, version)
    files = open_artifacts(context.settings.runtime.artifacts).read(row.uri, row.sha256)
    # Imported once it is needed: it loads torch.
    from retrain.exporting import export_mlflow, export_onnx

    written = export_onnx(files) if kind == "onnx" else export_mlflow(files, row, read_release("driftloop"))
    for name, content in written.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    click.echo(f"version {row.version} of {model} as {kind} in {folder}: {', '.join(sorted(written))}")
