"""The Sphinx extension by which the site's search leads to a claim by its id."""

from __future__ import annotations

from typing import ClassVar

from sphinx.domains import Domain, ObjType

from cltheory.checks import registry

IMPORTANT = 0  # before all that only holds the words


class Claims(Domain):
    """The claims as objects of the search: an id leads straight to its theorem."""

    name, label = "claim", "Checked"  # the search writes "Checked claim"
    object_types: ClassVar = {"claim": ObjType("claim")}

    def get_objects(self):
        for label, theorem in getattr(self.env, "proof_list", {}).items():
            if label in registry():
                yield label, label, "claim", theorem["docname"], label, IMPORTANT

    def merge_domaindata(self, docnames, otherdata):
        pass  # nothing of its own


def setup(app):
    app.add_domain(Claims)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
