"""The model card: what a version is, in words that people read.

Owns the text; every figure comes from the manifest and the card's facts (`card_facts`).
"""

from __future__ import annotations

from retrain.card_facts import CardFacts
from retrain.images import ImageInput
from retrain.network import NetworkConfig
from retrain.preprocessing import ExtraInput
from retrain.texts import TextInput
from retrain.trained_model import Manifest
from schemas.instants import format_instant


def write_card(manifest: Manifest, facts: CardFacts) -> str:
    """Write the card of a version in Markdown."""
    train, gate = manifest.train, manifest.gate
    numbers = ", ".join(column.name for column in manifest.preprocessing.numbers) or "none"
    categories = ", ".join(column.name for column in manifest.preprocessing.categories) or "none"
    ignored = ", ".join(manifest.preprocessing.ignored)
    extra = [f"- {each.name}: {_describe_input(each)}" for each in manifest.preprocessing.extra]
    kind = describe_network(manifest.network)
    lines = [
        f"# {manifest.model}: model of job {manifest.job_id}",
        "",
        f"A {manifest.target.task} model, trained by driftloop without a human in between: {kind}.",
        "",
        manifest.start.words,
        "",
        "## Verdict",
        "",
        manifest.verdict,
        "",
        *_list_gates(facts),
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
        manifest.choice.words,
        "The gate rows are later than all training rows, and no record is in both.",
        "",
        "## Inputs",
        "",
        f"- numbers and booleans: {numbers}",
        f"- categories: {categories}",
        *extra,
        *([f"- declared but not read: {ignored}"] if ignored else []),
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
        _limit_groups(facts),
        "",
        *_list_lineage(facts),
        "## Repeat and verify",
        "",
        f"- code {manifest.code_version}, torch {manifest.torch_version}, spec version {manifest.spec_version}",
        f"- {manifest.num_epochs} epochs on {manifest.device}, {manifest.num_threads} thread(s)",
        f"- seed {manifest.training.seed}, batches of {manifest.training.batch_rows} rows"
        + (", deterministic algorithms only" if manifest.training.deterministic else ""),
        f"- SHA-256 of the weights: `{manifest.weights_sha256}`.",
        "",
    ]
    return "\n".join(lines)


def describe_network(config: NetworkConfig) -> str:
    """Say in words what a network is made of."""
    if ":" in config.architecture:
        return f"the network of {config.architecture} (SHA-256 of its code `{config.factory_sha256[:16]}…`)"
    parts = ["embeddings for categories"] if config.schema.categories else []
    for each in config.schema.extra:
        if isinstance(each, ImageInput):
            parts.append("two convolutions for images" if config.convolutions else "the pixels of images")
        else:
            parts.append("a bag of hashed n-grams for texts" if isinstance(each, TextInput) else "given embeddings")
    if config.num_blocks:
        parts.append(f"{config.num_blocks} residual blocks of {config.hidden[0]}")
    elif config.hidden:
        parts.append(f"hidden layers of {' and '.join(map(str, config.hidden))}")
    else:
        parts.append("no hidden layer")
    kind = "a small neural network" if config.hidden or config.convolutions else "a linear model"
    return f"{kind} ({', '.join(dict.fromkeys(parts))})"


def _describe_input(extra: ExtraInput) -> str:
    if isinstance(extra, ImageInput):
        return f"image, {extra.channels} × {extra.height} × {extra.width}"
    if isinstance(extra, TextInput):
        return f"text, its first {extra.max_words} words in {extra.num_buckets:,} buckets"
    return f"embedding of {extra.width} numbers"


def _list_gates(facts: CardFacts) -> list[str]:
    """List every gate; what depends on the machine's clock has no value here, but has in the table `gates`."""
    return [
        "## Gates",
        "",
        "| gate | of | passed | value | limit | in words |",
        "|---|---|---|---|---|---|",
        *(
            f"| {gate.name} | {_escape(gate.segment)} | {'yes' if gate.passed else '**no**'} | {_show(gate.value)} "
            f"| {_show(gate.limit)} | {_escape(gate.words)} |"
            for gate in facts.gates
        ),
        "",
    ]


def _limit_groups(facts: CardFacts) -> str:
    judged = [gate.segment for gate in facts.gates if gate.name == "segment"]
    if judged:
        return f"Groups other than the {len(judged)} segments among the gates were not looked at."
    return "Figures of single groups were not a condition of the gate."


def _list_lineage(facts: CardFacts) -> list[str]:
    lineage = facts.lineage
    return [
        "## Lineage",
        "",
        f"- asked for by rule `{lineage.rule}`, request `{lineage.request_id}`"
        + (f", alert `{lineage.alert_id}`" if lineage.alert_id else "")
        + (f": {_escape(lineage.reason)}" if lineage.reason else ""),
        f"- compared with version {lineage.champion}, under spec version {lineage.spec_version}",
        f"- SHA-256 of all rows, training and gate: `{lineage.data_hash}`",
        "- the queries that read them, with their parameters, are in `card.json`",
        "",
    ]


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _escape(text: str) -> str:
    """Keep a text from a table's or a page's structure: it may come from data."""
    for sign in "\\`|*_[]<>":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
