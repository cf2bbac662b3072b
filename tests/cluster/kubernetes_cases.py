"""deploy/kubernetes, without a cluster: kubernetes_cases.py TESSERA MODEL FAKE_SERVER

Every overlay is assembled and held against the schemas of its kinds (tests/data/kubernetes), options
against the program's own help, metrics against what a server says; and the launcher of an overlay is
started as its pod would, as process 1, probed, and stopped by its hook.
"""

import copy
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "serve"))
from server import Server, expect, run, until

try:
    import jsonschema
    import yaml

    from kustomize import assemble
except ImportError as missing:
    print(f"skipped: {missing}: python3-yaml and python3-jsonschema")
    sys.exit(77)

ROOT = pathlib.Path(__file__).parent.parent.parent
HERE = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent for path in HERE.glob("overlays/*/kustomization.yaml"))
SCHEMAS = json.loads((ROOT / "tests/data/kubernetes/schemas.json").read_text())


def wrong(document):
    """What a strict server would refuse, one line each."""
    if document.get("kind") not in SCHEMAS:
        return [f"no schema of {document.get('kind')}"]
    found = jsonschema.Draft7Validator(SCHEMAS[document["kind"]]).iter_errors(document)
    return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in found]


def jobs():
    for overlay in OVERLAYS:
        documents = assemble(overlay)
        for document in documents:
            if document["kind"] == "MPIJob":
                yield overlay.name, document, documents


def container(job, role):
    (one,) = job["spec"]["mpiReplicaSpecs"][role]["template"]["spec"]["containers"]
    return one


def settings_of(job, documents):
    """The environment of the launcher, and where it comes from."""
    name = container(job, "Launcher")["envFrom"][0]["configMapRef"]["name"]
    (data,) = [d["data"] for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == name]
    return data


def words_of(job, documents):
    """The launcher's command, as the kubelet would have it."""
    data = settings_of(job, documents)

    def value(match):
        if match[1] not in data:
            raise AssertionError(f"{match[0]} is set nowhere")
        return data[match[1]]

    one = container(job, "Launcher")
    return [re.sub(r"\$\((\w+)\)", value, word) for word in one["command"] + one["args"]]


def every_overlay_is_valid(*_):
    expect([o.name for o in OVERLAYS], ["cpu-demo", "h200-2x8", "h200-2x8-batch"])
    for overlay in OVERLAYS:
        for document in assemble(overlay):
            expect([f"{overlay.name}: {line}" for line in wrong(document)], [])


def what_is_wrong_is_found(*_):
    job = next(document for _, document, _ in jobs())
    service = next(d for d in assemble(OVERLAYS[0]) if d["kind"] == "Service")
    launcher = ["spec", "mpiReplicaSpecs", "Launcher", "template", "spec", "containers", 0]
    cases = [
        (job, ["spec", "slotPerWorker"], 2, "slotPerWorker"),
        (job, ["spec", "slotsPerWorker"], "two", "slotsPerWorker"),
        (job, ["spec", "runLauncherAsWorker"], "yes", "runLauncherAsWorker"),
        (job, ["spec", "runPolicy", "backOffLimit"], 1, "backOffLimit"),
        (job, [*launcher, "readinessProbe", "httpGet", "port"], {"name": "http"}, "port"),
        (job, [*launcher, "ports", 0, "containerPort"], "http", "containerPort"),
        (job, [*launcher, "ports", 0, "port"], 8000, "port"),
        (job, [*launcher, "lifecycle", "preStop", "command"], ["true"], "command"),
        (job, [*launcher, "resources", "limits", "memory"], [2], "memory"),
        (service, ["spec", "ports", 0, "port"], "http", "port"),
        (service, ["spec", "ports", 0, "portName"], "http", "portName"),
        (service, ["spec", "selectors"], {}, "selectors"),
    ]
    for document, path, value, named in cases:
        damaged = copy.deepcopy(document)
        holder = damaged
        for word in path[:-1]:
            holder = holder[word]
        holder[path[-1]] = value
        lines = wrong(damaged)
        if len(lines) != 1 or named not in lines[0]:
            raise AssertionError(f"{path}: found {lines}")
    expect(wrong({"kind": "Pod"}), ["no schema of Pod"])


