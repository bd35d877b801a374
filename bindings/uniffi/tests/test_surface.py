"""The names and types that programs use, compared with the list that is kept: WRITE_SURFACE=1 rewrites it."""

import ast
import enum
import inspect
import os
import typing
from pathlib import Path

import highwater

LIST = Path(__file__).parents[1] / "surface.txt"


def parameters(function):
    """The parameters of a function, as they are declared."""
    told = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        text = f"{parameter.name}: {parameter.annotation}"
        if parameter.default is not parameter.empty:
            default = parameter.default
            plain = default is None or isinstance(default, (bool, int, str))
            text += f" = {default!r}" if plain else " = ..."
        told.append(text.replace("typing.", ""))
    return ", ".join(told)


def function(name, function):
    returned = str(inspect.signature(function).return_annotation).replace("typing.", "")
    return f"{name}({parameters(function)}) -> {returned}"


def variants(error):
    for name, variant in sorted(vars(error).items()):
        if inspect.isclass(variant) and issubclass(variant, error):
            yield f"error {error.__name__}.{name}({', '.join(inspect.signature(variant).parameters)})"
            for method, value in sorted(vars(variant).items()):
                if not method.startswith("_") and inspect.isfunction(value):
                    yield function(f"  {method}", value)


def members(kind):
    for name, member in sorted(vars(kind).items()):
        if isinstance(member, (classmethod, staticmethod)):
            if not name.startswith("_"):
                yield "  static " + function(name, member.__func__)
        elif inspect.isfunction(member) and not name.startswith("_"):
            yield "  " + function(name, member)


def made(kind):
    """What an object is made of, where it is not made by methods of its class alone."""
    if "__init__" not in vars(kind):
        return ""
    kinds = {each.kind for each in inspect.signature(kind).parameters.values()}
    named = not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return parameters(kind.__init__) if named else "..."


def surface():
    """One line for each name that a program can use, with its types."""
    for name in sorted(highwater.__all__):
        value = getattr(highwater, name)
        if inspect.isfunction(value):
            yield "def " + function(name, value)
        elif issubclass(value, Exception):
            yield from variants(value)
        elif issubclass(value, enum.Enum):
            yield f"enum {name}: {', '.join(member.name for member in value)}"
        elif hasattr(value, "__dataclass_fields__"):
            yield f"record {name}({parameters(value.__init__)})"
        else:
            yield f"class {name}({made(value)})"
            yield from members(value)


def test_the_surface_is_the_one_that_is_listed():
    text = "".join(line + "\n" for line in surface())
    if os.environ.get("WRITE_SURFACE"):
        LIST.write_text(text)
    assert text == LIST.read_text(), "changed on purpose? WRITE_SURFACE=1 make test-python"


def test_every_name_that_is_listed_is_documented():
    for name in highwater.__all__:
        assert getattr(highwater, name).__doc__, name


def test_nothing_that_is_generated_is_left_out():
    from highwater._library import highwater as generated

    # Errors of the generated code itself; what the library has behind its callbacks; what objects are like.
    inner = {"InternalError", "CheckpointImpl", "ProgressImpl", "WritersImpl"}
    inner |= {name for name in generated.__all__ if name.endswith("Protocol")}
    # In other languages it would be in the way of their own.
    names = {"Error" if name == "HighwaterError" else name for name in generated.__all__}
    assert set(highwater.__all__) == names - inner


def test_the_types_of_functions_can_be_read():
    hints = typing.get_type_hints(highwater.backup)
    assert hints["vault"] is highwater.Vault and hints["return"] is highwater.BackupReport


def test_type_checkers_know_the_errors_that_there_are():
    stub = ast.parse((Path(highwater.__file__).parent / "_errors.pyi").read_text())
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    for error in (highwater.Error, highwater.CallbackError):
        typed = [node.target.id for node in classes[error.__name__].body if isinstance(node, ast.AnnAssign)]
        methods = {node.name for node in classes[error.__name__].body if isinstance(node, ast.FunctionDef)}
        there = {name for name, value in vars(error).items() if inspect.isclass(value)}
        assert {name for name in typed if name[0].isupper()} == there
        fields = [name for name in typed if name[0].islower()]
        for name in there:
            variant = getattr(error, name)
            assert list(inspect.signature(variant).parameters) == fields
            own = {method for method in vars(variant) if not method.startswith("_")}
            assert own == methods - {"__init__"}
            assert [base.id for base in classes[f"_{name}"].bases] == [error.__name__]
