"""What a language model is told: Jinja2 templates in `templates/`, filled by `PromptBuilder`."""
