"""The documentation site, built into `site`: `python -m benchmarks.pages.site`.

Zensical builds it from `mkdocs.yml`, and any warning fails the build. `--serve` serves
it on this machine, to read it while writing.
"""
