"""The public names: those of the contract are there, and each says what it is, with an example that runs.

The examples themselves are run by `test_doctests`.
"""

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import minipcax

NAMES = {
    "minipcax": """BaseParam DynamicParam StaticParam Param ParamDict ParamCache get set static BaseModule Module
        RandomKeyGenerator RKGState RKG tree_apply tree_extract tree_inject tree_ref tree_unref""",
    "minipcax.functional": """jit vmap grad value_and_grad scan while_loop cond switch
        Jit Vmap Grad ValueAndGrad Scan WhileLoop Cond Switch
        jacobian jacrev jacfwd hessian jvp vjp checkpoint eval_shape""",
    "minipcax.nn": """Layer LayerParam LayerState StateParam Linear Conv Conv1d Conv2d Conv3d ConvTranspose Pool
        MaxPool2d AvgPool2d AdaptivePool AdaptiveAvgPool2d AdaptiveMaxPool2d Dropout LayerNorm BatchNorm shared""",
    "minipcax.predictive_coding": """EnergyModule Vode VodeParam Ruleset STATUS se_energy ce_energy zero_energy""",
    "minipcax.utils": """M M_is M_has M_hasnot Optim OptimTree step save_params load_params""",
}
TYPES = {"EnergyFn"}  # of arguments: no docstring can be attached
NAMESPACES = [*NAMES, "minipcax.learning"]
PUBLIC = [(space, name) for space in NAMESPACES for name in importlib.import_module(space).__all__ if name not in TYPES]
HEADINGS = ["Args", "Returns", "Raises", "Example", "Reference"]


@pytest.mark.parametrize("space", NAMES)
def test_the_names_of_the_contract_are_there(space: str) -> None:
    namespace = importlib.import_module(space)
    assert set(NAMES[space].split()) <= {*namespace.__all__}
    assert all(hasattr(namespace, name) for name in namespace.__all__)


@pytest.mark.parametrize(("space", "name"), PUBLIC)
def test_every_public_name_says_what_it_is(space: str, name: str) -> None:
    documented = getattr(importlib.import_module(space), name)
    # An instance, such as RKG, says what its class does; a transformed function what the function does.
    text = documented.__dict__.get("__doc__") if inspect.isclass(documented) else documented.__doc__
    assert text, f"{name} has no docstring"
    assert doctest.DocTestParser().get_examples(text), f"{name} has no example"
    headings = [heading for heading in re.findall(r"^ *(\w+):", text, re.MULTILINE) if heading in HEADINGS]
    assert headings == sorted(headings, key=HEADINGS.index), f"{name}: the sections are {headings}"


def signatures(path: Path, names: set[str]) -> dict[str, str]:
    """The source of the signatures of public functions and methods, with the line above, where comments may stand."""
    text = path.read_text()
    lines = text.splitlines()
    found = {}

    def visit(body: list[ast.stmt], within: str) -> None:
        overloaded = set()
        for node in body:
            if isinstance(node, ast.ClassDef) and (within or node.name in names):
                visit(node.body, f"{node.name}.")
            if isinstance(node, ast.FunctionDef) and (
                node.name in names if not within else re.match("[^_]|__init__|__call__", node.name)
            ):
                if any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list):
                    overloaded.add(node.name)
                elif node.name in overloaded:
                    continue  # what no caller sees
                types = [node.returns, *(arg.annotation for arg in ast.walk(node.args) if isinstance(arg, ast.arg))]
                if any(isinstance(part, ast.Name) and part.id == "Any" for t in types if t for part in ast.walk(t)):
                    found[f"{path.name}:{node.lineno} {within}{node.name}"] = "\n".join(
                        lines[node.lineno - 2 : node.body[0].lineno]
                    )

    visit(ast.parse(text).body, "")
    return found


@pytest.mark.parametrize("space", NAMESPACES)
def test_any_in_a_public_signature_has_its_reason(space: str) -> None:
    folder = Path(minipcax.__file__).parent / (space.partition(".")[2] or "core")
    names = {*importlib.import_module(space).__all__}
    found = {place: source for path in sorted(folder.glob("*.py")) for place, source in signatures(path, names).items()}
    assert [place for place, source in found.items() if "#" not in source] == []
