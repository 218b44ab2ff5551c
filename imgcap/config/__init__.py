"""The configuration: its schema, and how YAML files and dotted overrides become one."""

from imgcap.config.load import as_yaml, load_config
from imgcap.config.schema import Config

__all__ = ["Config", "as_yaml", "load_config"]
