"""Captions that say nothing about a picture, or that hold code which a page must not run."""

from __future__ import annotations

FILE_NAMES = (
    "DSC_0042.JPG",
    "IMG_20140723_101512",
    "P1010317.JPG",
    "image001.jpg",
    "DSCN0815.jpg",
    "SAM_1234",
    "100_2456.JPG",
    "IMG-20150214-WA0007.jpg",
    "scan0003.tif",
    "photo (12).JPG",
    "Screen Shot 2013-05-02 at 11.23.41.png",
    "WP_20130901_002.jpg",
    "untitled-3.png",
    "IMGP4410",
)

EMPTY = ("", None, "  ")

MARKUP = (
    "<b>{}</b>",
    "{}<script>alert(1)</script>",
    '<img src=x onerror="alert(1)"> {}',
    '<a href="javascript:alert(1)">{}</a>',
    '"><svg onload=alert(1)>{}',
    "</p></div><h1>{}</h1><!--",
)
"""Markup around a caption that is otherwise right."""
