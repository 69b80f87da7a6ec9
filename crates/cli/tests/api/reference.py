#!/usr/bin/env python3
"""Makes reference.json of Docker's reference of its API: which methods and paths there are, with which status each
succeeds, and which fields an answer must have. Facts only. Usage: reference.py docker-engine-api.yaml > reference.json"""

import json
import sys

import yaml

document = yaml.safe_load(open(sys.argv[1], encoding="utf-8"))


def resolved(schema):
    while "$ref" in schema:
        schema = document["definitions"][schema["$ref"].split("/")[-1]]
    return schema


def fields(schema, depth=0):
    """Required fields by path: `a`, `a.b`, `[].a`; everywhere below a required or known object."""
    schema = resolved(schema)
    found = set()
    if depth > 6:
        return found
    for part in schema.get("allOf", []):
        found |= fields(part, depth + 1)
    if schema.get("type") == "array" and "items" in schema:
        found |= {"[]." + name for name in fields(schema["items"], depth + 1)}
    required = schema.get("required", [])
    for name in required:
        if schema.get("properties") and name not in schema["properties"]:
            continue
        found.add(name)
    for name, inner in schema.get("properties", {}).items():
        # What may be absent may still have parts that may not.
        mark = name if name in required else name + "?"
        found |= {mark + "." + below for below in fields(inner, depth + 1)}
    return found


rows = []
for path, methods in sorted(document["paths"].items()):
    for method, operation in sorted(methods.items()):
        if method not in ("get", "post", "put", "delete", "head"):
            continue
        good = {}
        for status, response in operation.get("responses", {}).items():
            if str(status)[0] in "123":
                good[str(status)] = sorted(fields(response["schema"])) if "schema" in response else []
        names = sorted({
            name
            for status, response in operation.get("responses", {}).items()
            if str(status)[0] == "2" and "schema" in response
            for name in resolved(response["schema"]).get("properties", {})
        })
        rows.append({"method": method.upper(), "path": path, "success": good, "known": names})
print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
