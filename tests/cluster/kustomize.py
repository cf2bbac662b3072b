"""Assembles a folder of manifests as `kubectl kustomize` does, as far as deploy/kubernetes goes: resources,
configMapGenerator of literals (merged), images, and JSON patches of a target. Anything else is an error, so
that nothing is passed over. Where there is a kubectl, a test compares the two."""

import json
import pathlib

import yaml

KNOWN = {
    "apiVersion", "kind", "resources", "generatorOptions", "configMapGenerator", "images", "patches",
}


class WrongFolder(Exception):
    pass


def known(what, fields, names):
    strange = set(fields) - set(names)
    if strange:
        raise WrongFolder(f"{what}: not known here: {', '.join(sorted(strange))}")


def place(document, path):
    """What holds the last word of a JSON pointer, and that word."""
    *words, last = [w.replace("~1", "/").replace("~0", "~") for w in path.strip("/").split("/")]
    for word in words:
        document = document[int(word)] if isinstance(document, list) else document[word]
    return document, last


def apply(document, operation):
    known("patch", operation, ["op", "path", "value"])
    holder, word = place(document, operation["path"])
    kind = operation["op"]
    if isinstance(holder, list):
        at = len(holder) if word == "-" else int(word)
        if at > len(holder) - (kind != "add"):
            raise WrongFolder(f"{operation['path']}: there is none")
        if kind == "add":
            holder.insert(at, operation["value"])
            return
        word = at
    elif kind != "add" and word not in holder:
        raise WrongFolder(f"{operation['path']}: there is none")
    if kind == "remove":
        del holder[word]
    elif kind in ("add", "replace"):
        holder[word] = operation["value"]
    else:
        raise WrongFolder(f"{kind}: not known here")


def set_images(node, images):
    if isinstance(node, list):
        for one in node:
            set_images(one, images)
    elif isinstance(node, dict):
        for container in node.get("containers") or []:
            for image in images:
                known("images", image, ["name", "newName", "newTag"])
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
        for one in node.values():
            set_images(one, images)


def generate(documents, generator):
    known("configMapGenerator", generator, ["name", "behavior", "literals"])
    data = dict(literal.split("=", 1) for literal in generator["literals"])
    for document in documents:
        if (document["kind"], document["metadata"]["name"]) == ("ConfigMap", generator["name"]):
            if generator.get("behavior") != "merge":
                raise WrongFolder(f"{generator['name']}: there is one already")
            document["data"].update(data)
            return
    if "behavior" in generator:
        raise WrongFolder(f"{generator['name']}: there is none to {generator['behavior']}")
    documents.append(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
    )


def patch(documents, wanted):
    known("patches", wanted, ["target", "patch"])
    known("target", wanted["target"], ["kind", "name"])
    found = [
        d for d in documents
        if (d["kind"], d["metadata"]["name"]) == (wanted["target"]["kind"], wanted["target"]["name"])
    ]
    if len(found) != 1:
        raise WrongFolder(f"{wanted['target']}: {len(found)} of it")
    for operation in yaml.safe_load(wanted["patch"]):
        apply(found[0], operation)


def assemble(folder):
    folder = pathlib.Path(folder)
    rules = yaml.safe_load((folder / "kustomization.yaml").read_text())
    known(str(folder), rules, KNOWN)
    if rules.get("generatorOptions") != {"disableNameSuffixHash": True}:
        raise WrongFolder(f"{folder}: names get no suffix here: disableNameSuffixHash")
    documents = []
    for name in rules["resources"]:
        path = folder / name
        if path.is_dir():
            documents += assemble(path)
        else:
            # through JSON, so that what an anchor names is there twice and not shared
            documents += json.loads(json.dumps(list(yaml.safe_load_all(path.read_text()))))
    for generator in rules.get("configMapGenerator", []):
        generate(documents, generator)
    for wanted in rules.get("patches", []):
        patch(documents, wanted)
    for document in documents:
        set_images(document, rules.get("images", []))
    return documents
