"""The page and the Markdown of a report."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

from tests.reporting.reports import report
from trex_ds.reporting.markdown import to_markdown
from trex_ds.reporting.page import to_html
from trex_ds.reporting.result import tables

HTML = "{http://www.w3.org/1999/xhtml}"


def test_page_is_well_formed_and_needs_nothing_beside_it():
    text = to_html(report())
    page = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    tags = {element.tag.removeprefix(HTML) for element in page.iter()}
    assert not tags & {"script", "link", "iframe", "object"}
    for element in page.iter():
        for name, value in element.attrib.items():
            assert name not in ("href", "onclick")
            assert name != "src" or value.startswith("data:image/svg+xml;base64,")
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/1999/xhtml)", text)
    assert page.find(f".//{HTML}meta[@name='viewport']") is not None


def test_plots_are_svg():
    images = ElementTree.fromstring(to_html(report()).removeprefix("<!DOCTYPE html>\n")).findall(f".//{HTML}img")
    assert len(images) == 3
    for image in images:
        assert image.get("alt")
        svg = base64.b64decode(image.get("src").partition(",")[2])
        assert ElementTree.fromstring(svg).tag.endswith("}svg")


def test_every_verdict_is_on_the_page_and_in_markdown():
    made = report()
    page = "".join(ElementTree.fromstring(to_html(made).removeprefix("<!DOCTYPE html>\n")).itertext())
    markdown = to_markdown(made)
    for verdict in made.verdicts:
        for text in (verdict.claim, verdict.against, verdict.outcome, verdict.reason):
            assert text in page
            assert text in markdown
    assert "+35.0%" in markdown


def test_rows_have_as_many_cells_as_their_head():
    for table in tables(report()):
        assert {len(row) for row in table.rows} == {len(table.head)}, table.title
