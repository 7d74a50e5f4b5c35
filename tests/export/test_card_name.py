import pytest

from lightning_jv5.export.card_name import renamed

CARD = """---
model_name: query
tags:
- query
---

# query

A model named query.

```python
model = SentenceTransformer("query", trust_remote_code=True)
model.encode(queries, prompt_name="query")
embedder = Embedder("query")
name = "query"
base = SentenceTransformer("google/query")
```
"""


def test_a_name_changes_where_it_is_that_of_the_model_and_nowhere_else() -> None:
    expected = (
        CARD.replace("model_name: query", "model_name: my-team/x_y")
        .replace("# query", r"# my-team/x\_y")
        .replace('SentenceTransformer("query"', 'SentenceTransformer("my-team/x_y"')
        .replace('Embedder("query"', 'Embedder("my-team/x_y"')
        .replace('name = "query"', 'name = "my-team/x_y"')
    )
    assert renamed(CARD, "my-team/x_y") == expected
    assert renamed(expected, "query") == CARD


@pytest.mark.parametrize(
    "front", ["", "---\ntags: [a]\n---\n", "---\n---\n", "---\nmodel_name: [a]\n---\n", "---\na: [\n---\n"]
)
def test_a_card_of_somebody_else_stays_as_it_is(front: str) -> None:
    card = front + '# query\n\n```python\nmodel = SentenceTransformer("query")\n```\n'
    assert renamed(card, "my-team/x") == card


def test_a_title_that_somebody_wrote_stays() -> None:
    card = CARD.replace("# query", "# My embedder")
    assert "# My embedder" in renamed(card, "my-team/x")
    assert 'Embedder("my-team/x")' in renamed(card, "my-team/x")
