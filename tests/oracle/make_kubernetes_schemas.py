"""tests/data/kubernetes/schemas.json: what Kubernetes and its MPI operator let our manifests hold.

    pip download --no-deps kubernetes-validate
    make_kubernetes_schemas.py kubernetes_validate-*.whl kubeflow.org_mpijobs.yaml

The first has the schemas of Kubernetes' own kinds, the second is the operator's
manifests/base/kubeflow.org_mpijobs.yaml. Both are under the Apache License 2.0. Descriptions are left
out, and kinds of volumes and containers that nobody here uses; every object is closed, so that a field
with a wrong name is found.
"""

import json
import sys
import zipfile

import yaml

RELEASE = "v1.31.0-local-strict"
KINDS = {"ConfigMap": "configmap-v1", "Service": "service-v1"}
VOLUMES = {"configMap", "emptyDir", "hostPath", "name", "persistentVolumeClaim", "secret"}
LEFT_OUT = {"affinity", "ephemeralContainers", "initContainers", "resourceClaims", "workloadRef"}
WORDS = {"additionalProperties", "anyOf", "enum", "items", "maximum", "minimum", "oneOf", "pattern",
         "required", "type"}


def closed(schema, read=None):
    """Without words that say nothing, references followed."""
    if "$ref" in schema:
        return closed(read(schema["$ref"]), read)
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {}
    for word, value in schema.items():
        if word == "properties":
            made[word] = {name: closed(field, read) for name, field in value.items()}
        elif word in ("items", "additionalProperties") and isinstance(value, dict):
            made[word] = closed(value, read)
        elif word in ("anyOf", "oneOf"):
            made[word] = [closed(one, read) for one in value]
        elif word in WORDS:
            made[word] = value
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def kind_of(wheel, stem):
    folder = f"kubernetes_validate/kubernetes-json-schema/{RELEASE}/"

    def read(reference):
        file, _, place = reference.partition("#")
        file = file or "_definitions.json"
        found = json.loads(wheel.read(folder + file.split("/")[-1]))
        for word in place.strip("/").split("/") if place.strip("/") else []:
            found = found[word]
        return found

    made = closed(read(stem + ".json"), read)
    made["properties"].pop("status", None)
    fields = made["properties"]["metadata"]["properties"]
    keep = {"annotations", "labels", "name", "namespace"}
    made["properties"]["metadata"]["properties"] = {k: v for k, v in fields.items() if k in keep}
    return made


def mpijob(crd):
    version = next(v for v in crd["spec"]["versions"] if v["name"] == "v2beta1")
    made = closed(version["schema"]["openAPIV3Schema"])
    fields = made["properties"]
    fields.pop("status", None)
    fields["metadata"] = {
        "type": "object", "required": ["name"], "additionalProperties": False,
        "properties": {"name": {"type": "string"}, "namespace": {"type": "string"},
                       "labels": {"type": "object", "additionalProperties": {"type": "string"}}},
    }
    replica = fields["spec"]["properties"]["mpiReplicaSpecs"]["additionalProperties"]
    pod = replica["properties"]["template"]["properties"]["spec"]["properties"]
    for name in LEFT_OUT & pod.keys():
        del pod[name]
    volume = pod["volumes"]["items"]["properties"]
    pod["volumes"]["items"]["properties"] = {k: v for k, v in volume.items() if k in VOLUMES}
    return made


def main():
    with zipfile.ZipFile(sys.argv[1]) as wheel, open(sys.argv[2]) as crd:
        schemas = {kind: kind_of(wheel, stem) for kind, stem in KINDS.items()}
        schemas["MPIJob"] = mpijob(yaml.safe_load(crd))
    with open("tests/data/kubernetes/schemas.json", "w") as file:
        for i, (kind, schema) in enumerate(sorted(schemas.items())):
            text = json.dumps(schema, sort_keys=True, separators=(",", ":"))
            file.write(("{" if i == 0 else ",\n") + json.dumps(kind) + ":" + text)
        file.write("}\n")


if __name__ == "__main__":
    main()
