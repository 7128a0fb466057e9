"""The tables of kd_jax.inspect, taken apart."""

import re


def section(text, head):
    """The cells of the lines of a section, by the first of each; cells are two spaces apart."""
    (found,) = (part for part in text.split('\n\n') if part.startswith(head))
    return {first.strip(): rest for first, *rest in map(_cells, found.splitlines()[1:])}


def _cells(line):
    return re.split(r'(?<=\S)\s{2,}', line)
