"""Reads an HTML page as a browser would."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Collects a page's text, and the URLs of the resources that it loads."""

    def __init__(self):
        super().__init__()
        self.words, self.urls, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.urls += [v for k, v in attrs if k in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words += data.split()


def parse(html):
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


def text(html):
    return " ".join(parse(html).words)
