"""The name that a card calls its model, and another in its place: on the hub a model is loaded by its repository's."""

import json
import re
from typing import Any

from lightning_jv5.export.markdown import escaped

NAME_KEY = "model_name"  # of the front matter
_FRONT = re.compile(r"---\n(.*?\n)---\n", re.DOTALL)


def renamed(card: str, name: str) -> str:
    r"""Put another name in a card: in its front matter, its title, and where its programs load the model.

    Args:
        card: The text of a ``README.md``; one whose front matter has no ``model_name`` stays as it is, and so does a
            title that somebody changed.
        name: What to call the model instead, such as ``my-team/my-embedder``.

    Returns:
        The card under that name.

    >>> card = '---\nmodel_name: small\n---\n\n# small\n\nmodel = SentenceTransformer("small")\n'
    >>> print(renamed(card, "my-team/small"))
    ---
    model_name: my-team/small
    ---
    <BLANKLINE>
    # my-team/small
    <BLANKLINE>
    model = SentenceTransformer("my-team/small")
    <BLANKLINE>
    """
    import yaml

    found, old = _FRONT.match(card), front_matter(card).get(NAME_KEY)
    if found is None or not isinstance(old, str):
        return card
    before, after = (yaml.safe_dump({NAME_KEY: one}, allow_unicode=True) for one in (old, name))
    body = card[found.end() :].replace(f"\n# {escaped(old)}\n", f"\n# {escaped(name)}\n", 1)
    loads = re.compile(rf"(\bSentenceTransformer\(|\bEmbedder\(|^name = ){re.escape(json.dumps(old))}", re.MULTILINE)
    body = loads.sub(lambda match: match[1] + json.dumps(name), body)
    return found[0].replace(before, after) + body


def front_matter(card: str) -> dict[str, Any]:
    r"""Return what a card says to the hub, between its first two lines of dashes; nothing where that cannot be read.

    >>> front_matter("---\nlicense: mit\n---\n\n# small\n")
    {'license': 'mit'}
    """
    import yaml

    found = _FRONT.match(card)
    try:
        front = yaml.safe_load(found[1]) if found is not None else None
    except yaml.YAMLError:
        return {}
    return front if isinstance(front, dict) else {}
