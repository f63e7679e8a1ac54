"""The part of Kubernetes' API that a job needs, through the official client; objects are dictionaries, as in YAML.

Owns the client and its errors: Retryable when trying again may help, ConfigurationError when it does not. Needs the
package `kubernetes` (`pip install 'driftloop[kubernetes]'`), and imports it only when used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationError, Retryable

_CONNECT_S, _READ_S = 5.0, 30.0
# A log that says nothing for so long is asked for again.
_LOG_READ_S = 10.0
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# What the API refuses for good: a bad object, no rights, nothing there.
_REFUSALS = (400, 401, 403, 404, 405, 413, 422)


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, namespace: str, configuration: Any) -> None:
        """`configuration` is a `kubernetes.client.Configuration`."""
        from kubernetes import client

        # Retrying is the caller's, who has a deadline.
        configuration.retries = False
        self.namespace = namespace
        self._client = client.ApiClient(configuration)
        self._batch, self._core = client.BatchV1Api(self._client), client.CoreV1Api(self._client)
        self._models = client

    @classmethod
    def connect(cls, namespace: str | None) -> Cluster:
        """Use the service account of the pod that this process runs in, or else the kubeconfig of this user."""
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise ConfigurationError(
                "the Kubernetes client is not installed here",
                key="retrain.launcher",
                remedy="run `pip install 'driftloop[kubernetes]'` where the train role runs",
            ) from error
        configuration = client.Configuration()
        try:
            if _OWN_NAMESPACE.exists():
                config.load_incluster_config(client_configuration=configuration)
                own = _OWN_NAMESPACE.read_text().strip()
            else:
                config.load_kube_config(client_configuration=configuration)
                own = config.list_kube_config_contexts()[1]["context"].get("namespace", "default")
        except (config.ConfigException, OSError) as error:
            raise ConfigurationError(
                f"there is no cluster to be found: {error}",
                key="retrain.launcher",
                remedy="run the train role in a pod, or give it a kubeconfig (KUBECONFIG)",
            ) from error
        return cls(namespace or own, configuration)

    def create_job(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Create a Job and return it; if there is one of that name already, return that."""
        name = manifest["metadata"]["name"]
        body = self._models.V1Job.from_dict(manifest)
        create = partial(self._batch.create_namespaced_job, self.namespace, body)
        found = self._ask(f"create Job {name}", create, harmless=(409,)) or self.read_job(name)
        if found is None:
            raise Retryable(f"Job {name} was there, and is gone")
        return found

    def create_secret(self, manifest: dict[str, Any]) -> None:
        """Create a Secret, if there is none of that name."""
        body = self._models.V1Secret.from_dict(manifest)
        create = partial(self._core.create_namespaced_secret, self.namespace, body)
        self._ask(f"create Secret {manifest['metadata']['name']}", create, harmless=(409,))

    def read_job(self, name: str) -> dict[str, Any] | None:
        """Return a Job; None where there is none."""
        read = partial(self._batch.read_namespaced_job, name, self.namespace)
        return self._ask(f"read Job {name}", read, harmless=(404,))

    def list_jobs(self, selector: str) -> list[dict[str, Any]]:
        """Return the Jobs with these labels."""
        found = self._ask(
            "list Jobs", partial(self._batch.list_namespaced_job, self.namespace, label_selector=selector)
        )
        return list((found or {})["items"])

    def list_pods(self, selector: str) -> list[dict[str, Any]]:
        """Return the pods with these labels, the newest last."""
        found = self._ask("list pods", partial(self._core.list_namespaced_pod, self.namespace, label_selector=selector))
        return sorted((found or {})["items"], key=lambda pod: pod["metadata"].get("creationTimestamp") or "")

    def follow_log(self, pod: str, container: str) -> Iterator[bytes]:
        """Give a pod's log from its beginning, line by line, until it ends; nothing where there is none.

        Retryable when it breaks off, or says nothing for ten seconds.
        """
        with _translate_errors(f"read the log of pod {pod}", harmless=(400, 404)):
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=True,
                _preload_content=False,
                _request_timeout=(_CONNECT_S, _LOG_READ_S),
            )
            line = b""
            try:
                # The API sends a log that is followed in chunks, one as soon as there is something to say.
                for part in answer.stream(amt=None):
                    *lines, line = (line + part).split(b"\n")
                    yield from lines
            finally:
                answer.close()
            if line:
                yield line

    def delete_job(self, name: str) -> None:
        """Delete a Job with its pod and Secret; nothing where there is none."""
        options = self._models.V1DeleteOptions.from_dict({"propagationPolicy": "Background", "gracePeriodSeconds": 0})
        delete = partial(self._batch.delete_namespaced_job, name, self.namespace, body=options)
        self._ask(f"delete Job {name}", delete, harmless=(404,))

    def close(self) -> None:
        """Close the connections."""
        self._client.rest_client.pool_manager.clear()

    def _ask(self, what: str, call: Callable[..., Any], harmless: tuple[int, ...] = ()) -> dict[str, Any] | None:
        """Return an answer as the API writes it; None for one of a `harmless` status."""
        answers: list[dict[str, Any]] = []
        with _translate_errors(what, harmless):
            answers.append(self._client.sanitize_for_serialization(call(_request_timeout=(_CONNECT_S, _READ_S))))
        return answers[0] if answers else None


@contextmanager
def _translate_errors(what: str, harmless: tuple[int, ...] = ()) -> Iterator[None]:
    """Raise our errors for the client's; answers of a `harmless` status are passed over."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status in harmless:
            return
        if error.status in _REFUSALS:
            raise ConfigurationError(
                f"Kubernetes does not {what}: {_quote(error)}",
                key="retrain.kubernetes",
                remedy="deploy/kubernetes/trainer-rbac.yaml has the rights that the train role needs",
            ) from error
        raise Retryable(f"Kubernetes does not {what}: {_quote(error)}") from error
    except (HTTPError, OSError) as error:
        raise Retryable(f"Kubernetes cannot be reached to {what}: {error}") from error


def _quote(error: Any) -> str:
    """Take the message out of the API's answer."""
    try:
        return f"{error.status} {json.loads(error.body)['message']}"
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
