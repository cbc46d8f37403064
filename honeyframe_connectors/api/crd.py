"""CustomResourceDefinitions and JSON Schemas from the models and the registry."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from honeyframe_connectors.api import catalog_config, connector, connector_test
from honeyframe_connectors.api.kinds import API_VERSION, GROUP, VERSION, Kind
from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.registry import Registry

_KEPT = (
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "required",
    "type",
)
_REFUSED_SECRETS = (
    "{fields}: secrets do not belong in config; put them in a Secret of this namespace that bears the label "
    'honeyframe.io/credentials: "true", and name it in spec.secretRef'
)


def crds(registry: Registry) -> dict[str, dict[str, Any]]:
    """Every kind's CustomResourceDefinition, by the name of its file in `crds/`."""
    return {
        f"{connector.KIND.plural}.yaml": _definition(
            connector.KIND, _connector_spec(registry), _status(connector.ConnectorStatus)
        ),
        f"{catalog_config.KIND.plural}.yaml": _definition(
            catalog_config.KIND, _catalog_spec(), _status(catalog_config.CatalogConfigStatus)
        ),
        f"{connector_test.KIND.plural}.yaml": _definition(
            connector_test.KIND, _test_spec(registry), _status(connector_test.ConnectorTestStatus)
        ),
    }


def json_schemas(registry: Registry) -> dict[str, dict[str, Any]]:
    """A JSON Schema per kind for editors and offline checks, by file name; secret fields are unknown to it."""
    specs = (
        (connector.KIND, _connector_spec(registry)),
        (catalog_config.KIND, _catalog_spec()),
        (connector_test.KIND, _test_spec(registry)),
    )
    return {f"{kind.kind.lower()}_{VERSION}.json": _manifest_schema(kind, spec) for kind, spec in specs}


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """A model as a structural schema: no references, no null, no titles, no defaults."""
    schema = model.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}))


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        return _structural({**target, **{key: value for key, value in node.items() if key != "$ref"}}, definitions)
    if "anyOf" in node:
        (only,) = (part for part in node["anyOf"] if part.get("type") != "null")
        return _structural({**only, **{key: value for key, value in node.items() if key != "anyOf"}}, definitions)
    result = {key: node[key] for key in _KEPT if key in node and key != "items"}
    if "const" in node:
        result["enum"] = [node["const"]]
    if "properties" in node:
        result["properties"] = {name: _structural(child, definitions) for name, child in node["properties"].items()}
    elif node.get("type") == "object":
        additional = node.get("additionalProperties", True)
        if additional is True:
            result["x-kubernetes-preserve-unknown-fields"] = True
        elif additional:
            result["additionalProperties"] = _structural(additional, definitions)
        for keyword in ("minProperties", "maxProperties"):
            if keyword in node:
                result[keyword] = node[keyword]
    if "items" in node:
        result["items"] = _structural(node["items"], definitions)
    return result


def _connector_spec(registry: Registry) -> dict[str, Any]:
    spec = _with_blocks(structural(connector.ConnectorSpec), registry)
    spec["properties"]["config"]["x-kubernetes-validations"] = [
        {
            "rule": " || ".join(f"(has(self.{name}) && has(oldSelf.{name}))" for name in sorted(registry)),
            "message": "the type cannot be changed: delete the Connector and create it again, "
            "or create another one under a new name",
        }
    ]
    return spec


def _with_blocks(spec: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """A spec whose `config` has a block per type."""
    spec["properties"]["config"] = {
        "type": "object",
        "description": spec["properties"]["config"]["description"],
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {name: _block(registry[name]) for name in sorted(registry)},
    }
    return spec


def _block(type_: ConnectorType[Any]) -> dict[str, Any]:
    block = structural(type_.config)
    secret = sorted(marked(type_.config, Mark.SECRET))
    optional = set(secret) | marked(type_.config, Mark.MAPPABLE)
    required = [name for name in block.pop("required", []) if name not in optional]
    if required:
        block["required"] = required
    block["description"] = f"{type_.title}. {block['description']}"
    for name, info in type_.config.model_fields.items():
        node = block["properties"][name]
        if name in secret:
            block["properties"][name] = {
                "type": "string",
                "description": f"{info.description} A secret: comes from the Secret that spec.secretRef names, "
                "and is refused here.",
            }
        elif Mark.MAPPABLE in info.metadata:
            node["description"] += " May come from the Secret by spec.secretRef.keys."
    if secret:
        block["x-kubernetes-validations"] = [
            {
                "rule": " && ".join(f"!has(self.{name})" for name in secret),
                "message": _REFUSED_SECRETS.format(fields=", ".join(secret)),
                "reason": "FieldValueForbidden",
            }
        ]
    return block


def _catalog_spec() -> dict[str, Any]:
    spec = structural(catalog_config.CatalogConfigSpec)
    spec["properties"]["org"]["x-kubernetes-validations"] = [
        {
            "rule": "self == oldSelf",
            "message": "org cannot be changed: delete this CatalogConfig and create one in the other org's namespace",
        }
    ]
    spec["properties"]["adapters"]["x-kubernetes-validations"] = [
        {
            "rule": "self.all(a, self.exists_one(b, (has(b.instanceName) ? b.instanceName : b.adapter) == "
            "(has(a.instanceName) ? a.instanceName : a.adapter)))",
            "message": "two adapters have the same instanceName (default: the adapter's name); give each its own",
        }
    ]
    return spec


def _test_spec(registry: Registry) -> dict[str, Any]:
    spec = structural(connector_test.ConnectorTestSpec)
    _with_blocks(spec["properties"]["connector"], registry)
    spec["x-kubernetes-validations"] = [
        {
            "rule": "self == oldSelf",
            "message": "a question cannot be changed: delete this ConnectorTest and create another one",
        },
        {
            "rule": "has(self.connectorRef) != has(self.connector)",
            "message": "write exactly one of connectorRef and connector",
        },
        {
            "rule": "!has(self.message) || has(self.connectorRef)",
            "message": "a message is sent through an applied Connector: name it in connectorRef",
        },
    ]
    return spec


def _status(model: type[BaseModel]) -> dict[str, Any]:
    status = structural(model)
    status["default"] = {"observedGeneration": -1}
    status["properties"]["observedGeneration"] |= {"format": "int64", "default": -1}
    conditions = status["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return status


def _definition(kind: Kind, spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.kind.lower(),
        "categories": ["honeyframe"],
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": names,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(kind.columns),
                    "selectableFields": [{"jsonPath": path} for path in kind.selectable],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": kind.description,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                        }
                    },
                }
            ],
        },
    }


def _manifest_schema(kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": kind.kind,
        "description": kind.description,
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind.kind},
            "metadata": {"type": "object"},
            "spec": _closed(spec),
            "status": {"type": "object"},
        },
        "additionalProperties": False,
    }


def _closed(node: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema that refuses unknown fields, and the fields that CEL refuses."""
    refused = {
        name.strip().removeprefix("!has(self.").removesuffix(")")
        for rule in node.get("x-kubernetes-validations", [])
        if rule.get("reason") == "FieldValueForbidden"
        for name in rule["rule"].split("&&")
    }
    result = {key: value for key, value in node.items() if not key.startswith("x-kubernetes-")}
    if "properties" in node:
        result["properties"] = {
            name: _closed(child) for name, child in node["properties"].items() if name not in refused
        }
        result["additionalProperties"] = False
    if "items" in node:
        result["items"] = _closed(node["items"])
    return result
