"""Sections that a directive makes from text, in the outline of its page like those typed there."""

from __future__ import annotations

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def sections(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    """Parse MyST with headings from level one on; lists of definitions get the class ``facts``."""
    page = nodes.section()
    page.document = directive.state.document
    source = StringList(text.splitlines(), directive.name)
    directive.state.nested_parse(source, 0, page, match_titles=True)
    for facts in page.findall(nodes.definition_list):
        facts["classes"].append("facts")
    return page.children
