"""The reference of the package: whole, with an example of every name, signatures as written."""

import ast
import importlib
import re

import pytest

import api
import chapters
import uses

FUNCTIONS = [
    pytest.param(module, name, id=f"{module}.{name}")
    for module in uses.modules()
    for name, node in uses.public(module).items()
    if isinstance(node, ast.FunctionDef | ast.ClassDef)
]


def missing(node, module_text=""):
    """What the text of a public function or class leaves out."""
    own = ast.get_docstring(node) or ""
    text = own + module_text
    faults = []
    if not own.strip():
        faults.append("no docstring")
    if f"{node.name}(" not in "".join(re.findall(r"(?:>>>|\.\.\.) .*", text)) and ">>>" not in own:
        faults.append("no example")
    if refuses(node) and not re.search(r"Raises|[Ee]rrors|Require|Error", text):
        faults.append("does not say what it refuses")
    unshaped = [a for a in tensors(node) if not re.search(r"shape|entry by entry|axis", text)]
    return [*faults, *(f"{argument} has no shape" for argument in unshaped)]


def refuses(node):
    """Whether the code itself raises, or hands an argument to the package's validation."""
    return any(
        isinstance(part, ast.Raise) or (isinstance(part, ast.Name) and part.id == "_validate")
        for part in ast.walk(node)
    )


def tensors(node):
    """Arguments that are annotated as a tensor without a shape."""
    return [
        argument.arg
        for part in (node.body if isinstance(node, ast.ClassDef) else [node])
        if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")
        for argument in [*part.args.args, *part.args.kwonlyargs]
        if argument.annotation and ast.unparse(argument.annotation).startswith("Tensor")
    ]


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_every_public_name_says_what_it_does_takes_and_refuses_and_shows_it(module, name):
    text = importlib.import_module(f"cltheory.{module}").__doc__
    node = uses.public(module)[name]
    assert missing(node, text) == []
    for method in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
            assert ast.get_docstring(method), method.name


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f(x: int): pass", "no docstring"),
        ('def f(x: int):\n "Return x."', "no example"),
        ('def f(x: int):\n "Do. >>> f(1)"\n _validate.positive(x)', "does not say what it refuses"),
        ('def f(x: int):\n "Do. >>> f(1)"\n raise ValueError', "does not say what it refuses"),
        ('def f(x: Tensor):\n "Do. >>> f(1)"', "x has no shape"),
        ('class F:\n "A. >>> F()"\n def g(self, y: Tensor | None): pass', "y has no shape"),
    ],
)
def test_what_a_docstring_leaves_out_is_noticed(source, fault):
    assert fault in missing(ast.parse(source).body[0])


def test_every_module_has_a_page_a_shelf_and_a_place_in_the_contents():
    on_shelves = [module for shelf in api.SHELVES.values() for module in shelf]
    assert sorted(on_shelves) == uses.modules()
    pages = chapters.ROOT / "book" / "api"
    assert {path.stem for path in pages.glob("*")} == set(on_shelves)
    for module in on_shelves:
        assert f"```{{api}} {module}\n" in (pages / f"{module}.md").read_text(encoding="utf-8")
    listed = [page for page in chapters.parts() if page.startswith("book/api/")]
    assert listed == [f"book/api/{module}" for module in on_shelves]


def signature(name, what="function"):
    module, *rest = name.split(".")
    obj = importlib.import_module(f"cltheory.{module}")
    for part in rest:
        obj = getattr(obj, part)
    return api.sign(None, what, f"cltheory.{name}", obj, None, "", None)


def test_a_signature_is_as_its_author_wrote_it():
    arguments, returns = signature("rkhs.inner")
    assert arguments.startswith("(gram: Float[Tensor, 'n n'], f: Float[Tensor, 'n'], g: ")
    assert returns == "Float[Tensor, '']"


def test_an_alias_in_a_signature_keeps_its_name_and_links_to_its_text():
    assert signature("kernels.on_sphere") == (
        "(profile: cltheory.kernels.Profile)",
        "cltheory.kernels.Kernel",
    )
    assert "kernel: cltheory.kernels.Kernel, points: Tensor" in signature("mercer.nystrom")[0]
    assert "excluded: tuple[int, ...]=(0,)" in signature("blockwise.log_sums")[0]


def test_a_class_is_signed_by_its_constructor_or_its_fields():
    assert signature("networks.TwoLayer", "class")[0].startswith("(in_dim: int, width: int, ")
    fields, returns = signature("mercer.Expansion", "class")
    assert fields.startswith("(eigenvalues: Float[Tensor, 'n'], eigenfunctions: ")
    assert "field(" not in fields
    assert returns is None
    assert signature("pairs.PairModel.sample", "method")[0].startswith("(n: int")


def finished(text, name="kernels.centre"):
    lines = text.splitlines()
    obj = getattr(importlib.import_module("cltheory.kernels"), name.partition(".")[2])
    api.finish(None, "function", f"cltheory.{name}", obj, None, lines)
    return "\n".join(lines)


def test_names_between_backticks_are_links_only_where_they_name_something_public():
    """``gram`` is a function of the module, and an argument of ``centre``."""
    text = finished("See `rbf`, `gram`, `rtol`, ``rbf`` and :math:`rbf`.")
    assert (
        ":py:obj:`rbf <cltheory.kernels.rbf>`, ``gram``, ``rtol``, ``rbf`` and :math:`rbf`" in text
    )


def test_references_become_a_list():
    text = finished("As shown [1]_.\n\n.. [1] Someone (1950).\n   A title.")
    assert "As shown [1].\n\n#. Someone (1950).\n   A title." in text


def test_a_function_names_its_claims_and_tests():
    text = finished("Centre.")
    assert ":Evidence: :prf:ref:`kpca-mds-eckart-young`" in text
    assert "``test_kernels.py``" in text


def test_a_field_that_a_factory_fills_has_a_default():
    given, _ = signature("systems.Method", "class")
    assert given.endswith("learned: Mapping[str, float]=dict())")
