"""Functions of one row in plain Python, the same source for both sides of the benchmark."""

import re


def short_comment(x):
    """Fewer than five words."""
    return len(x.text.split()) < 5


def keyword_please(x):
    """Begs."""
    return "please" in x.text.lower() or "plz" in x.text.lower()


def keyword_subscribe(x):
    """Asks to subscribe."""
    return "subscribe" in x.text.lower()


def regex_check_out(x):
    """Says check out, with anything between."""
    return bool(re.search(r"check.*out", x.text, flags=re.I))


def short_link(x):
    """Holds a shortened link."""
    return bool(re.search(r"\w+\.ly", x.text))


FIVE = [short_comment, keyword_please, keyword_subscribe, regex_check_out, short_link]


def keyword(words):
    """Return the function that finds any of the words."""

    def found(x):
        text = x.text.lower()
        return any(word in text for word in words)

    return found


def regex(pattern):
    """Return the function that finds the pattern in any case."""
    compiled = re.compile(pattern, re.I)

    def found(x):
        return compiled.search(x.text) is not None

    return found


def written(declarations):
    """Return (name, function) of declarations that hold ``words`` or a ``pattern`` each."""
    return [
        (each["name"], keyword(each["words"]) if "words" in each else regex(each["pattern"])) for each in declarations
    ]
