"""The keys of the configuration as data: names, descriptions, and in words what each may hold."""

from typing import Any

from pydantic.fields import FieldInfo

from imgcap.config.section import Section, sections_in

_TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def fields_of(section: type[Section], prefix: str = "") -> dict[str, FieldInfo]:
    """Every key by its dotted name, sections too, those of all types of decoder."""
    found: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        found[prefix + name] = field
        for below in sections_in(field.annotation):
            found = fields_of(below, f"{prefix}{name}.") | found
    return found


def type_and_values(schema: dict[str, Any]) -> tuple[str, str]:
    """Tell the type of a JSON schema in words, and its choices or range."""
    if "anyOf" in schema:
        kinds = [type_and_values(each) for each in schema["anyOf"]]
        if any("pattern" in each for each in schema["anyOf"]):
            return "duration", "steps or epochs (2ep)"
        return " or ".join(kind for kind, _ in kinds), kinds[0][1]
    if "$ref" in schema:
        return "section", ""
    if "const" in schema or "enum" in schema:
        return "choice", ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema["type"] == "array":
        return "list", type_and_values(schema["items"])[1]
    if schema["type"] == "object":
        names = ", ".join(schema.get("propertyNames", {}).get("enum", []))
        of = schema["additionalProperties"]
        kind, values = ("anything", "") if of is True else type_and_values(of)
        held = kind if kind == "duration" else f"{kind} {values}".strip()
        return "mapping", f"{names or 'name'}: {held}"
    if schema.get("format") == "path":
        return "path", ""
    range_ = (f"{word} {schema[bound]:.10g}" for bound, word in _BOUNDS.items() if bound in schema)
    return _TYPES[schema["type"]], ", ".join(range_)
