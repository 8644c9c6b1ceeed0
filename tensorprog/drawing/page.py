"""A picture as a page that needs nothing else: boxes open below it."""

from __future__ import annotations

from tensorprog.drawing.colours import Theme
from tensorprog.drawing.svg import escaped

__all__ = ["page"]


def page(title: str, picture: str, boxes: list[tuple[str, str]], theme: Theme) -> str:
    """An HTML page.

    Args:
        title: Of the page.
        picture: The SVG.
        boxes: Headings and insides of boxes, pictures of their own.
        theme: Its colours.
    """
    opened = "\n".join([f"<details>\n<summary>{escaped(head)}</summary>\n{inside}</details>" for head, inside in boxes])
    style = (
        f"body {{ margin: 1.5rem; background: {theme.paper}; color: {theme.ink}; font-family: Helvetica, Arial, sans-serif; }}\n"
        f"details {{ margin: 0.8rem 0; border-top: 1px solid {theme.plate}; padding-top: 0.6rem; }}\n"
        "summary { cursor: pointer; }\nfigure, details { overflow-x: auto; }\nfigure { margin: 0; }"
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escaped(title)}</title>\n'
        f"<style>\n{style}\n</style>\n</head>\n<body>\n<figure>\n{picture}</figure>\n{opened}\n</body>\n</html>\n"
    )
