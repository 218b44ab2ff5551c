"""The configuration: its schema, and how YAML files and dotted overrides become one."""

from imgcap.config.load import load_config, save_config
from imgcap.config.schema import Config

__all__ = ["Config", "load_config", "save_config"]
