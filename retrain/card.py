"""The model card: what a version is, in words that people read.

Owns the text; every figure comes from the manifest.
"""

from __future__ import annotations

from retrain.trained_model import Manifest
from schemas.instants import format_instant

_ARCHITECTURES = {
    "mlp": "a small neural network (embeddings for categories, hidden layers of 64 and 32)",
    "linear": "a linear model (embeddings for categories, no hidden layer)",
}


def write_card(manifest: Manifest) -> str:
    """Write the card of a version in Markdown."""
    train, gate = manifest.train, manifest.gate
    numbers = ", ".join(column.name for column in manifest.preprocessing.numbers) or "none"
    categories = ", ".join(column.name for column in manifest.preprocessing.categories) or "none"
    ignored = ", ".join(manifest.preprocessing.ignored)
    kind = _ARCHITECTURES.get(manifest.architecture, manifest.architecture)
    lines = [
        f"# {manifest.model}: model of job {manifest.job_id}",
        "",
        f"A {manifest.target.task} model, trained by driftloop without a human in between: {kind}.",
        "",
        "## Verdict",
        "",
        manifest.verdict,
        "",
        "## Data",
        "",
        "| use | from | to | labelled rows | SHA-256 of the rows |",
        "|---|---|---|---|---|",
        *(
            f"| {use} | {format_instant(rows.start)} | {format_instant(rows.end)} | {rows.num_rows:,} "
            f"| `{rows.sha256[:16]}…` |"
            for use, rows in (("training", train), ("gate", gate))
        ),
        "",
        "The gate rows are later than all training rows, and no record is in both.",
        "",
        "## Inputs",
        "",
        f"- numbers and booleans: {numbers}",
        f"- categories: {categories}",
        *([f"- declared but not read by this architecture: {ignored}"] if ignored else []),
        "",
        f"## Figures on the gate rows (champion: version {manifest.champion})",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.6g} |" for name, value in sorted(manifest.metrics.items())),
        "",
        "## Limits",
        "",
        "It has seen labelled rows of the times above only.",
        "The gate says how it did just after them, not how it will do when the world changes again.",
        "Figures of single groups were not a condition of the gate.",
        "",
        "## Repeat and verify",
        "",
        f"- code {manifest.code_version}, torch {manifest.torch_version}, spec version {manifest.spec_version}",
        f"- {manifest.num_epochs} epochs on {manifest.device}, {manifest.num_threads} thread(s)",
        f"- seed {manifest.training.seed}",
        f"- SHA-256 of the weights: `{manifest.weights_sha256}`.",
        "",
    ]
    return "\n".join(lines)
