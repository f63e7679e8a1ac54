"""What a model spec declares, as types; durations and instants are milliseconds. `specfile` reads them from YAML."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from schemas.units import parse_duration_ms

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
# From row to row of a file without times.
DEFAULT_INTERVAL_MS = 1_000

Task = Literal["binary", "multiclass", "regression"]
# "auto" stands in a file that leaves the type to inference; a complete spec has none of it.
FeatureType = Literal["number", "boolean", "category", "text", "embedding", "image", "auto"]
Policy = Literal["drop", "hash", "mask"]
Severity = Literal["info", "low", "high", "critical"]
RuleName = Literal["harm", "drift", "fairness", "freshness"]
# Those that a retraining can help against: no new model makes events come again.
TriggerName = Literal["harm", "drift", "fairness"]
LauncherName = Literal["local", "torchrun", "kubernetes"]

NUMERIC_TYPES: tuple[FeatureType, ...] = ("number", "boolean")

# The first is the task's primary metric.
METRICS: dict[Task, tuple[str, ...]] = {
    "binary": (
        "roc_auc", "accuracy", "f1", "precision", "recall", "log_loss", "brier", "pr_auc", "calibration_error",
    ),
    "multiclass": ("accuracy", "f1", "log_loss", "roc_auc", "precision", "recall", "pr_auc", "calibration_error"),
    "regression": ("mae", "rmse", "mape", "r2"),
}  # fmt: skip
# How performance is estimated without labels.
ESTIMATES: dict[Task, tuple[str, ...]] = {
    "binary": ("cbpe", "none"),
    "multiclass": ("cbpe", "none"),
    "regression": ("dle", "none"),
}
# In measurements these stand for the output.
RESERVED_FEATURES = ("prediction", "score")
# Their thresholds are p-values; the others are distances.
P_VALUE_METHODS = ("ks", "cramer_von_mises", "anderson_darling", "chisquare", "g_test")
DRIFT_METHODS = (
    "auto", "jensenshannon", "psi", "kl_div", "hellinger", "wasserstein", "energy", "total_variation", "l_infinity",
    *P_VALUE_METHODS,
)  # fmt: skip
DETECTORS = ("adwin", "kswin", "page_hinkley", "ddm", "eddm", "hddm_a", "hddm_w")
# Beside them stands the user's own `module:factory`.
ARCHITECTURES = ("auto", "linear", "mlp", "resnet", "cnn", "text")
DATA_WINDOWS = ("auto", "all", "after_change")
MULTIVARIATE_METHODS = ("domain_classifier", "mmd", "pca_reconstruction")


class ReferenceColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Which columns of the reference play which role; None: the column of that very name, where there is one.

    `scores` is a pattern such as `proba_*` for multiclass, the part matched by `*` being the class.
    """

    label: str | None = None
    score: str | None = None
    prediction: str | None = None
    id: str | None = None
    ts: str | None = None
    scores: str | None = None


class ReferenceSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where the reference comes from: exactly one of `file` (as written in the spec), `sql`, or `from_` and `to`.

    Without times its rows take `interval_ms` in file order.
    """

    file: str | None = None
    sql: str | None = None
    from_: int | None = msgspec.field(default=None, name="from")
    to: int | None = None
    columns: ReferenceColumns = ReferenceColumns()
    interval_ms: int | None = None


class WindowSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Tumbling windows of `size_ms`, aligned with `origin_ms`; `retention` counts windows, `idle_ms` is clock time."""

    size_ms: int
    origin_ms: int = 0
    lateness_ms: int
    min_rows: int = 100
    retention: int = 30
    idle_ms: int = 30_000


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One feature; a value outside `min`, `max` or `values` is a matter of quality, not refused.

    Of the last three only published specs have any: the number is a `descriptor` of the feature `of`, which as an
    embedding has `num_dimensions`.
    """

    type: FeatureType
    min: float | None = None
    max: float | None = None
    values: list[str] | None = None
    policy: Policy | None = None
    of: str | None = None
    descriptor: str | None = None
    num_dimensions: int | None = None

    @property
    def is_numeric(self) -> bool:
        """True where values are kept as numbers, false where as text."""
        return self.type in NUMERIC_TYPES


class FalseAlarms(msgspec.Struct, frozen=True):
    """At most `count` false alerts in `per_ms`, on average."""

    count: float = 1.0
    per_ms: int = 30 * DAY_MS


class DriftSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How drift is measured and when it opens an alert; `rows: blocks` is for dependent rows.

    `multivariate` are statistics of whole rows, which open no alert.
    """

    method: str = "auto"
    threshold: Literal["calibrated"] | float = "calibrated"
    false_alarms: FalseAlarms = FalseAlarms()
    rows: Literal["independent", "blocks"] = "independent"
    multivariate: list[str] = []


class OnlineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One online detector; `on` is `score`, `error` or a numeric feature, `parameters` are River's."""

    detector: str
    on: str
    parameters: dict[str, float | int | bool | str] = {}


class PerformanceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured of a model's output, and when it counts as harm.

    `limits` is `calibrated` (at most `false_alarms`), `<number>sd` around the reference windows' mean, or `none`.
    """

    metrics: list[str]
    estimate: Literal["cbpe", "dle", "none"]
    limits: str = "calibrated"
    false_alarms: FalseAlarms = FalseAlarms()
    min_label_coverage: float = 0.9
    baseline: Literal["no_change", "none"] = "none"

    @property
    def limits_sd(self) -> float | None:
        """How many standard deviations the limits lie from the mean; None where that is not what sets them."""
        return None if self.limits in ("none", "calibrated") else float(self.limits.removesuffix("sd"))


class FairnessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Up to which gap of a rate over the values of a segment key a model is fair; None: not measured.

    `disparate_impact` is a ratio, fair from there on.
    """

    demographic_parity: float | None = None
    equal_opportunity: float | None = None
    disparate_impact: float | None = None


class AlertRule(msgspec.Struct, frozen=True, kw_only=True):
    """Opens an alert when `when` has held for `for_` decided windows in a row.

    With `report`, the window in which it began is kept as an HTML report once it fires. Of `freshness`, which has no
    windows, `max_age_ms` is how long a topic may be without an event of the model, by the clock: one for records and
    predictions, or one for each of the inbound topics that are named.
    """

    when: RuleName
    for_: int = msgspec.field(default=1, name="for")
    severity: Severity
    report: bool = True
    max_age_ms: int | dict[str, int] | None = None


class ResourceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a training job may use; None: no limit of its own, of `processes` one a GPU, else one."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: int = 1
    processes: int | None = None
    gpu_memory_bytes: int | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    timeout_ms: int = HOUR_MS


class PromoteSpec(msgspec.Struct, frozen=True, kw_only=True):
    """When a challenger takes over: a gain of `min_gain` in the primary metric, its lower bound above 0.

    `segment_tolerance` is what it may lose in a segment, `max_latency_ms` and `max_size_bytes` what it may cost (None:
    measured, not limited), `shadow` for how many windows it is first scored beside the champion.
    """

    confidence: float = 0.95
    min_gain: float = 0.003
    segment_tolerance: float = 0.01
    max_latency_ms: int | None = None
    max_size_bytes: int | None = None
    shadow: int = 0


class RollbackSpec(msgspec.Struct, frozen=True, kw_only=True):
    """When a promotion is undone: `for_` labelled windows in a row below its promise and surely below the old model."""

    for_: int = msgspec.field(default=2, name="for")


class TrainingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a network is trained; what is None follows from the number of rows and the network.

    `start: warm` begins with the champion's weights where they fit. `early_stopping` is a number of epochs without
    gain, or `none`: then all rows are learnt from for all epochs at once.
    """

    start: Literal["scratch", "warm"] = "scratch"
    class_weights: Literal["none", "balanced"] = "none"
    epochs: int | None = None
    batch_rows: int | None = None
    learning_rate: float | None = None
    early_stopping: Literal["auto", "none"] | int = "auto"
    deterministic: bool = False


class TolerationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A taint of nodes that a pod puts up with, in Kubernetes' own words."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class KubernetesSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as what a job's pod runs; None: the trainer's namespace, the namespace's service account, no claim."""

    image: str
    namespace: str | None = None
    service_account: str | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[TolerationSpec] = []
    artifacts_claim: str | None = None


class BudgetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """At most so much retraining of one model in `per_ms`; None: no limit.

    `jobs` counts requests in event time, `gpu_hours` those used by the clock.
    """

    jobs: int | None = None
    gpu_hours: float | None = None
    per_ms: int = 7 * DAY_MS


class QuietHoursSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Hours of the day, by the clock, in which no job starts: from ≤ time < to, over midnight where `to` is earlier."""

    from_: str = msgspec.field(name="from")
    to: str
    timezone: str = "UTC"


class CostAwareSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The harm that an hour of training must promise to undo: metric lost times rows of a window, an hour."""

    min_gain_per_hour: float


class DataSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Which labelled rows are learnt from.

    `window` is `auto`, `all`, `after_change`, a duration before the gate rows such as `30d`, or `100000 rows`.
    `replay` is the share of older rows among those from after a change; `folds` is of a cross-validation, 0 for none.
    """

    window: str = "auto"
    replay: float = 0.2
    min_labels: int = 500
    folds: int = 0

    @property
    def num_rows(self) -> int | None:
        """How many of the newest rows, where the window says so."""
        return int(self.window.removesuffix(" rows")) if self.window.endswith(" rows") else None

    @property
    def span_ms(self) -> int | None:
        """How long before the gate rows, where the window says so."""
        return None if self.window in DATA_WINDOWS or self.num_rows is not None else parse_duration_ms(self.window)


class RetrainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """When and how a model is trained anew; `architecture` is one of `ARCHITECTURES` or the user's `module:factory`.

    `rollback` None: a promotion is never undone by itself. `schedule` is a cron line in
    event time (UTC), `new_labels` a number of labels since the last training.
    """

    on: list[TriggerName] = msgspec.field(default_factory=lambda: ["harm"])
    for_: int = msgspec.field(default=1, name="for")
    schedule: str | None = None
    new_labels: int | None = None
    cooldown_ms: int = 6 * HOUR_MS
    budget: BudgetSpec | None = None
    quiet_hours: QuietHoursSpec | None = None
    cost_aware: CostAwareSpec | None = None
    data: DataSpec = DataSpec()
    architecture: str = "auto"
    seed: int = 0
    training: TrainingSpec = TrainingSpec()
    launcher: LauncherName = "local"
    resources: ResourceSpec = ResourceSpec()
    kubernetes: KubernetesSpec | None = None
    promote: PromoteSpec = PromoteSpec()
    rollback: RollbackSpec | None = RollbackSpec()


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One monitored model. `features` is empty until inferred where the file leaves it out."""

    model: str
    task: Task
    reference: ReferenceSource
    windows: WindowSpec
    features: dict[str, FeatureSpec] = {}
    segments: list[str] = []
    drift: DriftSpec = DriftSpec()
    online: list[OnlineSpec] = []
    performance: PerformanceSpec
    fairness: FairnessSpec = FairnessSpec()
    alerts: list[AlertRule]
    retrain: RetrainSpec | None = None
    exact_rows: int = 50_000

    @property
    def numeric_features(self) -> list[str]:
        """The features kept as numbers, in the order declared."""
        return [name for name, feature in self.features.items() if feature.is_numeric]

    @property
    def category_features(self) -> list[str]:
        """The features counted by their values, in the order declared."""
        return [name for name, feature in self.features.items() if feature.type == "category"]

    @property
    def stored_features(self) -> dict[str, FeatureSpec]:
        """The features that outlive the personal-data policy `drop`."""
        return {name: feature for name, feature in self.features.items() if feature.policy != "drop"}

    @property
    def sent_features(self) -> dict[str, FeatureSpec]:
        """The features that events bring."""
        return {name: feature for name, feature in self.features.items() if feature.of is None}

    @property
    def derived_features(self) -> dict[str, FeatureSpec]:
        """The features that are computed from others."""
        return {name: feature for name, feature in self.features.items() if feature.of is not None}


def default_alerts() -> list[AlertRule]:
    """Give the rules of a spec without `alerts`: harm is worth waking up for, drift alone is a note."""
    return [AlertRule(when="harm", severity="high"), AlertRule(when="drift", severity="info")]


def default_performance(task: Task, **given: Any) -> PerformanceSpec:
    """Give the task's performance section; `given` overrides."""
    estimate = "none" if task == "regression" else "cbpe"
    return PerformanceSpec(**{"metrics": list(METRICS[task]), "estimate": estimate, **given})
