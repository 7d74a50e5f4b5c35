"""Which rows to keep, as an expression over their columns, such as ``score >= 4 and language in ['de', 'en']``."""

import ast
from typing import TYPE_CHECKING, Any

from lightning_jv5.data.source import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
_KNOWN = "column names, numbers, strings, ==, !=, <, <=, >, >=, in [...], is None, len(column), and, or, not"


class RowFilter:
    """A condition on rows, in Python's notation: column names, constants, comparisons, ``and``, ``or``, ``not``.

    ``len(column)`` is the number of characters of a text or of elements of a list. A comparison with a missing value is
    false; ``column is None`` asks for one. Nothing is ever executed.

    Args:
        expression: The condition that a row must meet to be kept.

    Raises:
        ValueError: If it is no such condition.

    >>> import pyarrow as pa
    >>> table = pa.table({"text": ["a", "bcd", "ef"], "score": [5, 2, None]})
    >>> RowFilter("score > 3 or len(text) == 2")(table, "demo").to_pylist()
    [True, False, True]
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        try:
            self._tree = ast.parse(expression.strip(), mode="eval").body
        except SyntaxError as error:
            raise ValueError(f"Got filter {expression!r}, which cannot be read: {error.msg}. Use {_KNOWN}.") from error
        self._check(self._tree)

    def __call__(self, table: "pa.Table", origin: str) -> "pa.ChunkedArray":
        """Return which rows meet the condition, as booleans without nulls.

        Args:
            table: The rows.
            origin: Where they are from, for errors.

        Raises:
            ValueError: If a column does not exist, or is not of a type that can be compared so.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            kept: Any = _evaluate(self._tree, table, origin)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            types = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
            raise ValueError(
                f"{origin}: the filter {self.expression!r} does not fit the columns' types ({types}): {error}. "
                "Compare numbers with numbers and texts with texts in quotes."
            ) from error
        return pc.fill_null(kept, False)

    def _check(self, node: ast.expr) -> None:
        """Refuse what is no condition."""
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self._check(value)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._check(operand)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                self._check_value(left)
                for operator, right in zip(ops, comparators, strict=True):
                    if isinstance(operator, ast.In | ast.NotIn):
                        self._refuse_unless(isinstance(right, ast.List | ast.Tuple) and _constants(right), right)
                    elif isinstance(operator, ast.Is | ast.IsNot):
                        self._refuse_unless(isinstance(right, ast.Constant) and right.value is None, right)
                    else:
                        self._check_value(right)
            case _:
                self._refuse_unless(False, node)

    def _check_value(self, node: ast.expr) -> None:
        match node:
            case ast.Call(func=ast.Name(id="len"), args=[ast.Name()], keywords=[]):
                return
            case ast.Name() | ast.Constant() | ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
                return
        self._refuse_unless(False, node)

    def _refuse_unless(self, fine: bool, node: ast.expr) -> None:
        if not fine:
            raise ValueError(
                f"Got filter {self.expression!r}, in which {ast.unparse(node)!r} is not understood. Use {_KNOWN}."
            )


def _constants(node: ast.List | ast.Tuple) -> bool:
    return all(isinstance(element, ast.Constant) for element in node.elts)


def _evaluate(node: Any, table: Any, origin: str) -> Any:
    """Return booleans, null where a value is missing (Kleene's logic, as in SQL)."""
    import pyarrow.compute as pc

    if isinstance(node, ast.BoolOp):
        combine = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
        result = _evaluate(node.values[0], table, origin)
        for value in node.values[1:]:
            result = combine(result, _evaluate(value, table, origin))
        return result
    if isinstance(node, ast.UnaryOp):
        return pc.invert(_evaluate(node.operand, table, origin))
    left, result = node.left, None
    for operator, right in zip(node.ops, node.comparators, strict=True):
        compared = _compare(operator, left, right, table, origin)
        result = compared if result is None else pc.and_kleene(result, compared)
        left = right
    return result


def _compare(operator: ast.cmpop, left: Any, right: Any, table: Any, origin: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = _value(left, table, origin)
    if isinstance(operator, ast.In | ast.NotIn):
        allowed = pa.array([element.value for element in right.elts])
        found = pc.is_in(values, value_set=allowed.cast(values.type))
        found = pc.if_else(pc.is_null(values), None, found)
        return found if isinstance(operator, ast.In) else pc.invert(found)
    if isinstance(operator, ast.Is | ast.IsNot):
        missing = pc.is_null(values, nan_is_null=True)
        return missing if isinstance(operator, ast.Is) else pc.invert(missing)
    compared = getattr(pc, _COMPARISONS[type(operator)])(values, _value(right, table, origin))
    # two constants compare to one value
    return compared if not isinstance(compared, pa.Scalar) else pa.array([compared.as_py()] * len(table))


def _value(node: Any, table: Any, origin: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(node, ast.Call):
        argument: Any = node.args[0]
        column = _column(argument.id, table, origin)
        nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        return pc.list_value_length(column) if nested else pc.utf8_length(column)
    if isinstance(node, ast.Name):
        return _column(node.id, table, origin)
    return pa.scalar(ast.literal_eval(node))


def _column(name: str, table: Any, origin: str) -> Any:
    if name not in table.column_names:
        raise ValueError(
            f"{origin} has the columns {', '.join(table.column_names)}; the filter needs {name!r}."
            f"{did_you_mean(name, table.column_names)} Texts go in quotes."
        )
    return table[name]
