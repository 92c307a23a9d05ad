"""The web server: an HTTP API and a page around recognizers. Needs froster-video[web]; the API
alone does without gradio.

A request goes guard -> app -> upload -> limits -> jobs -> models, and nothing that a client sends
is taken for a path.
"""
