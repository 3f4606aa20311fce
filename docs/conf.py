"""How Sphinx builds the documentation: HTML with furo; pages of commands and files become man pages too."""

import inspect
import re

from docutils import nodes
from sphinx.writers.manpage import ManualPageTranslator

import pywg

project = "pywg"
author = copyright = "the pywg authors"
version = release = pywg.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pywg {release}"
html_show_copyright = False
html_show_sphinx = False
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # pages that become man pages begin their sections as those do

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True

man_show_urls = False
man_pages = [
    ("reference/pywg", "pywg", "userspace WireGuard: tunnels, settings, keys", [author], 8),
    ("reference/pywg-up", "pywg-up", "bring up a tunnel, and take it down", [author], 8),
    ("reference/pywg-save", "pywg-save", "write a running tunnel into its file", [author], 8),
    ("reference/pywg-reload", "pywg-reload", "put a changed file into a running tunnel", [author], 8),
    ("reference/pywg-monitor", "pywg-monitor", "endpoints that change while a tunnel runs", [author], 8),
    ("reference/pywg-show", "pywg-show", "show interfaces, peers and traffic", [author], 8),
    ("reference/pywg-set", "pywg-set", "change the settings of a running interface", [author], 8),
    ("reference/pywg-setconf", "pywg-setconf", "settings from and to files", [author], 8),
    ("reference/pywg-new", "pywg-new", "new files that match each other", [author], 8),
    ("reference/pywg-strip", "pywg-strip", "a configuration file as wg takes it", [author], 8),
    ("reference/pywg-qr", "pywg-qr", "a configuration file as a QR code", [author], 8),
    ("reference/pywg-genkey", "pywg-genkey", "make keys", [author], 8),
    ("reference/pywg-doctor", "pywg-doctor", "find out why a tunnel does not work", [author], 8),
    ("reference/pywg-top", "pywg-top", "watch tunnels while they run", [author], 8),
    ("reference/pywg-capture", "pywg-capture", "capture packets and datagrams", [author], 8),
    ("reference/pywg-metrics", "pywg-metrics", "serve metrics to Prometheus", [author], 8),
    ("reference/pywgd", "pywgd", "the daemon of a WireGuard interface", [author], 8),
    ("reference/pywg.conf", "pywg.conf", "configuration files of tunnels", [author], 5),
]

_LONE_STAR = re.compile(r"\*(?!\w[\w ]*\*)(?<!\w\*)")
_ARGUMENTS = re.compile(r"^(?P<names>[a-z_]+(?:, [a-z_]+)*): ", re.MULTILINE)


def _as_paragraphs(*arguments):
    """The code's docstrings are text for people; lines that begin with an argument's name get paragraphs."""
    lines = arguments[-1]
    text = inspect.cleandoc("\n".join(lines))
    text = _LONE_STAR.sub(r"\*", text).replace("|", r"\|")
    lines[:] = [*_ARGUMENTS.sub(r"\n*\g<names>*: ", text).splitlines(), ""]


def _without_links(app, doctree, _):
    """In a man page a link is its text: what it leads to is not there."""
    if app.builder.name == "man":
        for link in list(doctree.findall(nodes.reference)):
            link.replace_self(link.children)


class _ManPage(ManualPageTranslator):
    """No word is cut at the end of a line: names of options and files can be searched for and copied."""

    def header(self):
        title, rest = super().header().split("\n", 1)
        return f"{title}\n.nh\n.ad l\n{rest}"

    def depart_literal_block(self, node):
        super().depart_literal_block(node)
        self.body.append(".nh\n")  # the end of an example switches it on again


def setup(app):
    """Sphinx calls this once."""
    app.set_translator("man", _ManPage)
    app.connect("autodoc-process-docstring", _as_paragraphs)
    app.connect("doctree-resolved", _without_links)