def a_kubectl_assembles_the_same(*_):
    if shutil.which("kubectl") is None:
        print("  no kubectl to compare with")
        return
    for overlay in OVERLAYS:
        done = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(done.stderr)

        def in_order(documents):
            return sorted(documents, key=lambda d: (d["kind"], d["metadata"]["name"]))

        expect(in_order(assemble(overlay)), in_order(yaml.safe_load_all(done.stdout)))


def names_meet(*_):
    """Ranks and slots, probes and ports, selectors and jobs say the same."""
    for name, job, documents in jobs():
        data = settings_of(job, documents)
        pods = sum(r["replicas"] for r in job["spec"]["mpiReplicaSpecs"].values())
        expect((name, int(data["RANKS_PER_POD"])), (name, job["spec"]["slotsPerWorker"]))
        expect((name, int(data["RANKS"])), (name, pods * job["spec"]["slotsPerWorker"]))
        for role in job["spec"]["mpiReplicaSpecs"]:
            one = container(job, role)
            ports = {port["name"] for port in one.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                where = one.get(probe, {})
                where = where.get("httpGet") or where.get("tcpSocket") or {"port": None}
                expect((name, probe, where["port"] in ports | {None}), (name, probe, True))
            spec = job["spec"]["mpiReplicaSpecs"][role]["template"]["spec"]
            expect(
                {mount["name"] for mount in one["volumeMounts"]}, {v["name"] for v in spec["volumes"]}
            )
            cards = one["resources"]["limits"].get("nvidia.com/gpu")
            expect((name, role, cards in (None, job["spec"]["slotsPerWorker"])), (name, role, True))
        for service in (d for d in documents if d["kind"] == "Service"):
            expect(service["spec"]["selector"]["training.kubeflow.org/job-name"], job["metadata"]["name"])
        grace = job["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"].get(
            "terminationGracePeriodSeconds"
        )
        for word in words_of(job, documents):
            if word.startswith("--shutdown-timeout="):
                expect((name, int(word.split("=")[1]) < grace), (name, True))


def every_option_is_the_programs(program, *_):
    checked = 0
    for name, job, documents in jobs():
        words = words_of(job, documents)
        at = words.index("tessera")
        text = subprocess.run([program, words[at + 1], "--help"], capture_output=True, text=True).stdout
        for word in words[at + 3 :]:
            option = word.split("=")[0]
            if re.search(rf"^\s+{option}\b", text, re.MULTILINE) is None:
                raise AssertionError(f"{name}: {words[at + 1]} has no {option}")
            checked += 1
        for variable in container(job, "Launcher").get("env", []):
            option = variable["name"].replace("TESSERA_", "--").replace("_", "-").lower()
            expect((name, option, option + " " in text), (name, option, True))
    expect(checked > 10, True)


def metrics_of(fake_server, model):
    with Server(fake_server, model) as server:
        server.wait_ready()
        server.json("POST", "/v1/completions", {"prompt": "hello", "max_tokens": 4})
        text = server.ask("GET", "/metrics")[2].decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    histograms = {n + end for n, k in kinds.items() if k == "histogram" for end in ("_bucket", "_sum", "_count")}
    labels = set(re.findall(r'[{,](\w+)="', text)) | {"layer"}  # of experts, once there are some
    return {n for n, k in kinds.items() if k != "histogram"} | histograms, labels


FUNCTIONS = {"and", "by", "histogram_quantile", "increase", "le", "or", "rate", "sum", "label_values"}
# what prometheus.yaml adds to each
ADDED = {"service", "namespace", "job", "instance"}


def expressions():
    board = json.loads((HERE / "dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield f"panel '{panel['title']}'", target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]
    for group in yaml.safe_load((HERE / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def strange_names(expression, metrics, labels):
    """Names of metrics and labels that no server says."""
    bare = re.sub(r'"[^"]*"|\[[^]]*\]|\$\w+', "", expression)
    words = set(re.findall(r"[A-Za-z_:][\w:]*", bare))
    return words - metrics - labels - ADDED - FUNCTIONS


def every_metric_is_the_servers(_, model, fake_server):
    metrics, labels = metrics_of(fake_server, model)
    count = 0
    for where, expression in expressions():
        expect((where, strange_names(expression, metrics, labels)), (where, set()))
        count += 1
    expect(count > 20, True)
    made_up = 'rate(tessera_tokens_total{service="a"}[5m]) + tessera_ready{kind="x"}'
    expect(strange_names(made_up, metrics, labels), {"tessera_tokens_total", "kind"})


def prometheus_finds_the_gateway(*_):
    rules = yaml.safe_load((HERE / "prometheus.yaml").read_text())
    expect(rules["rule_files"], ["alerts.yaml"])
    (scrape,) = rules["scrape_configs"]
    port = [r for r in scrape["relabel_configs"] if "port_name" in str(r["source_labels"])][0]
    _, job, _ = next(jobs())
    one = container(job, "Launcher")
    expect(port["regex"], f"{one['name']};{one['ports'][0]['name']}")


class Pod:
    """A launcher, process 1 of namespaces of its own, on this machine instead of two pods."""

    def __init__(self, program, model, folder):
        _, job, documents = next(entry for entry in jobs() if entry[0] == "cpu-demo")
        hosts = pathlib.Path(folder) / "hostfile"
        hosts.write_text("localhost slots=4\n")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        instead = {
            "/etc/mpi/hostfile": str(hosts), "tessera": program, "--port=8000": f"--port={self.port}",
            settings_of(job, documents)["MODEL"]: model, "ppr:2:node": "ppr:4:node",
        }
        words = [instead.pop(word, word) for word in words_of(job, documents)]
        expect(instead, {})
        self.launcher = container(job, "Launcher")
        self.worker = container(job, "Worker")
        environment = dict(
            os.environ, **{k: v.replace("eth0", "lo") for k, v in settings_of(job, documents).items()},
            OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", HWLOC_COMPONENTS="-gl",
            OMPI_MCA_rmaps_base_oversubscribe="1", OMPI_MCA_btl_vader_single_copy_mechanism="none",
        )
        self.errors = open(pathlib.Path(folder) / "errors", "w+")
        self.process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", *words], env=environment, stderr=self.errors
        )

    def inside(self, command):
        """A command in the namespaces of process 1."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        first = children.read_text().split()[0]
        return subprocess.Popen(["nsenter", "-t", first, "--root", "--wd", "--pid", "--mount", *command])

    def status(self, probe):
        path = self.launcher[probe]["httpGet"]["path"]
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return None


def a_pod_starts_is_probed_and_drains(program, model, _):
    if os.geteuid() != 0 or subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"],
                                           capture_output=True).returncode != 0:
        print("  no namespaces here")
        return
    with tempfile.TemporaryDirectory() as folder:
        pod = Pod(program, model, folder)
        try:
            until(lambda: pod.status("readinessProbe") == 200, "it does not become ready", 30)
            expect(pod.status("startupProbe"), 200)
            expect(pod.status("livenessProbe"), 200)
            worker = pod.inside(pod.worker["lifecycle"]["preStop"]["exec"]["command"])
            launcher = pod.inside(pod.launcher["lifecycle"]["preStop"]["exec"]["command"])
            expect(pod.process.wait(30), 0)
            launcher.wait(10)
            worker.wait(10)
            pod.errors.seek(0)
            expect("draining" in pod.errors.read(), True)
        except BaseException:
            pod.errors.seek(0)
            sys.stderr.write(pod.errors.read()[-2000:])
            pod.process.kill()
            raise


if __name__ == "__main__":
    sys.exit(run(
        [
            every_overlay_is_valid,
            what_is_wrong_is_found,
            a_kubectl_assembles_the_same,
            names_meet,
            every_option_is_the_programs,
            every_metric_is_the_servers,
            prometheus_finds_the_gateway,
            a_pod_starts_is_probed_and_drains,
        ],
        *sys.argv[1:4],
    ))
