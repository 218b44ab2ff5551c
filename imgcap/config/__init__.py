"""The configuration: a section a component, and how YAML files and dotted overrides become one."""
