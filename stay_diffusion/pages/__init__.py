"""HTML and Markdown pages: report, browse page, model card."""
