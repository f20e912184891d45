"""A page of ours taken apart, for tests of what it says."""

from html.parser import HTMLParser


class Read(HTMLParser):
    """Every tag with its attributes, in order, and the text up to the next."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict, list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes), []))

    def handle_data(self, data):
        if self.tags:
            self.tags[-1][2].append(data)

    def of(self, tag: str, kind: str = "") -> list[dict]:
        return [a for name, a, _ in self.tags if name == tag and (not kind or kind in a.get("class", "").split())]

    def text(self, tag: str) -> list[str]:
        return ["".join(data).strip() for name, _, data in self.tags if name == tag]
