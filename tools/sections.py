"""Sections that a directive makes from text, in the outline of its page like those typed there."""

from __future__ import annotations

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def add_sections(directive: SphinxDirective, text: str) -> None:
    """Parse MyST in the place of a directive; its lists of definitions get the class ``facts``.

    Headings have the levels that they would have if they were typed in the page.
    """
    parent = directive.state_machine.node
    start = len(parent)
    source = StringList(text.splitlines(), directive.name)
    directive.state.nested_parse(source, 0, parent, match_titles=True)
    for added in parent[start:]:
        for facts in added.findall(nodes.definition_list):
            facts["classes"].append("facts")
